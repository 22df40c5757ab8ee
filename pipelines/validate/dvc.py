"""A `.dvc` file for those who version data with DVC, as `dvc add <folder>` of DVC 3 writes it.

    outs:
    - md5: <32 hex digits>.dir
      size: <bytes of all files>
      nfiles: <files>
      hash: md5
      path: <name of the folder, beside the .dvc file>

The digest is the md5 of a JSON list of {"md5": of a file's bytes, "relpath": with slashes}, sorted
by relpath as text, keys in order, ", " and ": " between, beyond ASCII as \\uXXXX. Source: dvc-data,
src/dvc_data/hashfile/tree.py; the tests hold what DVC 3.67.1 itself wrote for a folder.
DVC leaves out what .dvcignore names and its own .dvc folders; a folder with either is refused. The
files are not put into DVC's cache: `dvc commit` does that.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Final

from pipelines.validate.files import write_whole
from rankstream.errors import InvalidArtifact

_DVC_OWN: Final = (".dvc", ".dvcignore", ".git", ".hg")


def dvc_text(folder: Path) -> str:
    """Content of the `.dvc` file of a folder.

    Raises: InvalidArtifact: no such folder, or one that DVC would not take as it is.
    """
    if not folder.is_dir():
        raise _invalid(folder, "is no folder")
    entries, size = [], 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in _DVC_OWN or path.suffix == ".dvc" or path.is_symlink():
            raise _invalid(folder, f"holds {name}, which DVC treats in a way of its own")
        if path.is_file():
            entries.append({"md5": _md5(path), "relpath": name})
            size += path.stat().st_size
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True).encode()
    digest = hashlib.md5(listing, usedforsecurity=False).hexdigest()
    # A JSON string is a YAML string, whatever is in the name.
    return (
        f"outs:\n- md5: {digest}.dir\n  size: {size}\n  nfiles: {len(entries)}\n"
        f"  hash: md5\n  path: {json.dumps(folder.name)}\n"
    )


def write_dvc(folder: Path) -> Path:
    """Write `<folder>.dvc` beside the folder, whole or not at all; returns its path.

    Raises: InvalidArtifact, as dvc_text.
    """
    path = folder.parent / f"{folder.name}.dvc"
    write_whole(path, dvc_text(folder))
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _invalid(folder: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(
        f"invalid_artifact: {folder} {problem}. Nothing was written. Name a plain folder of data."
    )
