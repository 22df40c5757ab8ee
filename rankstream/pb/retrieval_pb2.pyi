from rankstream.pb import filter_pb2 as _filter_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveRequest(_message.Message):
    __slots__ = ("request_id", "recent_items", "k", "exclude_item_ids", "exclude_items", "filter", "place")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEMS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    recent_items: _containers.RepeatedScalarFieldContainer[int]
    k: int
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    exclude_items: _containers.RepeatedScalarFieldContainer[int]
    filter: _filter_pb2.ItemFilter
    place: _filter_pb2.Place
    def __init__(self, request_id: _Optional[str] = ..., recent_items: _Optional[_Iterable[int]] = ..., k: _Optional[int] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., exclude_items: _Optional[_Iterable[int]] = ..., filter: _Optional[_Union[_filter_pb2.ItemFilter, _Mapping]] = ..., place: _Optional[_Union[_filter_pb2.Place, _Mapping]] = ...) -> None: ...

class RetrieveReply(_message.Message):
    __slots__ = ("item_id", "similarity", "index_id", "degraded", "source", "source_name", "named_by")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    NAMED_BY_FIELD_NUMBER: _ClassVar[int]
    item_id: _containers.RepeatedScalarFieldContainer[str]
    similarity: _containers.RepeatedScalarFieldContainer[float]
    index_id: str
    degraded: _containers.RepeatedScalarFieldContainer[str]
    source: str
    source_name: _containers.RepeatedScalarFieldContainer[str]
    named_by: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, item_id: _Optional[_Iterable[str]] = ..., similarity: _Optional[_Iterable[float]] = ..., index_id: _Optional[str] = ..., degraded: _Optional[_Iterable[str]] = ..., source: _Optional[str] = ..., source_name: _Optional[_Iterable[str]] = ..., named_by: _Optional[_Iterable[int]] = ...) -> None: ...

class ShardReply(_message.Message):
    __slots__ = ("shard", "shards", "sources", "index_id", "items", "left", "degraded", "found", "fallback", "row", "item_id")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    shard: int
    shards: int
    sources: bytes
    index_id: str
    items: int
    left: int
    degraded: _containers.RepeatedScalarFieldContainer[str]
    found: _containers.RepeatedCompositeFieldContainer[SourceFound]
    fallback: _containers.RepeatedCompositeFieldContainer[SourceFound]
    row: bytes
    item_id: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shard: _Optional[int] = ..., shards: _Optional[int] = ..., sources: _Optional[bytes] = ..., index_id: _Optional[str] = ..., items: _Optional[int] = ..., left: _Optional[int] = ..., degraded: _Optional[_Iterable[str]] = ..., found: _Optional[_Iterable[_Union[SourceFound, _Mapping]]] = ..., fallback: _Optional[_Iterable[_Union[SourceFound, _Mapping]]] = ..., row: _Optional[bytes] = ..., item_id: _Optional[_Iterable[str]] = ...) -> None: ...

class SourceFound(_message.Message):
    __slots__ = ("source", "share", "row", "score")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    source: str
    share: float
    row: bytes
    score: bytes
    def __init__(self, source: _Optional[str] = ..., share: _Optional[float] = ..., row: _Optional[bytes] = ..., score: _Optional[bytes] = ...) -> None: ...
