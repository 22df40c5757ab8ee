from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_IMPRESSION: _ClassVar[Kind]
    KIND_CLICK: _ClassVar[Kind]
    KIND_VIEW: _ClassVar[Kind]
    KIND_VISIT: _ClassVar[Kind]
    KIND_RATE: _ClassVar[Kind]
    KIND_PURCHASE: _ClassVar[Kind]
    KIND_USER_UPDATE: _ClassVar[Kind]
    KIND_CONTEXT: _ClassVar[Kind]
    KIND_TICK: _ClassVar[Kind]

class LabelStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_ABSENT: _ClassVar[LabelStatus]
    LABEL_PROVISIONAL: _ClassVar[LabelStatus]
    LABEL_FINAL: _ClassVar[LabelStatus]
KIND_UNSPECIFIED: Kind
KIND_IMPRESSION: Kind
KIND_CLICK: Kind
KIND_VIEW: Kind
KIND_VISIT: Kind
KIND_RATE: Kind
KIND_PURCHASE: Kind
KIND_USER_UPDATE: Kind
KIND_CONTEXT: Kind
KIND_TICK: Kind
LABEL_ABSENT: LabelStatus
LABEL_PROVISIONAL: LabelStatus
LABEL_FINAL: LabelStatus

class EventBatch(_message.Message):
    __slots__ = ("strings", "kind", "event_id", "event_time_ms", "user_id", "item_id", "request_id", "position", "value", "category", "currency", "session_id", "device", "query", "location", "attribute_row", "attribute_name", "attribute_text", "attribute_number")
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_ROW_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    strings: _containers.RepeatedScalarFieldContainer[str]
    kind: _containers.RepeatedScalarFieldContainer[Kind]
    event_id: bytes
    event_time_ms: _containers.RepeatedScalarFieldContainer[int]
    user_id: _containers.RepeatedScalarFieldContainer[int]
    item_id: _containers.RepeatedScalarFieldContainer[int]
    request_id: _containers.RepeatedScalarFieldContainer[int]
    position: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[float]
    category: _containers.RepeatedScalarFieldContainer[int]
    currency: _containers.RepeatedScalarFieldContainer[int]
    session_id: _containers.RepeatedScalarFieldContainer[int]
    device: _containers.RepeatedScalarFieldContainer[int]
    query: _containers.RepeatedScalarFieldContainer[int]
    location: _containers.RepeatedScalarFieldContainer[int]
    attribute_row: _containers.RepeatedScalarFieldContainer[int]
    attribute_name: _containers.RepeatedScalarFieldContainer[int]
    attribute_text: _containers.RepeatedScalarFieldContainer[int]
    attribute_number: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, strings: _Optional[_Iterable[str]] = ..., kind: _Optional[_Iterable[_Union[Kind, str]]] = ..., event_id: _Optional[bytes] = ..., event_time_ms: _Optional[_Iterable[int]] = ..., user_id: _Optional[_Iterable[int]] = ..., item_id: _Optional[_Iterable[int]] = ..., request_id: _Optional[_Iterable[int]] = ..., position: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[float]] = ..., category: _Optional[_Iterable[int]] = ..., currency: _Optional[_Iterable[int]] = ..., session_id: _Optional[_Iterable[int]] = ..., device: _Optional[_Iterable[int]] = ..., query: _Optional[_Iterable[int]] = ..., location: _Optional[_Iterable[int]] = ..., attribute_row: _Optional[_Iterable[int]] = ..., attribute_name: _Optional[_Iterable[int]] = ..., attribute_text: _Optional[_Iterable[int]] = ..., attribute_number: _Optional[_Iterable[float]] = ...) -> None: ...

