"""The part of etcd's protocol that is used here: its messages, and its methods on a channel.

The messages are made when they are first needed, from a table, by protobuf itself. So there is no generated code, which
would be tied to the version of protobuf that generated it, and no compiler to run. Numbers and names are those of
``rpc.proto`` and ``kv.proto`` in etcd 3.4 to 3.6; fields that are left out of the table are skipped when they come.
"""

import importlib
from types import SimpleNamespace
from typing import Any

_MESSAGES = {
    # message: its fields as name:number:type; "*" is repeated, "?" one of a choice
    "Header": "revision:3:int64",
    "KeyValue": "key:1:bytes create_revision:2:int64 mod_revision:3:int64 version:4:int64 value:5:bytes lease:6:int64",
    "Event": "type:1:int64 kv:2:KeyValue",
    "RangeRequest": "key:1:bytes range_end:2:bytes limit:3:int64 revision:4:int64",
    "RangeResponse": "header:1:Header kvs:2:*KeyValue more:3:bool",
    "PutRequest": "key:1:bytes value:2:bytes lease:3:int64",
    "PutResponse": "header:1:Header",
    "DeleteRangeRequest": "key:1:bytes range_end:2:bytes",
    "DeleteRangeResponse": "header:1:Header deleted:2:int64",
    "Compare": "result:1:int64 target:2:int64 key:3:bytes version:4:?int64 value:7:?bytes",
    "RequestOp": "request_range:1:?RangeRequest request_put:2:?PutRequest request_delete_range:3:?DeleteRangeRequest",
    "ResponseOp": "response_range:1:?RangeResponse response_put:2:?PutResponse"
    " response_delete_range:3:?DeleteRangeResponse",
    "TxnRequest": "compare:1:*Compare success:2:*RequestOp failure:3:*RequestOp",
    "TxnResponse": "header:1:Header succeeded:2:bool responses:3:*ResponseOp",
    "WatchCreateRequest": "key:1:bytes range_end:2:bytes start_revision:3:int64",
    "WatchProgressRequest": "",
    "WatchRequest": "create_request:1:?WatchCreateRequest progress_request:3:?WatchProgressRequest",
    "WatchResponse": "header:1:Header watch_id:2:int64 created:3:bool canceled:4:bool compact_revision:5:int64"
    " cancel_reason:6:string events:11:*Event",
    "LeaseGrantRequest": "TTL:1:int64 ID:2:int64",
    "LeaseGrantResponse": "header:1:Header ID:2:int64 TTL:3:int64 error:4:string",
    "LeaseRevokeRequest": "ID:1:int64",
    "LeaseRevokeResponse": "header:1:Header",
    "LeaseKeepAliveRequest": "ID:1:int64",
    "LeaseKeepAliveResponse": "header:1:Header ID:2:int64 TTL:3:int64",
    "AuthenticateRequest": "name:1:string password:2:string",
    "AuthenticateResponse": "header:1:Header token:2:string",
}
_METHODS = {
    # as it is called here: path, request, response, whether both sides may go on talking
    "range": ("KV/Range", "RangeRequest", "RangeResponse", False),
    "txn": ("KV/Txn", "TxnRequest", "TxnResponse", False),
    "watch": ("Watch/Watch", "WatchRequest", "WatchResponse", True),
    "grant": ("Lease/LeaseGrant", "LeaseGrantRequest", "LeaseGrantResponse", False),
    "revoke": ("Lease/LeaseRevoke", "LeaseRevokeRequest", "LeaseRevokeResponse", False),
    "keep_alive": ("Lease/LeaseKeepAlive", "LeaseKeepAliveRequest", "LeaseKeepAliveResponse", True),
    "authenticate": ("Auth/Authenticate", "AuthenticateRequest", "AuthenticateResponse", False),
}
_PACKAGE = "kinfolk.etcd"

EQUAL, DELETED = 0, 1
VERSION, VALUE = 0, 3
"""Numbers of etcd's: a result and targets of a comparison, and a type of event."""


def messages() -> SimpleNamespace:
    """The message classes, by name.

    Raises:
        ImportError: protobuf is not installed.
    """
    pb2 = _module("google.protobuf.descriptor_pb2")
    field = pb2.FieldDescriptorProto
    file = pb2.FileDescriptorProto(name="kinfolk_etcd.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            word, number, kind = text.split(":")
            repeated, chosen, kind = kind.startswith("*"), kind.startswith("?"), kind.lstrip("*?")
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            made = message.field.add(name=word, number=int(number), label=label)
            if kind in _MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
            if chosen:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="choice")
                made.oneof_index = 0
    pool = _module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    classes = _module("google.protobuf.message_factory").GetMessageClassesForFiles([file.name], pool)
    return SimpleNamespace(**{name: classes[f"{_PACKAGE}.{name}"] for name in _MESSAGES})


def methods(channel: Any, known: SimpleNamespace) -> SimpleNamespace:
    """etcd's methods on a channel of `grpc.aio`, with these message classes."""
    made: dict[str, Any] = {}
    for name, (path, request, response, talks) in _METHODS.items():
        kind = channel.stream_stream if talks else channel.unary_unary
        made[name] = kind(
            f"/etcdserverpb.{path}",
            request_serializer=getattr(known, request).SerializeToString,
            response_deserializer=getattr(known, response).FromString,
        )
    return SimpleNamespace(**made)


def grpc() -> Any:
    """The module `grpc`.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    return _module("grpc")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = "names in etcd need the packages grpcio and protobuf: install kinfolk with pip install 'kinfolk[etcd]'"
        raise ImportError(f"{text} ({error})") from error


def module_of_errors() -> Any:
    """The module `grpc.aio`."""
    return _module("grpc.aio")
