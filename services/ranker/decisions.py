"""Which model and which policy answer a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankstream.experiments.assign import Assignment
from rankstream.ports import Model
from services.ranker.enrichment import Degraded
from services.ranker.models import Models
from services.ranker.policies import Named, Policies
from services.ranker.variants import Variants


@dataclass(frozen=True)
class Decision:
    """Which model and policy answer, and the assignment that says so; `exposes` if it is logged.

    other: a second model, whose ranking is interleaved with the first one's.
    """

    model: Model
    policy: Named
    assignment: Assignment | None = None
    exposes: bool = False
    other: Model | None = None


class Decisions:
    """By experiments, where one has the user; else the champion and the default policy."""

    def __init__(self, models: Models, policies: Policies, variants: Variants) -> None:
        self._models = models
        self._policies = policies
        self._variants = variants

    def of(
        self, user_id: str, overrides: Mapping[str, str], now_ms: int, degraded: Degraded
    ) -> Decision:
        """Raises: NotReady; UnknownExperiment or InvalidRequest of an override."""
        assignment, active = self._variants.of(user_id, overrides, now_ms)
        if assignment is None:
            return Decision(self._models.champion(), self._policies.default)
        model = self._models.of_alias(assignment.model)
        policy = self._policies.named(assignment.policy)
        other = self._models.of_alias(assignment.interleave_with)
        if model is None or (assignment.interleave_with and other is None):
            missing = "variant_model_missing"
        elif policy is None:
            missing = "variant_policy_missing"
        else:
            return Decision(model, policy, assignment, active, other)
        # The user did not feel the variant, so the answer is not part of the experiment.
        degraded.add(missing)
        return Decision(self._models.champion(), self._policies.default)