class EventBatchView(_message.Message):
    __slots__ = ("strings", "kind", "event_id", "event_time_ms", "user_id", "item_id", "request_id", "position", "value", "category", "currency", "session_id", "device", "query", "location", "attribute_row", "attribute_name", "attribute_text", "attribute_number")
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_ROW_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    strings: _containers.RepeatedScalarFieldContainer[str]
    kind: bytes
    event_id: bytes
    event_time_ms: bytes
    user_id: bytes
    item_id: bytes
    request_id: bytes
    position: bytes
    value: bytes
    category: bytes
    currency: bytes
    session_id: bytes
    device: bytes
    query: bytes
    location: bytes
    attribute_row: bytes
    attribute_name: bytes
    attribute_text: bytes
    attribute_number: bytes
    def __init__(self, strings: _Optional[_Iterable[str]] = ..., kind: _Optional[bytes] = ..., event_id: _Optional[bytes] = ..., event_time_ms: _Optional[bytes] = ..., user_id: _Optional[bytes] = ..., item_id: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., position: _Optional[bytes] = ..., value: _Optional[bytes] = ..., category: _Optional[bytes] = ..., currency: _Optional[bytes] = ..., session_id: _Optional[bytes] = ..., device: _Optional[bytes] = ..., query: _Optional[bytes] = ..., location: _Optional[bytes] = ..., attribute_row: _Optional[bytes] = ..., attribute_name: _Optional[bytes] = ..., attribute_text: _Optional[bytes] = ..., attribute_number: _Optional[bytes] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "category", "withdrawn", "updated_ms", "attributes", "title", "description", "tags")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    category: str
    withdrawn: bool
    updated_ms: int
    attributes: _containers.ScalarMap[str, float]
    title: str
    description: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_id: _Optional[str] = ..., category: _Optional[str] = ..., withdrawn: _Optional[bool] = ..., updated_ms: _Optional[int] = ..., attributes: _Optional[_Mapping[str, float]] = ..., title: _Optional[str] = ..., description: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class FeatureUpdates(_message.Message):
    __slots__ = ("source_partition", "source_offset", "strings", "entity", "key", "event_time_ms", "impressions", "clicks", "views", "purchases", "value_micros", "ratings", "rating_micros")
    class Entity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENTITY_UNSPECIFIED: _ClassVar[FeatureUpdates.Entity]
        ENTITY_ITEM: _ClassVar[FeatureUpdates.Entity]
        ENTITY_CATEGORY: _ClassVar[FeatureUpdates.Entity]
        ENTITY_QUERY: _ClassVar[FeatureUpdates.Entity]
        ENTITY_LOCATION: _ClassVar[FeatureUpdates.Entity]
    ENTITY_UNSPECIFIED: FeatureUpdates.Entity
    ENTITY_ITEM: FeatureUpdates.Entity
    ENTITY_CATEGORY: FeatureUpdates.Entity
    ENTITY_QUERY: FeatureUpdates.Entity
    ENTITY_LOCATION: FeatureUpdates.Entity
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    PURCHASES_FIELD_NUMBER: _ClassVar[int]
    VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    RATINGS_FIELD_NUMBER: _ClassVar[int]
    RATING_MICROS_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    source_offset: int
    strings: _containers.RepeatedScalarFieldContainer[str]
    entity: _containers.RepeatedScalarFieldContainer[FeatureUpdates.Entity]
    key: _containers.RepeatedScalarFieldContainer[int]
    event_time_ms: _containers.RepeatedScalarFieldContainer[int]
    impressions: _containers.RepeatedScalarFieldContainer[int]
    clicks: _containers.RepeatedScalarFieldContainer[int]
    views: _containers.RepeatedScalarFieldContainer[int]
    purchases: _containers.RepeatedScalarFieldContainer[int]
    value_micros: _containers.RepeatedScalarFieldContainer[int]
    ratings: _containers.RepeatedScalarFieldContainer[int]
    rating_micros: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., strings: _Optional[_Iterable[str]] = ..., entity: _Optional[_Iterable[_Union[FeatureUpdates.Entity, str]]] = ..., key: _Optional[_Iterable[int]] = ..., event_time_ms: _Optional[_Iterable[int]] = ..., impressions: _Optional[_Iterable[int]] = ..., clicks: _Optional[_Iterable[int]] = ..., views: _Optional[_Iterable[int]] = ..., purchases: _Optional[_Iterable[int]] = ..., value_micros: _Optional[_Iterable[int]] = ..., ratings: _Optional[_Iterable[int]] = ..., rating_micros: _Optional[_Iterable[int]] = ...) -> None: ...

