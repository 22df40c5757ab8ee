"""Files of public logs as columns; what is malformed is refused with file, place and reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from rankstream.errors import InvalidInput

TEXT: Final = pa.string()
WHOLE: Final = pa.int64()
REAL: Final = pa.float64()
# Text that repeats: each distinct value is held once.
CODED: Final = pa.dictionary(pa.int32(), pa.string())
SHOWN_MAX: Final = 80
TIME_MS_MAX: Final = 1 << 62
_BLOCK_BYTES: Final = 1 << 24
_HEADER_BYTES: Final = 1 << 16


def refusal(path: Path, line: int, reason: str) -> InvalidInput:
    """The error for line `line` of a text file, counted from 1."""
    return InvalidInput(f"invalid_input: {path}:{line}: {reason}. Nothing was read. Mend the file.")


def unreadable(path: Path, error: OSError | pa.ArrowInvalid) -> InvalidInput:
    """The error for a file that cannot be read at all."""
    # pyarrow words one in two ways.
    absent = isinstance(error, FileNotFoundError)
    reason = "No such file or directory" if absent else str(error)
    return InvalidInput(
        f"invalid_input: {path} cannot be read: {reason[: 2 * SHOWN_MAX]}. Nothing was read."
        " Give the folder of the data set."
    )


def require(
    path: Path,
    fits: npt.NDArray[np.bool_],
    values: pa.ChunkedArray | pa.Array | npt.NDArray[np.generic],
    reason: str,
    *,
    first: int,
) -> None:
    """Refuse the first row that does not fit.

    Args:
        fits: shape (n,).
        values: shape (n,), what the message shows.
        first: number of row 0 in the file: its line, or its row if it is Parquet.

    Raises: InvalidInput naming file, line or row, value and reason.
    """
    if not fits.all():
        row = int(np.flatnonzero(~fits)[0])
        shown = values[row]
        shown = shown.as_py() if isinstance(shown, pa.Scalar) else shown.item()
        raise refusal(path, first + row, f"{str(shown)[:SHOWN_MAX]!r}: {reason}")


def read_delimited(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    delimiter: str,
    header: bool,
    quoted: bool,
    keep: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda rows: rows,
) -> pa.Table:
    """Columns of a UTF-8 text file, packed with gzip or not, one line a row.

    With a header, the columns named are read and others are not; without one, `types` names all
    columns in order, and those whose name begins with "_" are not read. Blank is "" in a text
    column and refused in a column of numbers.

    Args:
        keep: rows of a part of the file that are wanted; the others cost no memory.

    Raises: InvalidInput naming file, line and reason.
    """
    names = _header(path, types, delimiter) if header else list(types)
    # One thread, for only then does pyarrow know the line that it refuses.
    reading = pcsv.ReadOptions(
        use_threads=False, block_size=_BLOCK_BYTES, column_names=names, skip_rows=int(header)
    )
    try:
        with pcsv.open_csv(
            path,
            reading,
            pcsv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
            ),
            pcsv.ConvertOptions(
                column_types=dict(types),
                include_columns=[name for name in types if not name.startswith("_")],
                null_values=[],
                strings_can_be_null=False,
            ),
        ) as parts:
            schema, rows = parts.schema, [keep(part) for part in parts]
        return pa.Table.from_batches(rows, schema).unify_dictionaries().combine_chunks()
    except OSError as error:
        raise unreadable(path, error) from None
    except pa.ArrowInvalid as error:
        raise _refused(path, str(error), names) from None


def _header(path: Path, types: Mapping[str, pa.DataType], delimiter: str) -> list[str]:
    try:
        with pa.input_stream(str(path)) as file:
            line, _, _ = file.read(_HEADER_BYTES).partition(b"\n")
        text = line.decode("utf-8-sig").rstrip("\r")
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        raise refusal(path, 1, f"byte {error.start} is not UTF-8") from None
    names = [name.strip('"') for name in text.split(delimiter)]
    missing = [name for name in types if name not in names]
    if missing:
        raise refusal(path, 1, f"header {text[:SHOWN_MAX]!r} lacks {', '.join(missing)}")
    return names


def _refused(path: Path, message: str, names: Sequence[str]) -> InvalidInput:
    """pyarrow's message with the line in front and the column by name."""
    row = re.search(r"Row #(\d+): ", message)
    column = re.search(r"In CSV column #(\d+)", message)
    reason = re.sub(r"^.*Row #\d+: |^CSV parse error: ", "", message, flags=re.DOTALL)
    if column:
        reason = f"{names[int(column[1])]}: {reason}"
    return refusal(path, int(row[1]) if row else 1, reason[: 2 * SHOWN_MAX])


def read_parquet(path: Path, types: Mapping[str, pa.DataType], *, blank: Sequence[str]) -> pa.Table:
    """Columns of a Parquet file as these types; only columns in `blank` may have nulls.

    Raises: InvalidInput naming file, row (counted from 0) and reason.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    missing = [name for name in types if name not in table.column_names]
    if missing:
        raise refusal(path, 0, f"there is no column {', '.join(missing)}")
    columns = {}
    for name, kind in types.items():
        try:
            columns[name] = table[name].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise refusal(path, 0, f"{name}: {error}") from None
        if name not in blank:
            known = columns[name].is_valid().to_numpy()
            require(path, known, columns[name], f"{name} is missing", first=0)
    return pa.table(columns).combine_chunks()


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """float64, shape (n,), nan where there is no value."""
    found: npt.NDArray[np.float64] = column.cast(REAL).to_numpy().astype(np.float64)
    return found


def whole(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """int64, shape (n,), of a column without nulls."""
    found: npt.NDArray[np.int64] = column.to_numpy().astype(np.int64, copy=False)
    return found


def numbered(column: pa.ChunkedArray | pa.Array) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The distinct values as text, in order of first appearance, and each row's place in them."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    places: npt.NDArray[np.int64] = column.indices.to_numpy().astype(np.int64)
    return tuple(column.dictionary.cast(TEXT).to_pylist()), places


def places(
    path: Path,
    known: npt.NDArray[np.int64],
    asking: Path,
    asked: npt.NDArray[np.int64],
    *,
    first: int,
) -> npt.NDArray[np.int64]:
    """Where in `known`, the ids of file `path`, each of `asked` stands.

    Args:
        first: number of row 0 in both files.

    Raises: InvalidInput: an id is in `known` twice, or one of `asked`, of file `asking`, is not.
    """
    once = np.zeros(len(known), bool)
    once[np.unique(known, return_index=True)[1]] = True
    require(path, once, known, "the id is there twice", first=first)
    require(path, np.full(1, len(known) > 0), np.zeros(1), "there are no rows", first=first)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, asked, sorter=order), len(known) - 1)
    found: npt.NDArray[np.int64] = order[place]
    require(
        asking, known[found] == asked, asked, f"there is no such id in {path.name}", first=first
    )
    return found


def first_of_each(names: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """Rows, ascending, whose name no row before has."""
    _, first = np.unique(names.dictionary_encode().indices.to_numpy(), return_index=True)
    rows: npt.NDArray[np.int64] = np.sort(first)
    return rows


def joined(*parts: str | pa.Array | npt.NDArray[np.int64]) -> pa.LargeStringArray:
    """Row by row the parts with "-" between, packed."""
    text = pa.large_string()
    columns = [
        pa.scalar(part, text) if isinstance(part, str) else pa.array(part).cast(text)
        for part in parts
    ]
    return pc.binary_join_element_wise(*columns, pa.scalar("-", text))
