"""Decide which variant a unit gets: a pure function of definition, unit and time, equal in every
process.

Two independent hashes per unit:

- hash(layer, unit) picks a bucket of the layer. An experiment owns the range [layer_start_bp,
  layer_start_bp + traffic_bp), so experiments of one layer exclude each other, and raising
  `traffic_bp` only appends buckets: no unit that was in leaves, and none changes variant.
- hash(salt, unit) picks the variant, cumulative over `weight_bp` in the order of `variants`.

The hash is MurmurHash3 x86_32 of UTF-8 bytes, unsigned, modulo 10 000 (bias below 3e-6 of a share).
The key is salt + U+001F + unit: without a separator ("ab", "c") and ("a", "bc") would collide. Seed
1 for layers and 0 for variants keep the two hashes apart even where a layer and a salt are the same
word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import mmh3
import numpy as np
from numpy.typing import NDArray

from rankstream.contracts.experiment import BUCKETS, SEPARATOR, Experiment
from rankstream.errors import Conflict, InvalidExperiment

VARIANT_SEED = 0
LAYER_SEED = 1
NOT_IN = -1
"""Index that `assign_many` gives to a unit outside the experiment."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The variant of one unit. `propensity` is P(variant | in the experiment); 1 if an override
    forced it.
    """

    experiment_id: str
    version: int
    variant: str
    model: str
    bucket: int
    propensity: float
    overridden: bool
    policy: str = ""
    interleave_with: str = ""


def bucket(salt: str, unit: str, seed: int = VARIANT_SEED) -> int:
    """Return the bucket of a unit, in [0, 10 000).

    >>> bucket("blue", "user-1"), bucket("bl", "ueuser-1") == bucket("blue", "user-1")
    (7827, False)
    """
    return mmh3.hash(salt + SEPARATOR + unit, seed, signed=False) % BUCKETS


def is_active(experiment: Experiment, *, as_of_ms: int) -> bool:
    """Return whether the experiment takes units at `as_of_ms`: running, and inside [start_ms,
    stop_ms).
    """
    if experiment.status != "running" or experiment.start_ms is None:
        return False
    stopped = experiment.stop_ms is not None and as_of_ms >= experiment.stop_ms
    return as_of_ms >= experiment.start_ms and not stopped


def assign(experiment: Experiment, unit: str, *, as_of_ms: int) -> Assignment | None:
    """Return the unit's assignment, None if the experiment is not active or the unit not in its
    traffic.

    Args:
        unit: the value of `experiment.unit`, not empty.
        as_of_ms: UTC epoch milliseconds of the request.
    An override beats traffic and layers, never status: a stopped experiment decides nothing.
    """
    if not is_active(experiment, as_of_ms=as_of_ms):
        return None
    forced = experiment.overrides.get(unit)
    place = bucket(experiment.salt, unit)
    if forced is None:
        offset = bucket(experiment.layer, unit, LAYER_SEED) - experiment.layer_start_bp
        if not 0 <= offset < experiment.traffic_bp:
            return None
    end = 0
    for variant in experiment.variants:
        end += variant.weight_bp
        if variant.name == forced or (forced is None and place < end):
            return Assignment(
                experiment_id=experiment.id,
                version=experiment.version,
                variant=variant.name,
                model=variant.model,
                bucket=place,
                propensity=1.0 if forced is not None else variant.weight_bp / BUCKETS,
                overridden=forced is not None,
                policy=variant.policy,
                interleave_with=variant.interleave_with,
            )
    raise AssertionError("Experiment guarantees weights that cover every bucket")


def assign_all(
    experiments: Iterable[Experiment], unit: str, *, as_of_ms: int
) -> tuple[Assignment, ...]:
    """Return the unit's assignments, in the order of `experiments`; see `check_layers` for
    exclusion.
    """
    found = (assign(experiment, unit, as_of_ms=as_of_ms) for experiment in experiments)
    return tuple(assignment for assignment in found if assignment is not None)


def assign_many(
    experiment: Experiment, units: Sequence[str], *, as_of_ms: int
) -> NDArray[np.int16]:
    """Return each unit's index into `experiment.variants`, shape (n,); -1 where `assign` returns
    None.
    """
    if not is_active(experiment, as_of_ms=as_of_ms):
        return np.full(len(units), NOT_IN, dtype=np.int16)
    places = _buckets(experiment.salt, units, VARIANT_SEED)
    offsets = _buckets(experiment.layer, units, LAYER_SEED) - experiment.layer_start_bp
    ends = np.fromiter(accumulate(v.weight_bp for v in experiment.variants), dtype=np.int64)
    index = np.searchsorted(ends, places, side="right").astype(np.int16)
    index[(offsets < 0) | (offsets >= experiment.traffic_bp)] = NOT_IN
    if experiment.overrides:
        order = {variant.name: i for i, variant in enumerate(experiment.variants)}
        for row, unit in enumerate(units):
            forced = experiment.overrides.get(unit)
            if forced is not None:
                index[row] = order[forced]
    return index


def _buckets(salt: str, units: Sequence[str], seed: int) -> NDArray[np.int64]:
    prefix = salt + SEPARATOR
    hashes = (mmh3.hash(prefix + unit, seed, signed=False) for unit in units)
    return np.fromiter(hashes, dtype=np.int64, count=len(units)) % BUCKETS


def check_layers(experiments: Iterable[Experiment]) -> None:
    """Refuse two running experiments that share buckets of one layer.

    Raises: InvalidExperiment naming both; ranges are half-open, so 0+5000 and 5000+5000 are
    neighbours.
    """
    running = [e for e in experiments if e.status == "running" and e.traffic_bp > 0]
    running.sort(key=lambda e: (e.layer, e.layer_start_bp))
    for left, right in pairwise(running):
        end = left.layer_start_bp + left.traffic_bp
        if left.layer == right.layer and right.layer_start_bp < end:
            raise InvalidExperiment(
                f"experiments {left.id} and {right.id} overlap in layer {left.layer}: the first "
                f"ends at {end} bp, the second starts at {right.layer_start_bp} bp. Nothing was "
                "changed. Move layer_start_bp, lower traffic_bp, or use another layer."
            )


_FIXED_ONCE_STARTED = (
    "id salt layer layer_start_bp unit variants control primary_metric start_ms planned_lift"
).split()


def check_amendment(current: Experiment, amended: Experiment) -> None:
    """Refuse a change that would move units between variants or choose the analysis after seeing
    data.

    Allowed once started: a larger `traffic_bp`, overrides, guardrails, `stop_ms`, and stopping.
    Raises: Conflict naming the fields.
    """
    if amended.version <= current.version:
        raise Conflict(
            f"experiment {current.id}: version={amended.version} must be above {current.version}. "
            "Nothing was changed. Read the experiment again and repeat the change."
        )
    if current.status == "draft":
        return
    moved = [
        name for name in _FIXED_ONCE_STARTED if getattr(current, name) != getattr(amended, name)
    ]
    if amended.traffic_bp < current.traffic_bp:
        moved.append("traffic_bp (lowered)")
    if amended.status == "draft" or (current.status == "stopped" and amended.status != "stopped"):
        moved.append(f"status ({current.status} to {amended.status})")
    if moved:
        raise Conflict(
            f"experiment {current.id} is {current.status}: {', '.join(moved)} cannot change. "
            "Nothing was changed. Define a new experiment with a new id and salt."
        )
