"""Who calls: an address, and the proof of a secret that the caller's daemon sends along."""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import unquote

import grpc.aio

from pantala.core.sched.entities import Caller
from pantala.rpc.parent_link import VERSION_KEY
from pantala.rpc.scheduler import SECRET_KEY
from pantala.rpc.service import machine_of

#: Callers on a unix socket are on this machine.
_HERE: Final = "local"


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """Who makes this call. Of a secret only the digest is kept."""
    sent = dict(context.invocation_metadata() or ()).get(SECRET_KEY)
    if sent is None:
        return Caller(address_of(context.peer()))
    secret = sent if isinstance(sent, bytes) else sent.encode()
    return Caller(address_of(context.peer()), hashlib.sha256(secret).digest())


def version_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The version that a peer has, or wants, if it says so; see its registration."""
    sent = dict(context.invocation_metadata() or ()).get(VERSION_KEY, "")
    return unquote(sent) if isinstance(sent, str) else ""


def address_of(peer: str) -> str:
    """The machine of a peer as gRPC names it.

    >>> [address_of(p) for p in ("ipv4:10.0.0.1:999", "ipv6:%5B::ffff:10.0.0.1%5D:999", "unix:")]
    ['10.0.0.1', '10.0.0.1', 'local']
    """
    return machine_of(peer) or _HERE
