from rankstream.pb import events_pb2 as _events_pb2
from rankstream.pb import filter_pb2 as _filter_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Context(_message.Message):
    __slots__ = ("device", "query", "location", "session_id", "place")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    device: str
    query: str
    location: str
    session_id: str
    place: _filter_pb2.Place
    def __init__(self, device: _Optional[str] = ..., query: _Optional[str] = ..., location: _Optional[str] = ..., session_id: _Optional[str] = ..., place: _Optional[_Union[_filter_pb2.Place, _Mapping]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "n", "context", "exclude_item_ids", "variant_overrides", "preview", "filter")
    class VariantOverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    VARIANT_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    n: int
    context: Context
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    variant_overrides: _containers.ScalarMap[str, str]
    preview: bool
    filter: _filter_pb2.ItemFilter
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., n: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., variant_overrides: _Optional[_Mapping[str, str]] = ..., preview: _Optional[bool] = ..., filter: _Optional[_Union[_filter_pb2.ItemFilter, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "item_ids", "n", "context", "variant_overrides", "preview")
    class VariantOverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    n: int
    context: Context
    variant_overrides: _containers.ScalarMap[str, str]
    preview: bool
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., n: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., variant_overrides: _Optional[_Mapping[str, str]] = ..., preview: _Optional[bool] = ...) -> None: ...

class RankReply(_message.Message):
    __slots__ = ("request_id", "item_id", "score", "propensity", "category", "model_id", "index_id", "experiment_id", "variant", "degraded", "served_time_ms", "candidates", "unknown_item_ids")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item_id: _containers.RepeatedScalarFieldContainer[str]
    score: _containers.RepeatedScalarFieldContainer[float]
    propensity: _containers.RepeatedScalarFieldContainer[float]
    category: _containers.RepeatedScalarFieldContainer[str]
    model_id: str
    index_id: str
    experiment_id: str
    variant: str
    degraded: _containers.RepeatedScalarFieldContainer[str]
    served_time_ms: int
    candidates: int
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., item_id: _Optional[_Iterable[str]] = ..., score: _Optional[_Iterable[float]] = ..., propensity: _Optional[_Iterable[float]] = ..., category: _Optional[_Iterable[str]] = ..., model_id: _Optional[str] = ..., index_id: _Optional[str] = ..., experiment_id: _Optional[str] = ..., variant: _Optional[str] = ..., degraded: _Optional[_Iterable[str]] = ..., served_time_ms: _Optional[int] = ..., candidates: _Optional[int] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("request_id", "user_id", "served_time_ms", "model_id", "index_id", "spec_id", "experiment_id", "variant", "items", "degraded", "method", "policy", "policy_hash", "steps", "other_model_id", "prerank", "propensity_draws")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_HASH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OTHER_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PRERANK_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_DRAWS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    served_time_ms: int
    model_id: str
    index_id: str
    spec_id: str
    experiment_id: str
    variant: str
    items: _containers.RepeatedCompositeFieldContainer[ExplainedItem]
    degraded: _containers.RepeatedScalarFieldContainer[str]
    method: str
    policy: str
    policy_hash: str
    steps: _containers.RepeatedCompositeFieldContainer[_events_pb2.PolicyStep]
    other_model_id: str
    prerank: _events_pb2.PreRank
    propensity_draws: int
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., served_time_ms: _Optional[int] = ..., model_id: _Optional[str] = ..., index_id: _Optional[str] = ..., spec_id: _Optional[str] = ..., experiment_id: _Optional[str] = ..., variant: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ExplainedItem, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., method: _Optional[str] = ..., policy: _Optional[str] = ..., policy_hash: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[_events_pb2.PolicyStep, _Mapping]]] = ..., other_model_id: _Optional[str] = ..., prerank: _Optional[_Union[_events_pb2.PreRank, _Mapping]] = ..., propensity_draws: _Optional[int] = ...) -> None: ...

class ReproduceRequest(_message.Message):
    __slots__ = ("request_id", "record")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    record: bytes
    def __init__(self, request_id: _Optional[str] = ..., record: _Optional[bytes] = ...) -> None: ...

class ReproduceReply(_message.Message):
    __slots__ = ("request_id", "model_id", "model_sha256", "data_version", "policy", "policy_hash", "items", "candidates", "differences")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_HASH_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model_id: str
    model_sha256: str
    data_version: str
    policy: str
    policy_hash: str
    items: int
    candidates: int
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    def __init__(self, request_id: _Optional[str] = ..., model_id: _Optional[str] = ..., model_sha256: _Optional[str] = ..., data_version: _Optional[str] = ..., policy: _Optional[str] = ..., policy_hash: _Optional[str] = ..., items: _Optional[int] = ..., candidates: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class ExplainedItem(_message.Message):
    __slots__ = ("item_id", "logit", "pctr", "propensity", "contributions", "place", "propensity_error", "team", "sources")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    PCTR_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_ERROR_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    logit: float
    pctr: float
    propensity: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    place: int
    propensity_error: float
    team: int
    sources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_id: _Optional[str] = ..., logit: _Optional[float] = ..., pctr: _Optional[float] = ..., propensity: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., place: _Optional[int] = ..., propensity_error: _Optional[float] = ..., team: _Optional[int] = ..., sources: _Optional[_Iterable[str]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("feature", "value", "contribution")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    feature: str
    value: float
    contribution: float
    def __init__(self, feature: _Optional[str] = ..., value: _Optional[float] = ..., contribution: _Optional[float] = ...) -> None: ...
