from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.errors import Conflict, InvalidExperiment
from rankstream.experiments.scorecard import Delta, UnitTable
from tests.rankstream.experiments.builders import START_MS, an_experiment, variants

STOP_MS = START_MS + 20
EXPERIMENT = an_experiment(stop_ms=STOP_MS)
CLICK = Delta(impressions=1, clicks=1)


@dataclass(frozen=True)
class Exposed:
    unit: str
    variant: str
    at_ms: int
    overridden: bool


@dataclass(frozen=True)
class Labelled:
    unit: str
    at_ms: int
    delta: Delta


Event = Exposed | Labelled
_UNITS = st.sampled_from(["a", "b", "c", "d"])
_TIMES = st.integers(START_MS - 3, STOP_MS + 3)
_SMALL = st.integers(-3, 3)
EVENTS = st.lists(
    st.one_of(
        st.builds(
            Exposed,
            _UNITS,
            st.sampled_from(["control", "treatment"]),
            _TIMES,
            st.sampled_from([False, False, False, True]),
        ),
        st.builds(
            Labelled, _UNITS, _TIMES, st.builds(Delta, _SMALL, _SMALL, _SMALL, st.just(10**12))
        ),
    ),
    max_size=40,
)


def fold(events: Sequence[Event], experiment: Experiment = EXPERIMENT) -> UnitTable:
    table = UnitTable(experiment)
    for event in events:
        if isinstance(event, Exposed):
            table.expose(event.unit, event.variant, event.at_ms, overridden=event.overridden)
        else:
            table.add(event.unit, event.at_ms, event.delta)
    return table


def oracle(events: Sequence[Event]) -> dict[str, tuple[int, int, int, int, int]]:
    """Units and sums of each variant, from all events at once, the slow and obvious way."""
    inside = [e for e in events if START_MS <= e.at_ms < STOP_MS]
    exposures = [e for e in inside if isinstance(e, Exposed)]
    totals: dict[str, list[int]] = defaultdict(lambda: [0] * 5)
    for unit in {e.unit for e in exposures}:
        own = [e for e in exposures if e.unit == unit]
        if len({e.variant for e in own}) > 1 or any(e.overridden for e in own):
            continue
        first_ms = min(e.at_ms for e in own)
        sums = totals[own[0].variant]
        sums[0] += 1
        for label in inside:
            if isinstance(label, Labelled) and label.unit == unit and label.at_ms >= first_ms:
                d = label.delta
                for i, v in enumerate((d.impressions, d.clicks, d.purchases, d.value_micros)):
                    sums[i + 1] += v
    empty = (0, 0, 0, 0, 0)
    return {
        name: (s[0], s[1], s[2], s[3], s[4]) if (s := totals.get(name)) else empty
        for name in ("control", "treatment")
    }


def totals(card: Scorecard) -> dict[str, tuple[int, int, int, int, int]]:
    return {
        v.variant: (v.units, v.impressions, v.clicks, v.purchases, v.value_micros)
        for v in card.variants
    }


@given(events=EVENTS)
def test_the_table_equals_the_slow_oracle(events: list[Event]) -> None:
    card = fold(events).scorecard(alpha=0.05)

    assert totals(card) == oracle(events)


@given(events=EVENTS, data=st.data())
def test_arrival_order_changes_nothing(events: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(events))

    assert fold(shuffled).scorecard(alpha=0.05) == fold(events).scorecard(alpha=0.05)