class FeatureUpdatesView(_message.Message):
    __slots__ = ("source_partition", "source_offset", "strings", "entity", "key", "event_time_ms", "impressions", "clicks", "views", "purchases", "value_micros", "ratings", "rating_micros")
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    PURCHASES_FIELD_NUMBER: _ClassVar[int]
    VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    RATINGS_FIELD_NUMBER: _ClassVar[int]
    RATING_MICROS_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    source_offset: int
    strings: _containers.RepeatedScalarFieldContainer[str]
    entity: bytes
    key: bytes
    event_time_ms: bytes
    impressions: bytes
    clicks: bytes
    views: bytes
    purchases: bytes
    value_micros: bytes
    ratings: bytes
    rating_micros: bytes
    def __init__(self, source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., strings: _Optional[_Iterable[str]] = ..., entity: _Optional[bytes] = ..., key: _Optional[bytes] = ..., event_time_ms: _Optional[bytes] = ..., impressions: _Optional[bytes] = ..., clicks: _Optional[bytes] = ..., views: _Optional[bytes] = ..., purchases: _Optional[bytes] = ..., value_micros: _Optional[bytes] = ..., ratings: _Optional[bytes] = ..., rating_micros: _Optional[bytes] = ...) -> None: ...

class LabelBatch(_message.Message):
    __slots__ = ("source_partition", "source_offset", "strings", "user_id", "item_id", "request_id", "impression_time_ms", "position", "old_status", "new_status", "old_clicked", "new_clicked", "old_purchased", "new_purchased", "old_value_micros", "new_value_micros", "watermark_ms", "first_offset")
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    OLD_STATUS_FIELD_NUMBER: _ClassVar[int]
    NEW_STATUS_FIELD_NUMBER: _ClassVar[int]
    OLD_CLICKED_FIELD_NUMBER: _ClassVar[int]
    NEW_CLICKED_FIELD_NUMBER: _ClassVar[int]
    OLD_PURCHASED_FIELD_NUMBER: _ClassVar[int]
    NEW_PURCHASED_FIELD_NUMBER: _ClassVar[int]
    OLD_VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    NEW_VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    source_offset: int
    strings: _containers.RepeatedScalarFieldContainer[str]
    user_id: _containers.RepeatedScalarFieldContainer[int]
    item_id: _containers.RepeatedScalarFieldContainer[int]
    request_id: _containers.RepeatedScalarFieldContainer[int]
    impression_time_ms: _containers.RepeatedScalarFieldContainer[int]
    position: _containers.RepeatedScalarFieldContainer[int]
    old_status: _containers.RepeatedScalarFieldContainer[LabelStatus]
    new_status: _containers.RepeatedScalarFieldContainer[LabelStatus]
    old_clicked: _containers.RepeatedScalarFieldContainer[int]
    new_clicked: _containers.RepeatedScalarFieldContainer[int]
    old_purchased: _containers.RepeatedScalarFieldContainer[int]
    new_purchased: _containers.RepeatedScalarFieldContainer[int]
    old_value_micros: _containers.RepeatedScalarFieldContainer[int]
    new_value_micros: _containers.RepeatedScalarFieldContainer[int]
    watermark_ms: int
    first_offset: int
    def __init__(self, source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., strings: _Optional[_Iterable[str]] = ..., user_id: _Optional[_Iterable[int]] = ..., item_id: _Optional[_Iterable[int]] = ..., request_id: _Optional[_Iterable[int]] = ..., impression_time_ms: _Optional[_Iterable[int]] = ..., position: _Optional[_Iterable[int]] = ..., old_status: _Optional[_Iterable[_Union[LabelStatus, str]]] = ..., new_status: _Optional[_Iterable[_Union[LabelStatus, str]]] = ..., old_clicked: _Optional[_Iterable[int]] = ..., new_clicked: _Optional[_Iterable[int]] = ..., old_purchased: _Optional[_Iterable[int]] = ..., new_purchased: _Optional[_Iterable[int]] = ..., old_value_micros: _Optional[_Iterable[int]] = ..., new_value_micros: _Optional[_Iterable[int]] = ..., watermark_ms: _Optional[int] = ..., first_offset: _Optional[int] = ...) -> None: ...

