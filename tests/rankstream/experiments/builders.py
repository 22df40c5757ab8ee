"""Builders of experiments for the tests of this folder."""

from rankstream.contracts.experiment import Experiment, Status, Variant

START_MS = 1_700_000_000_000


def variants(*weights_bp: int) -> tuple[Variant, ...]:
    names = ("control", "treatment", "second")
    return tuple(
        Variant(name=name, weight_bp=weight, model=f"ranker-{name}")
        for name, weight in zip(names, weights_bp, strict=False)
    )


def an_experiment(
    *,
    id: str = "ranker-ab",
    salt: str = "salt-1",
    layer: str = "ranking",
    layer_start_bp: int = 0,
    traffic_bp: int = 10_000,
    arms: tuple[Variant, ...] | None = None,
    overrides: dict[str, str] | None = None,
    status: Status = "running",
    start_ms: int | None = START_MS,
    stop_ms: int | None = None,
    version: int = 1,
    control: str = "control",
    primary_metric: str = "ctr",
    guardrails: tuple[str, ...] = ("value_per_user",),
) -> Experiment:
    return Experiment(
        id=id,
        salt=salt,
        layer=layer,
        layer_start_bp=layer_start_bp,
        variants=arms if arms is not None else variants(5_000, 5_000),
        traffic_bp=traffic_bp,
        overrides=overrides or {},
        status=status,
        start_ms=start_ms,
        stop_ms=stop_ms,
        version=version,
        control=control,
        primary_metric=primary_metric,
        guardrails=guardrails,
    )
