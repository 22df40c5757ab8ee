"""Environments for what cannot share ours: each from its own hashed lock, built when asked for.

Command line: `python -m deploy.local.environments NAME ...` builds and prints the Python of each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.local.environment import registry_environ
from deploy.local.errors import ProvisioningFailed

ROOT: Final = Path(__file__).resolve().parents[2]
ORCHESTRATION: Final = Path("pipelines/orchestration")
# Name -> its lock; beside it, with the suffix .in, what it is resolved from.
LOCKS: Final = {
    "peers": Path("bench/stream/peers.txt"),
    "serving_peers": Path("bench/serving/peers.txt"),
    "mlflow": Path("deploy/mlflow/requirements.txt"),
    "spark": ORCHESTRATION / "spark" / "requirements.txt",
    "airflow": ORCHESTRATION / "airflow" / "requirements.txt",
    "kfp": ORCHESTRATION / "kfp" / "requirements.txt",
}


def environment(name: str) -> Path:
    """The Python of `.run/<name>`, built unless it is what the lock says.

    Raises: ProvisioningFailed: uv ended with an error; it has then said why.
    """
    lock, folder = ROOT / LOCKS[name], ROOT / ".run" / name
    python, stamp = folder / "bin" / "python", folder / "lock.sha256"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = str(Path(sys.executable).with_name("uv"))
    environ = registry_environ(Path(sys.executable), os.environ) | {"VIRTUAL_ENV": str(folder)}
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "--quiet", "--require-hashes", str(lock)],
    ):
        code = subprocess.run(command, env=environ, check=False).returncode
        if code != 0:
            raise ProvisioningFailed(
                f"{LOCKS[name]}: uv ended with exit code {code}; its reason is above."
                " The environment is not complete. Check the network and run again."
            )
    stamp.write_text(digest)
    return python


def main() -> int:
    """Command line: see above."""
    parser = argparse.ArgumentParser(description="Build environments from their locks.")
    parser.add_argument("names", nargs="+", choices=sorted(LOCKS), metavar="NAME")
    for name in parser.parse_args().names:
        sys.stdout.write(f"{environment(name)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
