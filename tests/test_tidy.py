"""The rules of the tree, checked on its syntax: who imports whom, what nobody calls, how long."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankstream import errors

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES_MAX = 400
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir())

CORES = ("attribution", "sessions", "features", "retrieval", "ranking", "experiments", "monitoring")
BELOW_CORES = ("contracts", "errors")
# package of rankstream -> what it may import of rankstream
ALLOWED = {
    "pb": ("pb",),
    "errors": (),
    "topics": (),
    "metrics": (),
    "contracts": ("contracts", "pb", "errors"),
    **{core: (core, *BELOW_CORES) for core in CORES},
    "ports": ("contracts", "features"),
    "stream": (
        "stream",
        "attribution",
        "sessions",
        "features",
        "contracts",
        "errors",
        "pb",
        "topics",
    ),
    "simulation": ("simulation", "contracts", "errors"),
    "adapters": ("adapters", "ports", "contracts", "features", "errors", "topics", "metrics", "pb"),
    # Composes cores and adapters, as a shell does: two services run it.
    "candidates": (
        "candidates",
        "adapters",
        "ports",
        "contracts",
        "retrieval",
        "errors",
        "topics",
        "metrics",
        "pb",
    ),
    "client": ("client", "contracts", "errors", "pb", "topics"),
    "cli": ("cli", "client", "contracts", "errors", "pb", "ports", "topics", "adapters"),
}
BANNED_CALLS = {
    "datetime.now": "time reaches a core as an argument",
    "time.time": "time reaches a core as an argument",
    "time.time_ns": "time reaches a core as an argument",
    "os.environ": "settings are read in __main__",
    "os.getenv": "settings are read in __main__",
    "random.random": "randomness reaches a core as a generator",
    "np.random.seed": "randomness reaches a core as a generator",
    "hash": "Python salts it per process",
    "print": "a library does not print",
}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add."""
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return [ROOT / name for name in out if name and (ROOT / name).is_file()]


def modules(*folders: str) -> list[Path]:
    """Python files below these folders, generated ones left out."""
    files = tracked(*(f"{folder}/**/*.py" for folder in folders), *(f"{f}/*.py" for f in folders))
    return sorted({path for path in files if "pb" not in path.relative_to(ROOT).parts})


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            names = (f"{module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name) for name in names)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken_arrows(path: Path) -> Iterator[str]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[1] if len(parts) > 1 else parts[0]
    for line, name in imports(path):
        target = name.split(".")
        where = f"{relative(path)}:{line}"
        if parts[0] == "services":
            if target[0] == "pipelines":
                yield f"{where}: a service imports pipelines"
            if target[0] == "services" and target[1] != package:
                yield f"{where}: a service imports another service"
        elif parts[0] == "pipelines":
            if target[0] == "services":
                yield f"{where}: pipelines import a service"
        elif parts[0] == "rankstream":
            if target[0] in ("services", "pipelines", "deploy", "tests", "bench"):
                yield f"{where}: the library imports a shell"
            if target[0] == "rankstream" and package not in ("testing", "__init__"):
                below = target[1] if len(target) > 1 else ""
                if below not in ALLOWED[package]:
                    yield f"{where}: {package} may not import {below}"


def test_arrows_of_import_only_point_down() -> None:
    broken = [
        message
        for path in modules("rankstream", "services", "pipelines")
        for message in broken_arrows(path)
    ]

    assert not broken, "\n".join(broken)


def test_the_import_check_sees_a_broken_arrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "rankstream" / "contracts" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def f():\n    from rankstream.adapters import kafka\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    assert list(broken_arrows(bad)) == [
        "rankstream/contracts/bad.py:2: contracts may not import adapters"
    ]


def test_the_library_calls_nothing_that_hides_an_input() -> None:
    # Rows and kernels are laid out at import, before anybody could hand anything over.
    excepted = {("rankstream/features/attributes.py", "os.environ")}
    broken = []
    for path in modules("rankstream"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = dotted(node.func) if isinstance(node, ast.Call) else dotted(node)
            if (relative(path), name) in excepted:
                continue
            if isinstance(node, ast.Call | ast.Attribute) and name in BANNED_CALLS:
                broken.append(f"{relative(path)}:{node.lineno}: {name}: {BANNED_CALLS[name]}")

    assert not broken, "\n".join(broken)


def test_modules_stay_short() -> None:
    lengths = {
        relative(path): len(path.read_text().splitlines())
        for path in modules("rankstream", "services", "pipelines", "deploy", "bench")
    }

    assert {name: n for name, n in lengths.items() if n > MODULE_LINES_MAX} == {}


def test_broad_handlers_stand_only_where_a_process_begins() -> None:
    """One `except Exception` per process and one per gRPC call, and they re-raise."""
    broad = []
    for path in modules("rankstream", "services", "pipelines", "deploy", "bench"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or dotted(node.type) in ("Exception", "BaseException")
            ):
                reraises = isinstance(node.body[-1], ast.Raise)
                broad.append((relative(path), reraises))

    assert all(reraises for _, reraises in broad), broad
    # A process, and a call from outside: what goes wrong inside must not be told there.
    assert {name for name, _ in broad} <= {
        "rankstream/adapters/run.py",
        "rankstream/adapters/rpc.py",
    }


def subclasses(cls: type[errors.RankstreamError]) -> Iterator[type[errors.RankstreamError]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_has_a_code_of_its_own_and_stands_in_the_drawing() -> None:
    classes: list[type[errors.RankstreamError]] = [
        errors.RankstreamError,
        *subclasses(errors.RankstreamError),
    ]
    codes = [cls.__dict__.get("code") for cls in classes]

    assert None not in codes
    assert len(set(codes)) == len(codes)
    for cls in classes:
        assert re.search(rf"^\s*{cls.__name__}\b", errors.__doc__ or "", re.M), cls.__name__
        assert cls.http_status >= 400
        assert cls.grpc_status.isupper()


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_in_the_documentation(service: str) -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    source = (ROOT / "services" / service / "settings.py").read_text()
    prefix = f"{service.upper()}_"
    fields = [
        node.target.id
        for cls in ast.parse(source).body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]

    assert fields
    missing = [prefix + field.upper() for field in fields if prefix + field.upper() not in text]
    assert missing == []
