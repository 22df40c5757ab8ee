"""The command: every log by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.datasets.__main__ import app
from pipelines.datasets.catalog import Dataset, read_history
from rankstream.contracts.codec import decode_message
from rankstream.errors import InvalidInput
from tests.pipelines.datasets import (
    test_avazu,
    test_criteo,
    test_kuairand,
    test_mind,
    test_movielens,
    test_open_bandit,
    test_retailrocket,
)
from tests.pipelines.datasets.soundness import assert_sound

FOLDERS: dict[Dataset, Callable[[Path], Path]] = {
    Dataset.MOVIELENS: test_movielens.a_folder,
    Dataset.KUAIRAND: test_kuairand.a_folder,
    Dataset.RETAILROCKET: test_retailrocket.a_folder,
    Dataset.MIND: test_mind.a_folder,
    Dataset.OPEN_BANDIT: test_open_bandit.a_folder,
    Dataset.AVAZU: test_avazu.a_folder,
    Dataset.CRITEO: test_criteo.a_folder,
}
UNTIL_MS = 1_790_000_000_000


@pytest.mark.parametrize("name", list(Dataset))
def test_every_history_is_sound_and_its_ids_do_not_move_with_the_shift(
    tmp_path: Path, name: Dataset
) -> None:
    folder = FOLDERS[name](tmp_path)

    one, other = read_history(name, folder), read_history(name, folder, until_ms=UNTIL_MS)

    assert_sound(one)
    assert_sound(other)
    assert one.columns.event_id == other.columns.event_id
    assert other.columns.event_time_ms[-1] == UNTIL_MS


@pytest.mark.parametrize("name", [name for name in Dataset if name is not Dataset.KUAIRAND])
def test_only_kuairand_has_a_history_before_its_log(tmp_path: Path, name: Dataset) -> None:
    with pytest.raises(InvalidInput, match=f"{name} has no history before the log"):
        read_history(name, tmp_path, with_history=True)


def test_a_log_is_written_as_one_message_a_line(tmp_path: Path) -> None:
    folder, out = test_movielens.a_folder(tmp_path), tmp_path / "messages.ndjson"

    done = CliRunner().invoke(
        app,
        [
            *("write", "movielens", "--path", str(folder)),
            *("--until-ms", str(UNTIL_MS), "--out", str(out)),
        ],
    )

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"events": 10, "items": 3}
    assert len([decode_message(line.encode()) for line in out.read_text().splitlines()]) == 13


def test_the_history_flag_adds_the_exposures_before_the_log(tmp_path: Path) -> None:
    folder, out = test_kuairand.a_folder(tmp_path), tmp_path / "messages.ndjson"

    plain, more = (
        CliRunner().invoke(
            app, ["write", "kuairand", "--path", str(folder), "--out", str(out), *flag]
        )
        for flag in ([], ["--with-history"])
    )

    assert json.loads(plain.stdout)["events"] == 14
    assert json.loads(more.stdout)["events"] == 14 + 9
