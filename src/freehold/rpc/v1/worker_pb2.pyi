from freehold.rpc.v1 import messages_pb2 as _messages_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadRequest(_message.Message):
    __slots__ = ("path", "name", "weight_format")
    PATH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    path: str
    name: str
    weight_format: str
    def __init__(self, path: _Optional[str] = ..., name: _Optional[str] = ..., weight_format: _Optional[str] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("model", "error")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model: _messages_pb2.ModelInfo
    error: _messages_pb2.Error
    def __init__(self, model: _Optional[_Union[_messages_pb2.ModelInfo, _Mapping]] = ..., error: _Optional[_Union[_messages_pb2.Error, _Mapping]] = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadReply(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: _messages_pb2.Error
    def __init__(self, error: _Optional[_Union[_messages_pb2.Error, _Mapping]] = ...) -> None: ...