@given(events=EVENTS, data=st.data())
def test_shards_merge_to_the_whole_in_any_grouping(
    events: list[Event], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    parts = [[e for e, p in zip(events, places, strict=True) if p == i] for i in range(3)]
    whole = fold(events).scorecard(alpha=0.05)

    left = fold(parts[0])
    left.merge(fold(parts[1]))
    left.merge(fold(parts[2]))
    tail = fold(parts[1])
    tail.merge(fold(parts[2]))
    right = fold(parts[0])
    right.merge(tail)

    assert left.scorecard(alpha=0.05) == whole
    assert right.scorecard(alpha=0.05) == whole


def test_a_label_counts_from_the_first_exposure_on() -> None:
    table = fold([Exposed("a", "control", START_MS + 5, False)])

    table.add("a", START_MS + 4, CLICK)
    table.add("a", START_MS + 5, CLICK)

    assert totals(table.scorecard(alpha=0.05))["control"] == (1, 1, 1, 0, 0)
    assert table.labels_pending == 1


def test_a_waiting_label_counts_when_an_earlier_exposure_turns_up() -> None:
    table = fold([Labelled("a", START_MS + 4, CLICK), Exposed("a", "control", START_MS + 5, False)])

    table.expose("a", "control", START_MS + 4)

    assert totals(table.scorecard(alpha=0.05))["control"] == (1, 1, 1, 0, 0)
    assert table.labels_pending == 0


def test_a_retraction_cancels_a_label_that_still_waits() -> None:
    table = fold(
        [
            Labelled("a", START_MS + 4, CLICK),
            Labelled("a", START_MS + 4, Delta(impressions=-1, clicks=-1)),
            Labelled("a", START_MS + 6, CLICK),
        ]
    )

    table.expose("a", "control", START_MS)

    assert totals(table.scorecard(alpha=0.05))["control"] == (1, 1, 1, 0, 0)


def test_labels_that_no_exposure_can_reach_any_more_expire_and_are_counted() -> None:
    table = fold([Labelled("a", START_MS + 4, CLICK), Labelled("a", START_MS + 9, CLICK)])

    table.expire(START_MS + 9)

    card = table.scorecard(alpha=0.05)
    assert (card.labels_unexposed, card.labels_pending) == (1, 1)


def test_a_full_pending_store_drops_counts_and_flags() -> None:
    table = UnitTable(EXPERIMENT, pending_limit=1)
    table.add("a", START_MS + 4, CLICK)

    table.add("b", START_MS + 4, CLICK)
    table.add("a", START_MS + 4, CLICK)

    card = table.scorecard(alpha=0.05)
    assert (card.labels_pending, card.labels_dropped) == (1, 1)
    assert card.flags == ("labels_dropped",)


def test_units_in_two_variants_and_forced_units_are_left_out_and_counted() -> None:
    table = fold(
        [
            Exposed("twice", "control", START_MS, False),
            Exposed("twice", "treatment", START_MS + 1, False),
            Exposed("qa", "treatment", START_MS, True),
            Exposed("good", "treatment", START_MS, False),
        ]
    )

    card = table.scorecard(alpha=0.05)

    assert (card.units_mixed, card.units_overridden) == (1, 1)
    assert [v.units for v in card.variants] == [0, 1]
    assert card.flags == ("mixed_units",)


def a_full_table(
    *, n: int = 4_000, share: float = 0.5, lift: float = 0.0, seed: int = 5
) -> UnitTable:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    table = UnitTable(EXPERIMENT)
    treated = rng.random(n) < share
    clicks = rng.binomial(20, 0.2 * np.where(treated, 1 + lift, 1))
    for i in range(n):
        unit = f"u{i}"
        table.expose(unit, "treatment" if treated[i] else "control", START_MS)
        count = int(clicks[i])
        table.add(unit, START_MS, Delta(20, count, count // 3, 1_500_000 * (count // 3)))
    return table


def test_a_real_lift_is_better_and_a_loss_is_worse() -> None:
    better = a_full_table(lift=0.2).scorecard(alpha=0.01).estimate("ctr", "treatment")
    worse = a_full_table(lift=-0.2).scorecard(alpha=0.01)

    assert better is not None
    assert better.low is not None
    assert better.high is not None
    assert better.low < 0.2 < better.high
    assert better.verdict == "better"
    assert [e.verdict for e in worse.estimates if e.metric == "ctr"] == ["worse"]
    assert worse.flags == ("guardrail_worse",)


def test_metrics_are_in_their_units() -> None:
    card = a_full_table().scorecard(alpha=0.05)

    control = card.variants[0]
    values = {m.metric: m.value for m in control.metrics}
    assert values["ctr"] == control.clicks / control.impressions
    assert values["cvr"] == control.purchases / control.clicks
    assert values["rpm"] == pytest.approx(1.5 * control.purchases / control.impressions * 1_000)
    assert values["value_per_user"] == pytest.approx(1.5 * control.purchases / control.units)


def test_a_sample_ratio_mismatch_withholds_every_verdict() -> None:
    card = a_full_table(share=0.7, lift=0.2).scorecard(alpha=0.05)

    assert card.srm.verdict == "fail"
    assert {e.verdict for e in card.estimates} == {"srm_mismatch"}
    assert card.flags == ("srm_mismatch",)


def test_every_treatment_is_compared_with_control() -> None:
    arms = variants(4_000, 3_000, 3_000)
    table = UnitTable(an_experiment(arms=arms, control="treatment"))

    card = table.scorecard(alpha=0.05)

    pairs = {(e.control, e.treatment) for e in card.estimates}
    assert pairs == {("treatment", "control"), ("treatment", "second")}
    assert {e.verdict for e in card.estimates} == {"no_data"}
    assert card.srm.verdict == "no_data"
    assert card.estimate("ctr", "nobody") is None


def test_a_scorecard_survives_json() -> None:
    card = a_full_table(n=200).scorecard(alpha=0.05)

    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_an_exposure_to_an_unknown_variant_is_refused_by_name() -> None:
    table = UnitTable(EXPERIMENT)

    with pytest.raises(InvalidExperiment, match=r"has no variant ghost \(unit a, exposed_ms=1\)"):
        table.expose("a", "ghost", 1)


def test_an_experiment_without_start_or_with_unknown_metrics_has_no_scorecard() -> None:
    with pytest.raises(InvalidExperiment, match="has no start_ms"):
        UnitTable(an_experiment(status="draft", start_ms=None))
    with pytest.raises(InvalidExperiment, match="metric dwell is unknown"):
        UnitTable(an_experiment(guardrails=("dwell",)))


def test_a_table_follows_its_experiment_to_the_end() -> None:
    table = UnitTable(an_experiment())
    stopped = an_experiment(status="stopped", stop_ms=STOP_MS, version=2)

    table.amend(stopped)
    table.add("a", STOP_MS, CLICK)

    assert table.labels_outside == 1
    assert table.scorecard(alpha=0.05).version == 2
    with pytest.raises(Conflict, match="version=1 must be above 2"):
        table.amend(an_experiment())


def test_a_draft_counts_nothing_and_may_still_change_its_variants() -> None:
    table = UnitTable(an_experiment(status="draft"))
    table.expose("early", "control", START_MS)

    table.amend(an_experiment(arms=variants(4_000, 3_000, 3_000), version=2))
    table.expose("a", "second", START_MS)
    table.add("a", START_MS, CLICK)

    card = table.scorecard(alpha=0.05)
    assert [v.units for v in card.variants] == [0, 0, 1]
    assert totals(card)["second"] == (1, 1, 1, 0, 0)
