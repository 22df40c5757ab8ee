"""Which variant a user gets: the definitions of topic `experiments`, applied in this process."""

from __future__ import annotations

from collections.abc import Mapping

from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import decode_experiment
from rankstream.contracts.experiment import Experiment
from rankstream.errors import InvalidRequest, UnknownExperiment
from rankstream.experiments.assign import VARIANT_SEED, Assignment, assign, bucket, is_active


class Variants:
    """All definitions. One experiment decides an answer: the first, by start and id, that takes
    the user. The others neither touch nor log it, so each sees a population that is chosen by
    hashes alone.
    """

    def __init__(self) -> None:
        self._experiments: dict[str, Experiment] = {}
        self._ordered: tuple[Experiment, ...] = ()

    async def follow(self, record: Record) -> None:
        """Take a definition in, or with a tombstone out.

        Raises: InvalidExperiment; the definition in force stays.
        """
        if record.value is None:
            self._experiments.pop(record.key.decode(errors="replace"), None)
        else:
            experiment = decode_experiment(record.value)
            self._experiments[experiment.id] = experiment
        running = [e for e in self._experiments.values() if e.status == "running"]
        self._ordered = tuple(sorted(running, key=lambda e: (e.start_ms or 0, e.id)))

    def of(
        self, user_id: str, overrides: Mapping[str, str], as_of_ms: int
    ) -> tuple[Assignment | None, bool]:
        """The assignment that decides this answer, and whether its experiment is active.

        Args:
            overrides: experiment id -> variant, as the request asks; beats assignment and status;
                of several, the first by id decides.

        Raises:
            UnknownExperiment: an override names no experiment.
            InvalidRequest: an override names no variant of its experiment.
        """
        forced = [self._forced(user_id, *override) for override in sorted(overrides.items())]
        if forced:
            experiment = self._experiments[forced[0].experiment_id]
            return forced[0], is_active(experiment, as_of_ms=as_of_ms)
        for experiment in self._ordered:
            assignment = assign(experiment, user_id, as_of_ms=as_of_ms)
            if assignment is not None:
                return assignment, True
        return None, False

    def _forced(self, user_id: str, experiment_id: str, name: str) -> Assignment:
        experiment = self._experiments.get(experiment_id)
        if experiment is None:
            raise UnknownExperiment(
                f"unknown_experiment: variant_overrides names {experiment_id[:100]!r}, which is"
                " not defined. Not answered. Define it, or leave it out."
            )
        for variant in experiment.variants:
            if variant.name == name:
                return Assignment(
                    experiment_id=experiment_id,
                    version=experiment.version,
                    variant=name,
                    model=variant.model,
                    bucket=bucket(experiment.salt, user_id, VARIANT_SEED),
                    propensity=1.0,
                    overridden=True,
                    policy=variant.policy,
                    interleave_with=variant.interleave_with,
                )
        known = ", ".join(variant.name for variant in experiment.variants)
        raise InvalidRequest(
            f"invalid_request: variant_overrides asks for variant {name[:100]!r} of"
            f" {experiment_id}, which has {known}. Not answered. Name one of them."
        )
