"""The environment is built through the user's own registries, from locks that agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.environment import pip_settings, uv_environ
from deploy.local.environments import LOCKS
from deploy.local.locks import DEV_LOCK, UV_LOCK, problems, unit_locks

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, or this file would be found.
REGISTRIES = [
    "pypi" + r"\.org",
    "python" + r"hosted\.org",
    "repo1?" + r"\.maven",
    "maven" + r"\.org",
    "registry" + r"\.npmjs",
    "registry" + r"\.yarnpkg",
    "crates" + r"\.io",
    "proxy" + r"\.golang",
    "deb" + r"\.debian",
]


def test_pip_settings_of_the_environment_win_over_those_of_files() -> None:
    listing = "global.cert='/file.pem'\n:env:.cert='/variable.pem'\nglobal.proxy='http://p'\n"

    assert pip_settings(listing) == {"cert": "/variable.pem", "proxy": "http://p"}


def test_uv_gets_pips_certificate_index_and_proxy(tmp_path: Path) -> None:
    settings = {
        "cert": "/c.pem",
        "index-url": "https://index",
        "proxy": "http://p",
        "find-links": f"{tmp_path}\\n/is/not/there",
        "timeout": "5",
    }

    environ = uv_environ(settings, {})

    assert environ == {
        "SSL_CERT_FILE": "/c.pem",
        "UV_DEFAULT_INDEX": "https://index",
        "ALL_PROXY": "http://p",
        "UV_FIND_LINKS": str(tmp_path),
        "UV_SYSTEM_CERTS": "true",
    }


def test_what_the_user_set_for_uv_is_left_alone() -> None:
    environ = uv_environ({"cert": "/pip.pem"}, {"SSL_CERT_FILE": "/own.pem"})

    assert "SSL_CERT_FILE" not in environ


def test_the_locks_agree_with_pyproject_and_with_one_another() -> None:
    assert list(problems(ROOT)) == []


def test_the_lock_holds_wheels_of_both_linux_architectures() -> None:
    lock = (ROOT / "deploy" / "local" / "requirements.txt").read_text()
    pin = re.search(r"^numpy==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)

    # One hash per wheel: Linux on x86 and ARM and others, for each Python.
    assert pin is not None
    assert pin[0].count("--hash=sha256:") > 10


def test_no_file_names_a_package_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    pattern = re.compile("|".join(REGISTRIES).encode())

    found = [
        f"{name}: {match[0].decode()}"
        for name in listed
        if name and (ROOT / name).is_file()
        for match in pattern.finditer((ROOT / name).read_bytes())
    ]

    assert found == []


def test_make_alone_lists_every_target_that_a_person_may_use() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE)) - {"help"}

    ran = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert {line.split()[0] for line in ran.stdout.splitlines()[1:]} == phony


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_an_unusable_python_is_an_error_not_a_stamp(tmp_path: Path, python: str) -> None:
    stamp = tmp_path / "venv.stamp"

    ran = subprocess.run(
        ["make", "-C", str(ROOT), f"RUN={tmp_path}", f"PYTHON={python}", str(stamp)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert not stamp.exists()


def test_a_lock_of_another_environment_that_does_not_agree_is_named(tmp_path: Path) -> None:
    spark = LOCKS["spark"]
    names = [*unit_locks(ROOT).values(), *LOCKS.values(), DEV_LOCK, UV_LOCK]
    names += [path.with_suffix(".in") for path in LOCKS.values()]
    for name in (Path("pyproject.toml"), *names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    text = (tmp_path / spark).read_text()
    text = re.sub(r"^pyarrow==\S+", "pyarrow==18.0.0", text, flags=re.MULTILINE)
    text = re.sub(r"^pyspark==\S+", "pyspark==3.5.0", text, flags=re.MULTILINE)
    (tmp_path / spark).write_text(text)

    found = list(problems(tmp_path))

    assert f"{spark} pins pyspark 3.5.0, its .in wants pyspark<4.1,>=4" in found
    assert any(text.startswith(f"{spark} pins pyarrow 18.0.0, {DEV_LOCK}") for text in found)
    assert len(found) == 2
