import json

import pytest
import typer

from pipelines import command
from rankstream.errors import InvalidRequest


def test_progress_is_a_line_of_json_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with command.steps() as step:
        step("models", 1, 4)

    assert json.loads(capsys.readouterr().err) == {"step": "models", "done": 1, "total": 4}


def test_a_named_error_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise InvalidRequest("invalid_request: 7 is too many.")

    monkeypatch.setattr("sys.argv", ["fail"])
    code = command.run(app)

    assert code == 1
    assert capsys.readouterr().err == "invalid_request: 7 is too many.\n"
