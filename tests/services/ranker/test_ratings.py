"""The rating table of the champion index in vectors, records and answers made again."""

from __future__ import annotations

import numpy as np

from rankstream.contracts.ids import id32, id64
from rankstream.features import spec
from rankstream.features.rating_table import FIRST
from tests.services.ranker.conftest import Rig, rank
from tests.services.ranker.fakes import ITEM_IDS, user_row


async def test_vectors_are_filled_from_the_index_table_and_the_users_ratings(rig: Rig) -> None:
    table = await rig.know_ratings()
    user = user_row(["i0"])
    user["rated"][0, 0] = (id32(id64(ITEM_IDS[-1])), 5.0)
    rig.store.stored_users["u1"] = user

    await rank(rig, item_ids=[ITEM_IDS[-2], "i5", "never-heard-of"], request_id="r1")

    (slate,) = await rig.slates()
    vectors = np.frombuffer(slate.features, "<f4").reshape(3, -1)
    expected = vectors.copy()
    expected[:, FIRST:] = 0.0
    table.fill(expected, np.array([id64(item) for item in slate.item_id], np.uint64), user)
    assert slate.rating_table == "index-0"
    assert rig.count("ranker_rated_items") == len(ITEM_IDS)
    assert vectors.tobytes() == expected.tobytes()
    residual = dict(zip(slate.item_id, vectors[:, FIRST + 1].tolist(), strict=True))
    assert residual[ITEM_IDS[-2]] > 0.0
    assert residual["i5"] == residual["never-heard-of"] == 0.0
    assert not (await rig.ranker.reproduce("r1", b"", transport="grpc")).differences
    explained = await rig.ranker.explain("r1", transport="grpc")
    assert len(explained.items[0].contributions) == spec.WIDTH


async def test_an_index_without_a_table_leaves_its_columns_at_their_defaults(rig: Rig) -> None:
    await rig.know_popular()
    user = user_row(["i0"])
    user["rated"][0, 0] = (id32(id64(ITEM_IDS[-1])), 5.0)
    rig.store.stored_users["u1"] = user

    await rank(rig, item_ids=[ITEM_IDS[-2]], request_id="r1")

    (slate,) = await rig.slates()
    vector = np.frombuffer(slate.features, "<f4")
    assert vector[FIRST:].tolist() == [feature.default for feature in spec.FEATURES[FIRST:]]
    assert slate.rating_table == ""
    assert rig.count("ranker_rated_items") == 0
