import pytest
from pydantic import ValidationError

from rankstream.contracts.experiment import Experiment
from tests.rankstream.experiments.builders import START_MS, an_experiment, variants


def test_a_definition_survives_json() -> None:
    experiment = an_experiment(overrides={"u1": "treatment"}, stop_ms=START_MS + 1)

    again = Experiment.model_validate_json(experiment.model_dump_json())

    assert again == experiment


@pytest.mark.parametrize(
    ("rule", "message", "changes"),
    [
        ("experiment_variants", "2 to 16 variants", {"arms": variants(10_000)}),
        ("experiment_weights", "sum to 9000", {"arms": variants(5_000, 4_000)}),
        ("experiment_unknown_variant", "unknown variants: ghost", {"control": "ghost"}),
        ("experiment_unknown_variant", "unknown variants: x", {"overrides": {"u": "x"}}),
        ("experiment_salt", "unit separator", {"salt": "a\x1fb"}),
        ("experiment_traffic", "is 10001", {"layer_start_bp": 1}),
        ("experiment_start", "is running and needs start_ms", {"start_ms": None}),
        ("experiment_stop", "is stopped and needs stop_ms", {"status": "stopped"}),
        ("experiment_schedule", "must be after start_ms", {"stop_ms": START_MS}),
        ("experiment_guardrails", "must differ", {"guardrails": ("ctr",)}),
    ],
)
def test_a_broken_rule_is_named(rule: str, message: str, changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        an_experiment(**changes)  # type: ignore[arg-type]  # one builder, ten kinds of change

    assert [error["type"] for error in caught.value.errors()] == [rule]


def test_two_variants_of_one_name_are_refused() -> None:
    arm = variants(5_000)[0]

    with pytest.raises(ValidationError, match="different names, got control, control"):
        an_experiment(arms=(arm, arm))
