"""What a caller may ask, as one type for both transports."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankstream.contracts.base import Contract, Id
from rankstream.contracts.filter import ItemFilter, Place, filter_fields, place_fields
from rankstream.errors import InvalidRequest
from rankstream.pb import ranker_pb2 as pb

EXCLUDE_MAX = 1_000
OVERRIDES_MAX = 16

RequestId = Annotated[str, Field(max_length=128, description="Empty: one is minted.")]
Overrides = Annotated[dict[str, str], Field(max_length=OVERRIDES_MAX)]
Text = Annotated[str, Field(max_length=1_024)]


class Context(Contract):
    """Where and how the user asks."""

    device: Text = ""
    query: Text = ""
    location: Text = ""
    session_id: Text = ""
    place: Place | None = Field(default=None, description="Where the user is.")


class RecommendRequest(Contract):
    """Retrieve candidates for a user and answer a slate of n."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u-17", "n": 10, "preview": True},
                {
                    "user_id": "u-17",
                    "filter": {
                        "categories": ["shoes"],
                        "price": {"max": 80.0},
                        "near": {"latitude": 48.137, "longitude": 11.575, "radius_km": 5.0},
                    },
                },
            ]
        }
    )

    request_id: RequestId = ""
    user_id: Id
    n: int = Field(default=0, description="0: the server's default.")
    context: Context = Context()
    exclude_item_ids: list[Id] = Field(default=[], max_length=EXCLUDE_MAX)
    variant_overrides: Overrides = Field(default={})
    preview: bool = Field(default=False, description="Answer, but log and keep nothing.")
    filter: ItemFilter | None = Field(default=None, description="Only items that pass it.")


class RankRequest(Contract):
    """Order the given items for a user."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u-17", "item_ids": ["i-1", "i-2"]}]}
    )

    request_id: RequestId = ""
    user_id: Id
    item_ids: list[Id]
    n: int = Field(default=0, description="0: all of them.")
    context: Context = Context()
    variant_overrides: Overrides = Field(default={})
    preview: bool = Field(default=False, description="Answer, but log and keep nothing.")


R = TypeVar("R", RecommendRequest, RankRequest)


def _parse(cls: type[R], fields: dict[str, Any]) -> R:
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"invalid_request: {where}: {first['msg']}, got {str(first['input'])[:80]!r}."
            " Not answered. Mend the field."
        ) from None


def _context(context: pb.Context) -> dict[str, Any]:
    return {
        "device": context.device,
        "query": context.query,
        "location": context.location,
        "session_id": context.session_id,
        "place": place_fields(context.place) if context.HasField("place") else None,
    }


def recommend_of(request: pb.RecommendRequest) -> RecommendRequest:
    """Raises: InvalidRequest naming the field."""
    return _parse(
        RecommendRequest,
        {
            "request_id": request.request_id,
            "user_id": request.user_id,
            "n": request.n,
            "context": _context(request.context),
            "exclude_item_ids": list(request.exclude_item_ids),
            "variant_overrides": dict(request.variant_overrides),
            "preview": request.preview,
            "filter": filter_fields(request.filter) if request.HasField("filter") else None,
        },
    )


def rank_of(request: pb.RankRequest) -> RankRequest:
    """Raises: InvalidRequest naming the field."""
    return _parse(
        RankRequest,
        {
            "request_id": request.request_id,
            "user_id": request.user_id,
            "item_ids": list(request.item_ids),
            "n": request.n,
            "context": _context(request.context),
            "variant_overrides": dict(request.variant_overrides),
            "preview": request.preview,
        },
    )


class _Body(BaseModel):
    """Made from the message of the same fields."""

    model_config = ConfigDict(from_attributes=True)


class RankReplyBody(_Body):
    """A slate, best first. `degraded` names every fallback that was taken."""

    request_id: str
    item_id: list[str]
    score: list[float] = Field(description="Calibrated click probability of each item.")
    propensity: list[float] = Field(
        description="P(item in this slot | slots above); 0: simulated later, see the explanation."
    )
    category: list[str]
    model_id: str
    index_id: str
    experiment_id: str
    variant: str
    degraded: list[str]
    served_time_ms: int
    candidates: int
    unknown_item_ids: list[str]


class ContributionBody(_Body):
    """What one feature added to the logit."""

    feature: str
    value: float
    contribution: float


class ExplainedItemBody(_Body):
    """One item of a past slate; contributions largest first."""

    item_id: str
    logit: float
    pctr: float
    propensity: float
    propensity_error: float = Field(description="Standard error; 0: exact.")
    place: int = Field(description="In the model's order; 0 is first.")
    team: int = Field(description="Of interleaving: 0 model_id's pick, 1 other_model_id's.")
    sources: list[str] = Field(description="Of retrieval, that named it; none of a given item.")
    contributions: list[ContributionBody]


class PolicyStepBody(_Body):
    """What a step of the policy moved: slots, and places of their items before and after it."""

    name: str
    slot: list[int]
    before: list[int]
    after: list[int]
    removed: int = Field(description="Candidates that it took out.")


class PreRankBody(_Body):
    """Who was cut before ranking: `model_id`'s linear stand-in scored them at most `cut`."""

    model_id: str
    model_sha256: str
    before: int = Field(description="Candidates before the cut.")
    cut: float
    score: list[float] = Field(description="The stand-in's, of each item.")


class ExplainReplyBody(_Body):
    """Why a past answer was what it was."""

    request_id: str
    user_id: str
    served_time_ms: int
    model_id: str
    index_id: str
    spec_id: str
    experiment_id: str
    variant: str
    items: list[ExplainedItemBody]
    degraded: list[str]
    method: str
    policy: str
    policy_hash: str
    steps: list[PolicyStepBody]
    prerank: PreRankBody | None = Field(description="None: nobody was cut.")
    propensity_draws: int = Field(description="Of the simulation of propensities; 0: exact.")
    other_model_id: str = Field(description="Interleaved with model_id; empty: no interleaving.")


class DifferenceBody(_Body):
    """Where an answer made again differs from its record."""

    code: str
    detail: str


class ReproduceReplyBody(_Body):
    """A past answer made again from its record; without differences it is equal to the last bit."""

    request_id: str
    model_id: str
    model_sha256: str
    data_version: str
    policy: str
    policy_hash: str
    items: int
    candidates: int
    differences: list[DifferenceBody]
