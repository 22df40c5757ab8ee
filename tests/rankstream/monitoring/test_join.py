"""The join of labels and slates: any order of arrival, bounded, nothing dropped in silence."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.high_water import HighWater
from rankstream.monitoring.join import Group, Joined, LabelChange, SlateJoin

GROUP = Group("m1", "control")


def a_join(*, window_ms: int = 10_000, slates_max: int = 100, early_max: int = 100) -> SlateJoin:
    return SlateJoin(window_ms=window_ms, slates_max=slates_max, early_max=early_max)


def a_label(
    request_id: str = "r1", item_id: str = "i1", *, time_ms: int = 1_000, clicks: int = 0
) -> LabelChange:
    return LabelChange(request_id, item_id, time_ms, time_ms, 1, clicks)


def serve(join: SlateJoin, request_id: str = "r1", *, time_ms: int = 900) -> list[Joined]:
    return join.serve(request_id, time_ms, GROUP, ["i1", "i2"], [0.25, 0.5])


def test_a_label_meets_the_prediction_of_its_own_item() -> None:
    join = a_join()
    serve(join)

    joined = join.label(a_label(item_id="i2"))

    assert joined is not None
    assert (joined.group, joined.pctr) == (GROUP, 0.5)
    assert join.counts.joined == 1


def test_all_changes_of_an_impression_share_the_time_of_its_first_label() -> None:
    join = a_join()
    serve(join)

    shown = join.label(a_label(time_ms=1_000))
    clicked = join.label(a_label(time_ms=4_000, clicks=1))
    other = join.label(a_label(item_id="i2", time_ms=5_000))

    assert [found.shown_ms for found in (shown, clicked, other) if found] == [1_000, 1_000, 5_000]


def test_a_label_that_comes_before_its_slate_waits_for_it() -> None:
    join = a_join()
    early = join.label(a_label())

    joined = serve(join)

    assert early is None
    assert [(found.pctr, found.change.item_id) for found in joined] == [(0.25, "i1")]
    assert (join.counts.early, join.counts.joined, join.early) == (1, 1, 0)


def test_a_label_of_an_item_that_was_not_served_is_unmatched() -> None:
    join = a_join()
    serve(join)

    assert join.label(a_label(item_id="other")) is None
    assert join.counts.unmatched == 1


def test_a_label_whose_slate_has_expired_is_unmatched() -> None:
    join = a_join()
    serve(join)

    join.advance(20_000)

    assert join.slates == 0
    assert join.counts.slates_expired == 1
    assert join.label(a_label()) is None
    assert join.counts.unmatched == 1
    assert join.early == 0


def test_waiting_labels_expire_with_the_window() -> None:
    join = a_join()
    join.label(a_label())

    join.advance(20_000)

    assert join.early == 0
    assert join.counts.unmatched == 1


def test_slates_over_the_limit_push_the_oldest_out_and_are_counted() -> None:
    join = a_join(slates_max=2)

    for number in range(5):
        serve(join, f"r{number}")

    assert join.slates == 2
    assert join.counts.slates_evicted == 3
    assert join.label(a_label("r4")) is not None
    assert join.label(a_label("r0")) is None


def test_waiting_labels_over_the_limit_push_the_oldest_out_and_are_counted() -> None:
    join = a_join(early_max=2)

    for number in range(5):
        join.label(a_label(f"r{number}"))

    assert join.early == 2
    assert join.counts.unmatched == 3


def test_a_repeated_slate_keeps_the_first_predictions() -> None:
    join = a_join()
    serve(join)

    join.serve("r1", 901, Group("m2", "treatment"), ["i1"], [0.9])

    joined = join.label(a_label())
    assert joined is not None
    assert joined.pctr == 0.25


@given(seed=st.integers(0, 10_000))
def test_any_interleaving_of_the_two_topics_joins_the_same_pairs(seed: int) -> None:
    slates = [f"r{number}" for number in range(6)]
    items = ("i1", "i2", "i3")
    labels = [a_label(f"r{number}", item) for number in range(8) for item in items]
    rng = random.Random(seed)
    rng.shuffle(slates)
    rng.shuffle(labels)
    turns = ["slate"] * len(slates) + ["label"] * len(labels)
    rng.shuffle(turns)
    join = a_join()

    joined = []
    for turn in turns:
        if turn == "slate":
            joined += serve(join, slates.pop())
        elif (found := join.label(labels.pop())) is not None:
            joined.append(found)

    pairs = sorted((found.change.request_id, found.change.item_id) for found in joined)
    assert pairs == sorted((f"r{n}", item) for n in range(6) for item in ("i1", "i2"))
    assert join.counts.unmatched == 6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=40))
def test_high_water_lets_offsets_of_a_partition_only_rise(
    records: list[tuple[int, int]],
) -> None:
    mark = HighWater()

    kept = [record for record in records if mark.advance(*record)]

    for partition in range(3):
        offsets = [offset for source, offset in kept if source == partition]
        assert all(one < two for one, two in pairwise(offsets))
        seen = [offset for source, offset in records if source == partition]
        assert mark.offsets().get(partition) == (max(seen) if seen else None)


def test_a_stored_high_water_goes_on_where_it_was() -> None:
    stored = HighWater()
    stored.advance(3, 41)

    mark = HighWater(stored.offsets())

    assert [mark.advance(3, offset) for offset in (40, 41, 42)] == [False, False, True]


def test_a_slate_takes_no_more_memory_than_stated() -> None:
    items = [f"item-{number}" for number in range(20)]
    pctr = [0.1] * 20
    join = a_join(slates_max=10_000)
    tracemalloc.start()

    for number in range(5_000):
        join.serve(f"00000000-0000-7000-8000-{number:012d}", 900, GROUP, items, pctr)

    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 5_000 <= 950
