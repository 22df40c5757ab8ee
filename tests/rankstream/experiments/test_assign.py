from collections import Counter

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.errors import Conflict, InvalidExperiment
from rankstream.experiments.assign import (
    LAYER_SEED,
    assign,
    assign_all,
    assign_many,
    bucket,
    check_amendment,
    check_layers,
)
from rankstream.experiments.srm import check_srm
from tests.rankstream.experiments.builders import START_MS, an_experiment, variants

NOW_MS = START_MS + 1_000
USERS = [f"user-{i}" for i in range(20_000)]


def fits(counts: list[int], weights: list[int]) -> bool:
    check = check_srm(counts, weights)
    return check.chi2_p_value is not None and check.chi2_p_value > 0.001


def test_the_hash_passes_the_verification_of_smhasher() -> None:
    keys = [bytes(range(length)) for length in range(256)]

    hashes = b"".join(
        mmh3.hash(key, 256 - len(key), signed=False).to_bytes(4, "little") for key in keys
    )

    assert mmh3.hash(hashes, 0, signed=False) == 0xB0F57EE3


@pytest.mark.parametrize(
    ("key", "seed", "expected"),
    [
        ("", 0, 0),
        ("", 1, 0x514E28B7),
        ("aaaa", 0x9747B28C, 0x5A97808A),
        ("abc", 0, 0xB3DD93FA),
        ("Hello, world!", 0x9747B28C, 0x24884CBA),
    ],
)
def test_the_hash_gives_the_published_vectors(key: str, seed: int, expected: int) -> None:
    assert mmh3.hash(key, seed, signed=False) == expected


def test_a_bucket_is_the_hash_of_salt_separator_and_unit() -> None:
    assert bucket("s", "u") == mmh3.hash(b"s\x1fu", 0, signed=False) % 10_000


def test_moving_a_letter_between_salt_and_unit_changes_the_bucket() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")


def test_shares_of_traffic_and_variants_fit_the_definition() -> None:
    experiment = an_experiment(arms=variants(5_000, 3_000, 2_000), traffic_bp=4_000)

    index = assign_many(experiment, USERS, as_of_ms=NOW_MS)

    counts = Counter(index.tolist())
    assert fits([counts[0], counts[1], counts[2]], [50, 30, 20])
    assert fits([20_000 - counts[-1], counts[-1]], [40, 60])


@given(
    units=st.lists(st.text(max_size=12), max_size=30),
    weight=st.integers(1, 9_999),
    start=st.integers(0, 5_000),
    traffic=st.integers(0, 5_000),
)
def test_assigning_many_equals_assigning_each(
    units: list[str], weight: int, start: int, traffic: int
) -> None:
    experiment = an_experiment(
        arms=variants(weight, 10_000 - weight),
        layer_start_bp=start,
        traffic_bp=traffic,
        overrides={unit: "treatment" for unit in units[:1]},
    )
    names = [variant.name for variant in experiment.variants]

    index = assign_many(experiment, units, as_of_ms=NOW_MS)

    each = [assign(experiment, unit, as_of_ms=NOW_MS) for unit in units]
    assert index.tolist() == [-1 if a is None else names.index(a.variant) for a in each]


def test_the_end_of_a_variants_range_belongs_to_the_next_variant() -> None:
    place = bucket("salt-1", "u1")
    first = an_experiment(arms=variants(place, 10_000 - place))
    second = an_experiment(arms=variants(place + 1, 9_999 - place))

    index = [int(assign_many(e, ["u1"], as_of_ms=NOW_MS)[0]) for e in (first, second)]
    each = [assign(e, "u1", as_of_ms=NOW_MS) for e in (first, second)]

    assert index == [1, 0]
    assert [a and a.variant for a in each] == ["treatment", "control"]


def test_the_end_of_the_traffic_is_outside_and_its_start_inside() -> None:
    place = bucket("ranking", "u1", LAYER_SEED)
    before = an_experiment(traffic_bp=place)
    until = an_experiment(traffic_bp=place + 1)
    start = an_experiment(layer_start_bp=place, traffic_bp=1)
    after = an_experiment(layer_start_bp=place + 1, traffic_bp=1)
    experiments = (before, until, start, after)

    index = [int(assign_many(e, ["u1"], as_of_ms=NOW_MS)[0]) >= 0 for e in experiments]
    each = [assign(e, "u1", as_of_ms=NOW_MS) is not None for e in experiments]

    assert index == each == [False, True, True, False]


def test_an_assignment_names_its_version_bucket_and_propensity() -> None:
    experiment = an_experiment(arms=variants(1, 9_999), version=7)

    assignment = assign(experiment, "u1", as_of_ms=NOW_MS)

    assert assignment is not None
    assert (assignment.experiment_id, assignment.version) == ("ranker-ab", 7)
    assert (assignment.variant, assignment.model) == ("treatment", "ranker-treatment")
    assert assignment.bucket == bucket("salt-1", "u1")
    assert assignment.propensity == 0.9999
    assert not assignment.overridden


