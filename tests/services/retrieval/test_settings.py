"""Which shard a process is."""

from __future__ import annotations

import pytest

from rankstream.adapters.settings import load_settings
from rankstream.errors import InvalidSettings
from services.retrieval.settings import PREFIX, RetrievalSettings


@pytest.mark.parametrize(
    "environ", [{"RETRIEVAL_SHARD": "1"}, {"RETRIEVAL_SHARD": "2", "RETRIEVAL_SHARDS": "2"}]
)
def test_a_shard_behind_the_last_one_is_refused_by_name(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=r"RETRIEVAL_SHARDS is .*RETRIEVAL_SHARD is \d \(lim"):
        load_settings(RetrievalSettings, PREFIX, environ)


def test_one_process_holds_all_items_by_default() -> None:
    settings = load_settings(RetrievalSettings, PREFIX, {})

    assert (settings.shard, settings.shards) == (0, 1)