class LabelBatchView(_message.Message):
    __slots__ = ("source_partition", "source_offset", "strings", "user_id", "item_id", "request_id", "impression_time_ms", "position", "old_status", "new_status", "old_clicked", "new_clicked", "old_purchased", "new_purchased", "old_value_micros", "new_value_micros", "watermark_ms", "first_offset")
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    OLD_STATUS_FIELD_NUMBER: _ClassVar[int]
    NEW_STATUS_FIELD_NUMBER: _ClassVar[int]
    OLD_CLICKED_FIELD_NUMBER: _ClassVar[int]
    NEW_CLICKED_FIELD_NUMBER: _ClassVar[int]
    OLD_PURCHASED_FIELD_NUMBER: _ClassVar[int]
    NEW_PURCHASED_FIELD_NUMBER: _ClassVar[int]
    OLD_VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    NEW_VALUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    source_offset: int
    strings: _containers.RepeatedScalarFieldContainer[str]
    user_id: bytes
    item_id: bytes
    request_id: bytes
    impression_time_ms: bytes
    position: bytes
    old_status: bytes
    new_status: bytes
    old_clicked: bytes
    new_clicked: bytes
    old_purchased: bytes
    new_purchased: bytes
    old_value_micros: bytes
    new_value_micros: bytes
    watermark_ms: int
    first_offset: int
    def __init__(self, source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., strings: _Optional[_Iterable[str]] = ..., user_id: _Optional[bytes] = ..., item_id: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., impression_time_ms: _Optional[bytes] = ..., position: _Optional[bytes] = ..., old_status: _Optional[bytes] = ..., new_status: _Optional[bytes] = ..., old_clicked: _Optional[bytes] = ..., new_clicked: _Optional[bytes] = ..., old_purchased: _Optional[bytes] = ..., new_purchased: _Optional[bytes] = ..., old_value_micros: _Optional[bytes] = ..., new_value_micros: _Optional[bytes] = ..., watermark_ms: _Optional[int] = ..., first_offset: _Optional[int] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("source_partition", "source_offset", "user_id", "start_ms", "end_ms", "events", "impressions", "clicks", "purchases")
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    PURCHASES_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    source_offset: int
    user_id: str
    start_ms: int
    end_ms: int
    events: int
    impressions: int
    clicks: int
    purchases: int
    def __init__(self, source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., user_id: _Optional[str] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., events: _Optional[int] = ..., impressions: _Optional[int] = ..., clicks: _Optional[int] = ..., purchases: _Optional[int] = ...) -> None: ...

class Stamp(_message.Message):
    __slots__ = ("partition", "offset", "items_offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ITEMS_OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    items_offset: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., items_offset: _Optional[int] = ...) -> None: ...

class PolicyStep(_message.Message):
    __slots__ = ("name", "slot", "before", "after", "removed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    slot: _containers.RepeatedScalarFieldContainer[int]
    before: _containers.RepeatedScalarFieldContainer[int]
    after: _containers.RepeatedScalarFieldContainer[int]
    removed: int
    def __init__(self, name: _Optional[str] = ..., slot: _Optional[_Iterable[int]] = ..., before: _Optional[_Iterable[int]] = ..., after: _Optional[_Iterable[int]] = ..., removed: _Optional[int] = ...) -> None: ...

class PolicyFacts(_message.Message):
    __slots__ = ("config", "preference", "pctr", "category", "category_name", "attribute", "impressions", "clicks", "category_impressions", "category_clicks", "item_id")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    PCTR_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_CLICKS_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    config: str
    preference: bytes
    pctr: bytes
    category: _containers.RepeatedScalarFieldContainer[int]
    category_name: _containers.RepeatedScalarFieldContainer[str]
    attribute: bytes
    impressions: _containers.RepeatedScalarFieldContainer[int]
    clicks: _containers.RepeatedScalarFieldContainer[int]
    category_impressions: _containers.RepeatedScalarFieldContainer[int]
    category_clicks: _containers.RepeatedScalarFieldContainer[int]
    item_id: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config: _Optional[str] = ..., preference: _Optional[bytes] = ..., pctr: _Optional[bytes] = ..., category: _Optional[_Iterable[int]] = ..., category_name: _Optional[_Iterable[str]] = ..., attribute: _Optional[bytes] = ..., impressions: _Optional[_Iterable[int]] = ..., clicks: _Optional[_Iterable[int]] = ..., category_impressions: _Optional[_Iterable[int]] = ..., category_clicks: _Optional[_Iterable[int]] = ..., item_id: _Optional[_Iterable[str]] = ...) -> None: ...

class Interleaving(_message.Message):
    __slots__ = ("model_id", "model_sha256", "team", "logit", "first", "second", "facts")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    model_sha256: str
    team: _containers.RepeatedScalarFieldContainer[int]
    logit: _containers.RepeatedScalarFieldContainer[float]
    first: _containers.RepeatedScalarFieldContainer[int]
    second: _containers.RepeatedScalarFieldContainer[int]
    facts: PolicyFacts
    def __init__(self, model_id: _Optional[str] = ..., model_sha256: _Optional[str] = ..., team: _Optional[_Iterable[int]] = ..., logit: _Optional[_Iterable[float]] = ..., first: _Optional[_Iterable[int]] = ..., second: _Optional[_Iterable[int]] = ..., facts: _Optional[_Union[PolicyFacts, _Mapping]] = ...) -> None: ...

class PreRank(_message.Message):
    __slots__ = ("model_id", "model_sha256", "before", "cut", "score")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    model_sha256: str
    before: int
    cut: float
    score: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model_id: _Optional[str] = ..., model_sha256: _Optional[str] = ..., before: _Optional[int] = ..., cut: _Optional[float] = ..., score: _Optional[_Iterable[float]] = ...) -> None: ...

class ServedSlate(_message.Message):
    __slots__ = ("request_id", "user_id", "served_time_ms", "item_id", "category", "logit", "pctr", "propensity", "features", "spec_id", "model_id", "index_id", "policy", "experiment_id", "experiment_version", "variant", "user_stamp", "item_stamp", "category_stamp", "degraded", "candidates", "device", "query", "location", "query_stamp", "location_stamp", "model_sha256", "data_version", "policy_hash", "policy_salt", "slots", "candidate", "place", "step", "propensity_error", "propensity_draws", "facts", "interleaving", "source_name", "named_by", "prerank", "rating_table")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    PCTR_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SPEC_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    USER_STAMP_FIELD_NUMBER: _ClassVar[int]
    ITEM_STAMP_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_STAMP_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    QUERY_STAMP_FIELD_NUMBER: _ClassVar[int]
    LOCATION_STAMP_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_HASH_FIELD_NUMBER: _ClassVar[int]
    POLICY_SALT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_ERROR_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_DRAWS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    INTERLEAVING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAMED_BY_FIELD_NUMBER: _ClassVar[int]
    PRERANK_FIELD_NUMBER: _ClassVar[int]
    RATING_TABLE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    served_time_ms: int
    item_id: _containers.RepeatedScalarFieldContainer[str]
    category: _containers.RepeatedScalarFieldContainer[str]
    logit: _containers.RepeatedScalarFieldContainer[float]
    pctr: _containers.RepeatedScalarFieldContainer[float]
    propensity: _containers.RepeatedScalarFieldContainer[float]
    features: bytes
    spec_id: str
    model_id: str
    index_id: str
    policy: str
    experiment_id: str
    experiment_version: int
    variant: str
    user_stamp: Stamp
    item_stamp: _containers.RepeatedCompositeFieldContainer[Stamp]
    category_stamp: _containers.RepeatedCompositeFieldContainer[Stamp]
    degraded: _containers.RepeatedScalarFieldContainer[str]
    candidates: int
    device: str
    query: str
    location: str
    query_stamp: Stamp
    location_stamp: Stamp
    model_sha256: str
    data_version: str
    policy_hash: str
    policy_salt: str
    slots: int
    candidate: _containers.RepeatedScalarFieldContainer[int]
    place: _containers.RepeatedScalarFieldContainer[int]
    step: _containers.RepeatedCompositeFieldContainer[PolicyStep]
    propensity_error: _containers.RepeatedScalarFieldContainer[float]
    propensity_draws: int
    facts: PolicyFacts
    interleaving: Interleaving
    source_name: _containers.RepeatedScalarFieldContainer[str]
    named_by: _containers.RepeatedScalarFieldContainer[int]
    prerank: PreRank
    rating_table: str
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., served_time_ms: _Optional[int] = ..., item_id: _Optional[_Iterable[str]] = ..., category: _Optional[_Iterable[str]] = ..., logit: _Optional[_Iterable[float]] = ..., pctr: _Optional[_Iterable[float]] = ..., propensity: _Optional[_Iterable[float]] = ..., features: _Optional[bytes] = ..., spec_id: _Optional[str] = ..., model_id: _Optional[str] = ..., index_id: _Optional[str] = ..., policy: _Optional[str] = ..., experiment_id: _Optional[str] = ..., experiment_version: _Optional[int] = ..., variant: _Optional[str] = ..., user_stamp: _Optional[_Union[Stamp, _Mapping]] = ..., item_stamp: _Optional[_Iterable[_Union[Stamp, _Mapping]]] = ..., category_stamp: _Optional[_Iterable[_Union[Stamp, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., candidates: _Optional[int] = ..., device: _Optional[str] = ..., query: _Optional[str] = ..., location: _Optional[str] = ..., query_stamp: _Optional[_Union[Stamp, _Mapping]] = ..., location_stamp: _Optional[_Union[Stamp, _Mapping]] = ..., model_sha256: _Optional[str] = ..., data_version: _Optional[str] = ..., policy_hash: _Optional[str] = ..., policy_salt: _Optional[str] = ..., slots: _Optional[int] = ..., candidate: _Optional[_Iterable[int]] = ..., place: _Optional[_Iterable[int]] = ..., step: _Optional[_Iterable[_Union[PolicyStep, _Mapping]]] = ..., propensity_error: _Optional[_Iterable[float]] = ..., propensity_draws: _Optional[int] = ..., facts: _Optional[_Union[PolicyFacts, _Mapping]] = ..., interleaving: _Optional[_Union[Interleaving, _Mapping]] = ..., source_name: _Optional[_Iterable[str]] = ..., named_by: _Optional[_Iterable[int]] = ..., prerank: _Optional[_Union[PreRank, _Mapping]] = ..., rating_table: _Optional[str] = ...) -> None: ...

class ShadowSlate(_message.Message):
    __slots__ = ("request_id", "user_id", "served_time_ms", "model_id", "shadow_model_id", "slots", "candidates", "item_id", "pctr", "shadow_pctr", "place", "shadow_place", "score_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    PCTR_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PCTR_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PLACE_FIELD_NUMBER: _ClassVar[int]
    SCORE_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    served_time_ms: int
    model_id: str
    shadow_model_id: str
    slots: int
    candidates: int
    item_id: _containers.RepeatedScalarFieldContainer[str]
    pctr: _containers.RepeatedScalarFieldContainer[float]
    shadow_pctr: _containers.RepeatedScalarFieldContainer[float]
    place: _containers.RepeatedScalarFieldContainer[int]
    shadow_place: _containers.RepeatedScalarFieldContainer[int]
    score_ms: float
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., served_time_ms: _Optional[int] = ..., model_id: _Optional[str] = ..., shadow_model_id: _Optional[str] = ..., slots: _Optional[int] = ..., candidates: _Optional[int] = ..., item_id: _Optional[_Iterable[str]] = ..., pctr: _Optional[_Iterable[float]] = ..., shadow_pctr: _Optional[_Iterable[float]] = ..., place: _Optional[_Iterable[int]] = ..., shadow_place: _Optional[_Iterable[int]] = ..., score_ms: _Optional[float] = ...) -> None: ...

class Exposure(_message.Message):
    __slots__ = ("experiment_id", "experiment_version", "variant", "unit", "bucket", "exposure_time_ms", "request_id", "overridden")
    EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OVERRIDDEN_FIELD_NUMBER: _ClassVar[int]
    experiment_id: str
    experiment_version: int
    variant: str
    unit: str
    bucket: int
    exposure_time_ms: int
    request_id: str
    overridden: bool
    def __init__(self, experiment_id: _Optional[str] = ..., experiment_version: _Optional[int] = ..., variant: _Optional[str] = ..., unit: _Optional[str] = ..., bucket: _Optional[int] = ..., exposure_time_ms: _Optional[int] = ..., request_id: _Optional[str] = ..., overridden: _Optional[bool] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("dead_letter_id", "code", "reason", "original", "original_key", "source", "topic", "partition", "offset", "rows", "refused_ms", "content_type", "events", "headers", "replay")
    class Header(_message.Message):
        __slots__ = ("name", "value")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: bytes
        def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class Replay(_message.Message):
        __slots__ = ("events", "refused", "to")
        EVENTS_FIELD_NUMBER: _ClassVar[int]
        REFUSED_FIELD_NUMBER: _ClassVar[int]
        TO_FIELD_NUMBER: _ClassVar[int]
        events: int
        refused: int
        to: str
        def __init__(self, events: _Optional[int] = ..., refused: _Optional[int] = ..., to: _Optional[str] = ...) -> None: ...
    DEAD_LETTER_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_KEY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_MS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    dead_letter_id: str
    code: str
    reason: str
    original: bytes
    original_key: bytes
    source: str
    topic: str
    partition: int
    offset: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    refused_ms: int
    content_type: str
    events: int
    headers: _containers.RepeatedCompositeFieldContainer[DeadLetter.Header]
    replay: DeadLetter.Replay
    def __init__(self, dead_letter_id: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., original: _Optional[bytes] = ..., original_key: _Optional[bytes] = ..., source: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., refused_ms: _Optional[int] = ..., content_type: _Optional[str] = ..., events: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[DeadLetter.Header, _Mapping]]] = ..., replay: _Optional[_Union[DeadLetter.Replay, _Mapping]] = ...) -> None: ...

class ModelPointer(_message.Message):
    __slots__ = ("role", "alias", "model_id", "uri", "sha256", "updated_ms")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    role: str
    alias: str
    model_id: str
    uri: str
    sha256: str
    updated_ms: int
    def __init__(self, role: _Optional[str] = ..., alias: _Optional[str] = ..., model_id: _Optional[str] = ..., uri: _Optional[str] = ..., sha256: _Optional[str] = ..., updated_ms: _Optional[int] = ...) -> None: ...
