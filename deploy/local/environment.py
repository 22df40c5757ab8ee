"""Build the Python environment in `.run/venv` from the hashed locks.

Runs before anything is installed, with any Python 3.11 to 3.13: standard library only.
Two steps: pip brings uv, uv brings the rest. No package index is named here; both use
the one that the user's pip is set up for.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent
PYTHON_MIN = (3, 11)
PYTHON_END = (3, 14)
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
# pip's setting -> what uv calls it.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


def pip_settings(listing: str) -> dict[str, str]:
    """Settings in what `pip config list` prints; of a variable and a file, the variable wins.

    >>> pip_settings("global.cert='/a.pem'\\n:env:.cert='/b.pem'\\ninstall.quiet='1'\\n")
    {'cert': '/b.pem'}
    """
    found: dict[str, str] = {}
    for section in ("global", ":env:"):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            where, _, key = name.rpartition(".")
            if where == section:
                found[key] = value.strip("'\"")
    return found


def uv_environ(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that make uv use pip's index, certificates and proxy.

    What the user has set for uv itself is left alone.
    """
    wanted = {UV_NAMES[key]: value for key, value in settings.items() if key in UV_NAMES and value}
    if "UV_FIND_LINKS" in wanted:
        # pip separates values by white space and passes over folders that are not there.
        places = wanted.pop("UV_FIND_LINKS").replace("\\n", " ").split()
        usable = [place for place in places if "://" in place or Path(place).is_dir()]
        if usable:
            wanted["UV_FIND_LINKS"] = ",".join(usable)
    # Without it uv trusts only the certificates it carries, and fails behind a company's proxy.
    wanted["UV_SYSTEM_CERTS"] = "true"
    return {name: value for name, value in wanted.items() if name not in environ}


def registry_environ(python: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` plus what uv and Python's HTTP clients need to reach the user's registries."""
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    settings = pip_settings(listing)
    result = dict(environ) | uv_environ(settings, environ)
    bundles = [settings.get("cert", ""), environ.get("SSL_CERT_FILE", ""), *CA_BUNDLES]
    bundle = next((path for path in bundles if path and Path(path).is_file()), None)
    if bundle is not None:
        result.setdefault("REQUESTS_CA_BUNDLE", bundle)
    return result


def build(folder: Path) -> None:
    """Make `folder` hold exactly what the locks say, and this project, editable.

    Raises: subprocess.CalledProcessError if pip or uv fails; it has then said why.
    """
    python = folder / "bin" / "python"
    # pip comes last, so its absence shows an interrupted start; a link may point nowhere.
    if not (python.exists() and (folder / "bin" / "pip").exists()):
        venv.EnvBuilder(with_pip=True, symlinks=True, clear=folder.exists()).create(folder)
    environ = registry_environ(python, os.environ)
    # A folder of the user's must not leak in, nor an environment that is active elsewhere.
    environ.pop("PYTHONPATH", None)
    environ["VIRTUAL_ENV"] = str(folder)
    environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes"]
    uv = [str(folder / "bin" / "uv"), "pip"]
    lock = str(LOCKS / "requirements.txt")
    # uv is in the large lock too, so that sync does not remove it.
    subprocess.run([*pip, "--requirement", str(LOCKS / "uv.txt")], env=environ, check=True)
    # Not quiet: the download takes a minute, and uv shows how far it is.
    subprocess.run([*uv, "sync", "--require-hashes", lock], env=environ, check=True)
    subprocess.run(
        [*uv, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        env=environ,
        check=True,
    )


def main() -> int:
    """Command line: `environment.py FOLDER`."""
    parser = argparse.ArgumentParser(description="Build the Python environment from the locks.")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if not PYTHON_MIN <= sys.version_info[:2] < PYTHON_END:
        sys.stderr.write(
            f"unsupported_python: {sys.executable} is {sys.version.split()[0]}, needed 3.11 to"
            " 3.13. Nothing was installed. Install Python 3.11, or name one:"
            " make PYTHON=/path/to/python3.11\n"
        )
        return 1
    if importlib.util.find_spec("ensurepip") is None:
        sys.stderr.write(
            f"no_venv: {sys.executable} comes without venv and ensurepip. Nothing was installed."
            " On Debian and Ubuntu: apt install python3-venv. Or name another Python:"
            " make PYTHON=/path/to/python3.11\n"
        )
        return 1
    sys.stderr.write(f"Building {arguments.folder} from the locks (under 2 minutes, once)\n")
    try:
        build(arguments.folder.absolute())
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"install_failed: {' '.join(map(str, error.cmd[:4]))} ... ended with exit code"
            f" {error.returncode}; its reason is above. Run the same command again to go on.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
