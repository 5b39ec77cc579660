"""Our protocol files against the v2 contract: nothing missing, nothing different, nothing extra.

``dragonfly-v2.json`` is that contract as data: packages, enums, messages with their field
numbers, names, types and labels, reserved numbers, and RPCs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from pantala.pb import common_pb2, dfdaemon_pb2, errordetails_pb2, manager_pb2, scheduler_pb2

CONTRACT: dict[str, Any] = json.loads(Path(__file__).with_name("dragonfly-v2.json").read_text())

OURS: dict[str, FileDescriptor] = {
    "common.proto": common_pb2.DESCRIPTOR,
    "dfdaemon.proto": dfdaemon_pb2.DESCRIPTOR,
    "errordetails.proto": errordetails_pb2.DESCRIPTOR,
    "manager.proto": manager_pb2.DESCRIPTOR,
    "scheduler.proto": scheduler_pb2.DESCRIPTOR,
}

#: Fields that we add to messages of the contract; their meaning is that of the same names in
#: SyncPiecesResponse.
ADDED = {
    ("dfdaemon.proto", "SyncCachePiecesResponse"): {
        "4": ["ip", "optional string"],
        "5": ["tcp_port", "optional int32"],
        "6": ["quic_port", "optional int32"],
    }
}

SCALARS = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}


def read(file: FileDescriptor) -> FileDescriptorProto:
    """*file* as a message, which says more than the descriptor does."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def type_of(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    """A field's type, as the contract writes it."""
    name = field.type_name.removeprefix(".")
    entry = entries.get(name.rpartition(".")[2])
    if entry is not None:
        key, value = (type_of(half, {}) for half in entry.field)
        return f"map<{key}, {value}>"
    return name or SCALARS[field.type]


def describe_field(field: FieldDescriptorProto, message: DescriptorProto) -> list[str]:
    """A field's name, and its type with its label."""
    entries = {nested.name: nested for nested in message.nested_type}
    text = type_of(field, entries)
    if field.proto3_optional:
        text = f"optional {text}"
    elif field.HasField("oneof_index"):
        text = f"oneof {message.oneof_decl[field.oneof_index].name}: {text}"
    elif field.label == FieldDescriptorProto.LABEL_REPEATED and not text.startswith("map<"):
        text = f"repeated {text}"
    return [field.name, text]


def describe_message(message: DescriptorProto) -> dict[str, Any]:
    """A message's fields by number, and its reserved numbers, both ends included."""
    found: dict[str, Any] = {
        "fields": {str(field.number): describe_field(field, message) for field in message.field}
    }
    if message.reserved_range:
        found["reserved"] = [[range_.start, range_.end - 1] for range_ in message.reserved_range]
    return found


def describe_enum(enum: EnumDescriptorProto) -> dict[str, int]:
    """An enum's numbers by name."""
    return {value.name: value.number for value in enum.value}


def describe_service(service: ServiceDescriptorProto) -> dict[str, str]:
    """A service's methods, as the contract writes them."""
    return {
        method.name: f"{'stream ' * method.client_streaming}{method.input_type[1:]}"
        f" -> {'stream ' * method.server_streaming}{method.output_type[1:]}"
        for method in service.method
    }


def contract_of(name: str) -> dict[str, Any]:
    """What the contract says of messages, with our additions."""
    messages: dict[str, Any] = json.loads(json.dumps(CONTRACT[name]["messages"]))
    for (file, message), fields in ADDED.items():
        if file == name:
            messages[message]["fields"] |= fields
    return messages


def test_every_file_of_the_contract_is_here() -> None:
    """And is compared."""
    assert OURS.keys() == CONTRACT.keys()


@pytest.mark.parametrize("name", OURS)
def test_messages(name: str) -> None:
    """Each field's number, name, type, label and oneof; each reserved number."""
    found = {message.name: describe_message(message) for message in read(OURS[name]).message_type}

    assert found == contract_of(name)


@pytest.mark.parametrize("name", OURS)
def test_package_enums_and_services(name: str) -> None:
    """Each number and each RPC, with its types and streams."""
    proto = read(OURS[name])

    assert proto.package == CONTRACT[name]["package"]
    assert {enum.name: describe_enum(enum) for enum in proto.enum_type} == CONTRACT[name]["enums"]
    assert {service.name: describe_service(service) for service in proto.service} == CONTRACT[name][
        "services"
    ]


@pytest.mark.parametrize("name", OURS)
def test_nothing_hides_where_the_contract_cannot_see(name: str) -> None:
    """No nested types but the entries of maps, no reserved names, no extensions."""
    proto = read(OURS[name])

    assert not proto.extension
    for message in proto.message_type:
        assert all(nested.options.map_entry for nested in message.nested_type), message.name
        assert not message.enum_type, message.name
        assert not message.reserved_name, message.name
        assert not message.extension_range, message.name
