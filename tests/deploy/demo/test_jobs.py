from pathlib import Path

import pytest

from deploy.local.demo import jobs
from deploy.local.errors import LocalError

JOB = """
import json, sys
sys.stderr.write("a warning\\n")
for done in (0, 1):
    sys.stderr.write(json.dumps({"step": "rows", "done": done, "total": 1}) + "\\n")
if sys.argv[1:] == ["fail"]:
    sys.exit("no such lake")
print("more")
print(json.dumps({"rows": 7}))
"""


class Told:
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def test_progress_of_a_job_is_told_and_its_last_line_is_the_result(root: Path) -> None:
    report = Told()

    result = jobs.run_job("job", root=root, environ={}, report=report)

    assert result == {"rows": 7}
    assert report.steps == [("rows", 0, 1), ("rows", 1, 1)]


def test_a_job_that_fails_is_named_with_what_it_said_but_not_its_progress(root: Path) -> None:
    with pytest.raises(LocalError, match=r"(?s)job ended with 1:\na warning\nno such lake"):
        jobs.run_job("job", "fail", root=root, environ={}, report=Told())


def test_a_job_that_hangs_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "job.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(jobs, "TIMEOUT_S", 0.2)

    with pytest.raises(LocalError, match="job ended with -9"):
        jobs.run_job("job", root=root, environ={}, report=Told())
