"""What the class of an error carries for those who answer: wire numbers, and whose fault it is."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Code(IntEnum):
    """gRPC status numbers, so that this module need not import grpc."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class VortexCode(IntEnum):
    """The byte that an ERROR frame opens with."""

    UNKNOWN = 0
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    INTERNAL = 3


class Blame(StrEnum):
    """Whose fault an error is. What others do about it depends on that."""

    #: This node's, or its cluster's: no descriptors, no room, no name server, a bug.
    LOCAL = "local"
    #: The caller's: what is asked for, or the credentials for it.
    CALLER = "caller"
    ORIGIN = "origin"
    PARENT = "parent"
