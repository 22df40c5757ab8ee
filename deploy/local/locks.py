"""Write the hashed locks from pyproject.toml, or check that they agree with it.

One lock for development holds everything; the lock of each service and of the pipelines
is a part of it, with the same versions. Environments of their own (`environments.py`) have locks
of their own; Spark's runs our code, so where both name a package it is the same version.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.local import environments
from deploy.local.environment import registry_environ
from deploy.local.services import SERVICES

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON_VERSION: Final = "3.11"
DEV_LOCK: Final = Path("deploy/local/requirements.txt")
UV_LOCK: Final = Path("deploy/local/uv.txt")
# The environment of environments.LOCKS in which our own code runs.
SAME_VERSIONS: Final = "spark"
UV_HEADER: Final = "# Brought in by pip, then installs everything else. `make lock` rewrites it.\n"
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def unit_locks(root: Path) -> dict[str, Path]:
    """Extra of pyproject.toml -> its lock, for each folder that is there."""
    locks = {name: Path("services") / name / "requirements.txt" for name in SERVICES}
    locks["pipelines"] = Path("pipelines/requirements.txt")
    return {extra: path for extra, path in locks.items() if (root / path).parent.is_dir()}


def compile_locks(root: Path) -> None:
    """Resolve again and write every lock.

    Raises: subprocess.CalledProcessError if uv finds no solution; it has then said why.
    """
    same = ["--constraints", str(DEV_LOCK)]
    _compile(root, ["pyproject.toml", "--extra", "dev"], DEV_LOCK)
    for extra, path in unit_locks(root).items():
        _compile(root, ["pyproject.toml", "--extra", extra, *same], path)
    for name, path in environments.LOCKS.items():
        source = [str(path.with_suffix(".in"))]
        _compile(root, [*source, *same] if name == SAME_VERSIONS else source, path)
    pins = {match[1]: match[0] for match in PIN.finditer((root / DEV_LOCK).read_text())}
    lines = [line for line in pins["uv"].splitlines() if not line.lstrip().startswith("#")]
    (root / UV_LOCK).write_text(UV_HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def problems(root: Path) -> Iterator[str]:
    """What does not agree: a requirement that its lock misses or breaks, a pin without hash."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    dev = _pins(root / DEV_LOCK)
    locks = {"dev": DEV_LOCK, **unit_locks(root)}
    for extra, path in locks.items():
        if not (root / path).exists():
            yield f"{path} is missing"
            continue
        pins = _pins(root / path)
        yield from (f"{path}: {text}" for text in _unhashed(root / path))
        for requirement in _requirements(project["dependencies"], extras, extra):
            wanted = canonicalize_name(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            if wanted not in pins:
                yield f"{path} lacks {requirement}"
            elif not requirement.specifier.contains(pins[wanted], prereleases=True):
                yield f"{path} pins {wanted} {pins[wanted]}, pyproject.toml wants {requirement}"
        for name, pinned in pins.items():
            if dev.get(name) != pinned:
                yield f"{path} pins {name} {pinned}, {DEV_LOCK} {dev.get(name, 'nothing')}"
    for name, path in environments.LOCKS.items():
        yield from _own_problems(root, path, dev if name == SAME_VERSIONS else {})
    if _pins(root / UV_LOCK) != {"uv": dev["uv"]}:
        yield f"{UV_LOCK} does not pin uv {dev['uv']} as {DEV_LOCK} does"


def _own_problems(root: Path, name: Path, same: Mapping[str, str]) -> Iterator[str]:
    """What does not agree in an environment's lock; `same` are versions that it must share."""
    pins = _pins(root / name)
    yield from (f"{name}: {text}" for text in _unhashed(root / name))
    for line in (root / name).with_suffix(".in").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            pinned = pins.get(canonicalize_name(requirement.name), "nothing")
            if pinned == "nothing" or pinned not in requirement.specifier:
                yield f"{name} pins {requirement.name} {pinned}, its .in wants {requirement}"
    for package, pinned in pins.items():
        if same.get(package, pinned) != pinned:
            yield f"{name} pins {package} {pinned}, {DEV_LOCK} {same[package]}"


def _compile(root: Path, source: list[str], path: Path) -> None:
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *source]
    command += ["--python-version", PYTHON_VERSION, "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--quiet"]
    command += ["--output-file", str(path)]
    sys.stderr.write(f"{path}\n")
    environ = registry_environ(Path(sys.executable), os.environ)
    subprocess.run(command, cwd=root, env=environ, check=True)


def _pins(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    return {canonicalize_name(match[1]): match[2] for match in PIN.finditer(text)}


def _unhashed(path: Path) -> Iterator[str]:
    for match in PIN.finditer(path.read_text(encoding="utf-8")):
        if "--hash=sha256:" not in match[3]:
            yield f"{match[1]} has no hash"


def _requirements(
    base: list[str], extras: dict[str, list[str]], extra: str
) -> Iterator[Requirement]:
    """What an extra asks for, its own project's extras followed."""
    for text in [*base, *extras[extra]]:
        requirement = Requirement(text)
        if requirement.name != "rankstream":
            yield requirement
            continue
        for other in requirement.extras:
            yield from _requirements([], extras, other)


def main() -> int:
    """Command line: `locks.py [--check]`."""
    parser = argparse.ArgumentParser(description="Write or check the hashed locks.")
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if they disagree")
    if not parser.parse_args().check:
        compile_locks(ROOT)
        return 0
    found = list(problems(ROOT))
    for problem in found:
        sys.stderr.write(f"lock: {problem}. Run make lock.\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