@given(small=st.integers(0, 10_000), growth=st.integers(0, 10_000))
def test_ramping_up_moves_no_unit(small: int, growth: int) -> None:
    before = an_experiment(traffic_bp=small)
    after = an_experiment(traffic_bp=min(10_000, small + growth), version=2)

    old = assign_many(before, USERS[:200], as_of_ms=NOW_MS)
    new = assign_many(after, USERS[:200], as_of_ms=NOW_MS)

    inside = old >= 0
    assert (new[inside] == old[inside]).all()


def test_experiments_of_one_layer_share_no_unit() -> None:
    left = an_experiment(id="left", salt="l", traffic_bp=6_000)
    right = an_experiment(id="right", salt="r", layer_start_bp=6_000, traffic_bp=4_000)

    in_left = assign_many(left, USERS, as_of_ms=NOW_MS) >= 0
    in_right = assign_many(right, USERS, as_of_ms=NOW_MS) >= 0

    assert (in_left ^ in_right).all()
    assert len(assign_all([left, right], USERS[0], as_of_ms=NOW_MS)) == 1


def test_layers_and_salts_are_independent_even_when_they_are_the_same_word() -> None:
    one = an_experiment(layer="word", salt="word", traffic_bp=5_000)
    two = an_experiment(layer="other", salt="more")

    first = assign_many(one, USERS, as_of_ms=NOW_MS)
    second = assign_many(two, USERS, as_of_ms=NOW_MS)

    cells = Counter(zip(first.tolist(), second.tolist(), strict=True))
    observed = [cells[a, b] for a in (-1, 0, 1) for b in (0, 1)]
    assert fits(observed, [50, 50, 25, 25, 25, 25])


def test_an_override_beats_traffic_and_is_marked() -> None:
    experiment = an_experiment(traffic_bp=0, overrides={"qa": "treatment"})

    assignment = assign(experiment, "qa", as_of_ms=NOW_MS)

    assert assignment is not None
    assert (assignment.variant, assignment.overridden) == ("treatment", True)
    assert assignment.propensity == 1.0


def test_only_a_running_experiment_inside_its_schedule_assigns() -> None:
    running = an_experiment(stop_ms=START_MS + 10, overrides={"qa": "control"})
    draft = an_experiment(status="draft", overrides={"qa": "control"})

    inside = [
        t
        for t in (START_MS - 1, START_MS, START_MS + 9, START_MS + 10)
        if assign(running, "qa", as_of_ms=t) is not None
    ]

    assert inside == [START_MS, START_MS + 9]
    assert assign(draft, "qa", as_of_ms=NOW_MS) is None
    assert assign_many(draft, ["qa", "u"], as_of_ms=NOW_MS).tolist() == [-1, -1]


def test_overlapping_experiments_of_one_layer_are_refused_by_name() -> None:
    left = an_experiment(id="left", traffic_bp=5_001)
    right = an_experiment(id="right", layer_start_bp=5_000, traffic_bp=100)

    with pytest.raises(InvalidExperiment, match="left and right overlap in layer ranking"):
        check_layers([right, left])


def test_neighbours_and_other_layers_do_not_overlap() -> None:
    left = an_experiment(id="left", traffic_bp=5_000)
    right = an_experiment(id="right", layer_start_bp=5_000, traffic_bp=5_000)
    other = an_experiment(id="other", layer="retrieval")

    check_layers([left, right, other, an_experiment(id="idle", status="draft")])


def test_a_running_experiment_may_grow_and_stop() -> None:
    current = an_experiment(traffic_bp=100)
    grown = an_experiment(traffic_bp=200, version=2)
    stopped = an_experiment(traffic_bp=200, version=3, status="stopped", stop_ms=NOW_MS)

    check_amendment(current, grown)
    check_amendment(grown, stopped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"salt": "salt-2"}, "salt cannot change"),
        ({"arms": variants(1_000, 9_000)}, "variants cannot change"),
        ({"traffic_bp": 99}, r"traffic_bp \(lowered\) cannot change"),
        ({"status": "draft"}, r"status \(running to draft\)"),
        ({"version": 1}, "version=1 must be above 1"),
    ],
)
def test_a_change_that_would_move_units_is_a_conflict(
    changes: dict[str, object], message: str
) -> None:
    current = an_experiment(traffic_bp=100)
    amended = an_experiment(**{"traffic_bp": 100, "version": 2, **changes})  # type: ignore[arg-type]  # see message

    with pytest.raises(Conflict, match=message):
        check_amendment(current, amended)


def test_a_draft_may_change_in_every_way() -> None:
    check_amendment(
        an_experiment(status="draft"), an_experiment(salt="new", traffic_bp=1, version=2)
    )
