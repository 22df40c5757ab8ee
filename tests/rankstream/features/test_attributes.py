"""Which numbers are features: what a setting may name, and that all that is laid out follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rankstream.errors import InvalidSettings
from rankstream.features import spec
from rankstream.features.attributes import MORE_MAX, attributes

# In a process of its own: the layout is made once, at import.
PROGRAM = """
import json
from pipelines.features.replay import ItemFacts, Windows, training_rows
from pipelines.validate.ranges import RANGES, by_name
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.features import spec
from tests.parity.events import START_MS, an_event

events = [
    an_event("user_update", 1, attributes={"tenure_days": 12.0, "unheard_of": 1.0}),
    an_event("impression", 2, after_ms=1),
    an_event("impression", 3, after_ms=2, item_id="i1", request_id="r1"),
]
facts = {"i0": ItemFacts("tea", {"duration_s": 34.5, "year": 1999.0})}
columns = decode_batch(encode_batch(events))
rows = training_rows(columns, facts, until_ms=START_MS + 10**9, windows=Windows())
names = ("user_tenure_days", "item_duration_s", "item_stars", "item_year")
values = rows.features[:, [spec.NAMES.index(name) for name in names]]
print(json.dumps([values.tolist(), spec.SPEC_ID, str(by_name(RANGES, "item_stars"))]))
"""


def of_process(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_named_numbers_are_features_of_rows_and_spec() -> None:
    done = of_process(
        RANKSTREAM_USER_ATTRIBUTES="tenure_days", RANKSTREAM_ITEM_ATTRIBUTES="duration_s,stars"
    )

    assert done.returncode == 0, done.stderr
    values, spec_id, allowed = json.loads(done.stdout)
    assert values == [[12.0, 34.5, -1.0, 1999.0], [12.0, -1.0, -1.0, -1.0]]
    assert spec_id != spec.SPEC_ID
    assert allowed == "[-1e+09, 1e+09]"


def test_every_feature_equals_the_reference_with_further_attributes() -> None:
    """What was compiled and kept without them must not be what runs with them."""
    tests = (
        "tests/parity/test_fold.py::test_every_feature_equals_the_reference",
        "tests/rankstream/features/test_snapshot.py",
        "tests/rankstream/features/test_rating_table.py",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]

    done = subprocess.run(
        command,
        env={
            **os.environ,
            "RANKSTREAM_USER_ATTRIBUTES": "tenure_days,visits",
            "RANKSTREAM_ITEM_ATTRIBUTES": "stars",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout[-4_000:]


def test_a_name_that_a_feature_has_already_is_refused() -> None:
    done = of_process(RANKSTREAM_ITEM_ATTRIBUTES="ctr")

    assert done.returncode == 1
    assert "invalid_settings: attributes item_ctr have the names of other features" in done.stderr


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("Year", "'Year'"),
        ("a,,b", "''"),
        ("stars,stars", "'stars'"),
        ("price", "'price'"),
        ("a b", "'a b'"),
        (",".join(f"a{k}" for k in range(MORE_MAX + 1)), "33 names"),
    ],
)
def test_what_is_no_name_is_refused_with_the_variable(value: str, what: str) -> None:
    with pytest.raises(InvalidSettings, match=f"RANKSTREAM_X has {what} .limit: 32 different"):
        attributes("RANKSTREAM_X", ("year", "price"), value)


def test_nothing_named_is_what_is_always_there() -> None:
    assert attributes("RANKSTREAM_X", ("age",), "  ") == ("age",)
