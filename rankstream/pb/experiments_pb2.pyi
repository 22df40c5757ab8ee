from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExperimentStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPERIMENT_DRAFT: _ClassVar[ExperimentStatus]
    EXPERIMENT_RUNNING: _ClassVar[ExperimentStatus]
    EXPERIMENT_STOPPED: _ClassVar[ExperimentStatus]
EXPERIMENT_DRAFT: ExperimentStatus
EXPERIMENT_RUNNING: ExperimentStatus
EXPERIMENT_STOPPED: ExperimentStatus

class ExperimentDefinition(_message.Message):
    __slots__ = ("experiment_id", "version", "salt", "layer", "unit", "variants", "traffic_bp", "overrides", "status", "start_ms", "stop_ms", "control", "primary_metric", "layer_start_bp", "guardrails", "planned_lift")
    class OverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_BP_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    STOP_MS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_METRIC_FIELD_NUMBER: _ClassVar[int]
    LAYER_START_BP_FIELD_NUMBER: _ClassVar[int]
    GUARDRAILS_FIELD_NUMBER: _ClassVar[int]
    PLANNED_LIFT_FIELD_NUMBER: _ClassVar[int]
    experiment_id: str
    version: int
    salt: str
    layer: str
    unit: str
    variants: _containers.RepeatedCompositeFieldContainer[VariantDefinition]
    traffic_bp: int
    overrides: _containers.ScalarMap[str, str]
    status: ExperimentStatus
    start_ms: int
    stop_ms: int
    control: str
    primary_metric: str
    layer_start_bp: int
    guardrails: _containers.RepeatedScalarFieldContainer[str]
    planned_lift: float
    def __init__(self, experiment_id: _Optional[str] = ..., version: _Optional[int] = ..., salt: _Optional[str] = ..., layer: _Optional[str] = ..., unit: _Optional[str] = ..., variants: _Optional[_Iterable[_Union[VariantDefinition, _Mapping]]] = ..., traffic_bp: _Optional[int] = ..., overrides: _Optional[_Mapping[str, str]] = ..., status: _Optional[_Union[ExperimentStatus, str]] = ..., start_ms: _Optional[int] = ..., stop_ms: _Optional[int] = ..., control: _Optional[str] = ..., primary_metric: _Optional[str] = ..., layer_start_bp: _Optional[int] = ..., guardrails: _Optional[_Iterable[str]] = ..., planned_lift: _Optional[float] = ...) -> None: ...

class VariantDefinition(_message.Message):
    __slots__ = ("name", "weight_bp", "model", "policy", "interleave_with")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    INTERLEAVE_WITH_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight_bp: int
    model: str
    policy: str
    interleave_with: str
    def __init__(self, name: _Optional[str] = ..., weight_bp: _Optional[int] = ..., model: _Optional[str] = ..., policy: _Optional[str] = ..., interleave_with: _Optional[str] = ...) -> None: ...
