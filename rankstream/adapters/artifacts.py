"""Artefact folders: a manifest and the files that it lists, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from rankstream.contracts.manifest import Manifest
from rankstream.errors import Conflict, InvalidArtifact

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """Where an artefact is; `sha256` is of its manifest.json, which lists the other digests."""

    uri: str
    sha256: str
    manifest: Manifest


def folder_of(uri: str) -> Path:
    """The folder that a ModelPointer's uri names: a path, or a file:// URI.

    Raises: InvalidArtifact for any other scheme.

    >>> folder_of("file:///srv/a%20b").as_posix(), folder_of("/srv/m").as_posix()
    ('/srv/a b', '/srv/m')
    """
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise _invalid(uri, "is neither a path nor a file:// URI", "Copy it to a folder")
    return Path(unquote(parts.path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises: OSError: it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_artifact(
    folder: Path, fields: Mapping[str, Any], files: Mapping[str, bytes | Path]
) -> Artifact:
    """Write an artefact; a reader sees all of it or nothing.

    Args:
        folder: where it will be, <root>/<role>/<model_id>; parents are made.
        fields: every field of Manifest but `files`.
        files: name -> content, or a file to copy; names have no folder part.

    Raises:
        InvalidArtifact: a field is missing or wrong, or a name is not a plain one.
        Conflict: the folder exists with another content; nothing was changed.
    """
    for name in files:
        _check_name(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            if isinstance(content, bytes):
                (staging / name).write_bytes(content)
            else:
                shutil.copyfile(content, staging / name)
        digests = {name: file_sha256(staging / name) for name in sorted(files)}
        manifest = _manifest(folder, {**fields, "files": digests})
        body = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True).encode()
        (staging / MANIFEST).write_bytes(body)
        for path in staging.iterdir():
            _sync(path)
        staging.chmod(0o755)
        return _publish(staging, folder, Artifact(str(folder), _sha256(body), manifest))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_manifest(uri: str, sha256: str | None = None) -> Manifest:
    """The manifest of a folder whose files are all there and unaltered.

    Args:
        uri: the folder.
        sha256: of manifest.json, as the pointer or the registry has it; None skips that check.

    Raises: InvalidArtifact: a file is missing, altered, or not what the manifest says.
    """
    folder = folder_of(uri)
    try:
        body = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise _invalid(
            uri, f"has no readable {MANIFEST}: {error.strerror}", "Write it again"
        ) from None
    if sha256 is not None and _sha256(body) != sha256:
        raise _invalid(
            uri, f"{MANIFEST} has sha256 {_sha256(body)}, expected {sha256}", "Publish it again"
        )
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or MANIFEST
        raise _invalid(uri, f"{where}: {first['msg']}", "Write it again") from None
    for name, expected in manifest.files.items():
        _check_name(folder, name)
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise _invalid(
                uri, f"{name} cannot be read: {error.strerror}", "Write it again"
            ) from None
        if found != expected:
            raise _invalid(
                uri, f"{name} has sha256 {found}, the manifest says {expected}", "Write it again"
            )
    return manifest


def _publish(staging: Path, folder: Path, artifact: Artifact) -> Artifact:
    try:
        staging.rename(folder)
    except OSError:
        if not (folder / MANIFEST).exists() or file_sha256(folder / MANIFEST) != artifact.sha256:
            raise Conflict(
                f"conflict: {folder} exists with another content. Nothing was written."
                " Give the artefact another model_id."
            ) from None
    _sync(folder.parent)
    return artifact


def _manifest(folder: Path, fields: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _invalid(str(folder), f"{where}: {first['msg']}", "Mend the field") from None


def _check_name(folder: Path, name: str) -> None:
    if name in ("", ".", "..", MANIFEST) or "/" in name or "\\" in name or "\0" in name:
        raise _invalid(str(folder), f"lists a file named {name!r}", "Use plain file names")


def _invalid(uri: str, problem: str, remedy: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {uri} {problem}. Not used. {remedy}.")


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
