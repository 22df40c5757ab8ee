"""What a data set is, by its content: every file's digest, rows, time window, schema.

Equal content, equal manifest, to the byte: it holds no clock and no path of this machine. Its
`version` is the sha256 of all the rest, so the manifest vouches for itself as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pydantic import Field, ValidationError

from pipelines.validate.files import write_whole
from rankstream.adapters.artifacts import file_sha256
from rankstream.contracts.base import Contract
from rankstream.errors import InvalidArtifact

DATASET: Final = "dataset.json"
TIME_COLUMNS: Final = ("event_time_ms", "time_ms")
_DELTA_LOG: Final = "_delta_log"


class Part(Contract):
    """A file: `sha256` of its bytes."""

    path: str
    sha256: str
    size: int = Field(ge=0)


class Dataset(Contract):
    """Parts by path, and what they hold; `from_ms` and `until_ms` are of its first and last row.

    `rows` is None where a file's rows cannot be counted; a window is None without a time column.
    """

    version: str
    parts: tuple[Part, ...]
    rows: int | None
    from_ms: int | None
    until_ms: int | None
    columns: tuple[tuple[str, str], ...]  # name, type


def dataset_of_folder(folder: Path) -> Dataset:
    """The manifest of all files below a folder, DATASET itself left out.

    Rows, columns and window are those of its Parquet files; of a Delta table, of the files that
    its newest version holds.

    Raises: InvalidArtifact: no such folder, a link or another thing that is no file in it, or a
        Parquet file that cannot be read.
    """
    parts = tuple(
        Part(path=name, sha256=file_sha256(path), size=path.stat().st_size)
        for name, path in files_of(folder)
    )
    rows, window, columns = _parquet(folder)
    return _versioned(
        parts=parts,
        rows=rows,
        from_ms=window[0],
        until_ms=window[1],
        columns=columns,
    )


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write the manifest whole or not at all."""
    write_whole(path, dataset.model_dump_json(indent=1) + "\n")


def read_dataset(path: Path) -> Dataset:
    """The manifest in a file.

    Raises: InvalidArtifact: it cannot be read, or is not what its own version says.
    """
    try:
        dataset = Dataset.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _invalid(str(path), f"is no manifest: {str(error).splitlines()[0]}") from None
    fields = dataset.model_dump(exclude={"version"})
    if _version(fields) != dataset.version:
        raise _invalid(str(path), f"says version {dataset.version}, is {_version(fields)}")
    return dataset


def first_difference(expected: Dataset, found: Dataset) -> str:
    """What differs first, in order of paths; "" if nothing does.

    Whatever else differs, rows or columns, follows from the parts.
    """
    then = {part.path: part for part in expected.parts}
    now = {part.path: part for part in found.parts}
    for path in sorted({*then, *now}):
        if path not in now:
            return f"{path} is missing"
        if path not in then:
            return f"{path} is not in the manifest"
        if then[path].size != now[path].size:
            return f"{path} has {now[path].size} bytes, the manifest says {then[path].size}"
        if then[path].sha256 != now[path].sha256:
            return f"{path} has sha256 {now[path].sha256}, the manifest says {then[path].sha256}"
    return "" if expected == found else "rows, columns or window, though every part is the same"


def verify(folder: Path, expected: Dataset) -> None:
    """Return if the folder is what the manifest says.

    Raises: InvalidArtifact: names the first file that differs.
    """
    parts = tuple(
        Part(path=name, sha256=file_sha256(path), size=path.stat().st_size)
        for name, path in files_of(folder)
    )
    difference = first_difference(expected, expected.model_copy(update={"parts": parts}))
    if difference:
        raise _invalid(str(folder), difference)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path with slashes, file) of all files below a folder, sorted by path.

    Raises: InvalidArtifact: as dataset_of_folder.
    """
    if not folder.is_dir():
        raise _invalid(str(folder), "is no folder")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in sorted(found.items()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _invalid(str(folder), f"{name} is not a plain file")
        if path.is_file() and name != DATASET:
            yield name, path


def _parquet(
    folder: Path,
) -> tuple[int | None, tuple[int | None, int | None], tuple[tuple[str, str], ...]]:
    if (folder / _DELTA_LOG).is_dir():
        live = {str(name) for name in DeltaTable(str(folder)).file_uris()}
        paths = [path for name, path in files_of(folder) if str(path.absolute()) in live]
    else:
        paths = [path for name, path in files_of(folder) if path.suffix == ".parquet"]
    if not paths:
        return None, (None, None), ()
    rows, times, columns = 0, [], {}
    for path in paths:
        try:
            file = pq.ParquetFile(path)
            rows += file.metadata.num_rows
            columns.update({field.name: str(field.type) for field in file.schema_arrow})
            times += _times(file)
        except (pa.ArrowException, OSError) as error:
            problem = f"{path.name} is no Parquet file: {str(error)[:100]}"
            raise _invalid(str(folder), problem) from None
    window = (min(times), max(times)) if times else (None, None)
    return rows, window, tuple(sorted(columns.items()))


def _times(file: pq.ParquetFile) -> list[int]:
    """Least and greatest time of a file, [] without a time column."""
    names = file.schema_arrow.names
    column = next((name for name in TIME_COLUMNS if name in names), None)
    if column is None or not file.metadata.num_rows:
        return []
    values = file.read(columns=[column])[column].drop_null().to_numpy()
    return [int(values.min()), int(values.max())] if len(values) else []


def _versioned(**fields: Any) -> Dataset:
    plain = Dataset(version="", **fields).model_dump(exclude={"version"})
    return Dataset(version=_version(plain), **fields)


def _version(fields: dict[str, Any]) -> str:
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


def _invalid(what: str, problem: str) -> InvalidArtifact:
    return InvalidArtifact(
        f"invalid_artifact: {what}: {problem}. Not used. Restore the data, or write its manifest"
        " anew."
    )
