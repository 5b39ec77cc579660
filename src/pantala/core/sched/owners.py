"""Whose a host is: what is announced, ended or deleted of it must come from its own daemon.

    the daemon sent a secret    whoever sends it again, from anywhere
    it sent none                whoever calls from its address (Dragonfly's daemons)

The first to announce a host owns it. A daemon that is started anew has another secret, and shall
not wait long, so a host passes on: at once to a caller at its owner's address while it has no
download under way, for those end with the process that began them; to anybody after a quarter more
than its announced interval without a word; and when it has been deleted. What the one before it
held is forgotten then.

There is no TLS yet: a secret can be read on the way, and all behind one address are as good as one.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from pantala.errors import NotYours

from .entities import Caller, Host
from .world import World

#: Times its interval; a live host is heard of once in each, and a little later when it is busy.
_SILENT: Final = 1.25


def claim(world: World, host_id: str, caller: Caller, now: float) -> Host | None:
    """The host of that id, which *caller* is about to announce or delete.

    Returns:
        None if it is not known, or was another's until now and is forgotten.

    Raises:
        NotYours: It is another's, who is alive.
    """
    host = world.hosts.get(host_id)
    if host is None:
        return None
    if _owns(host.owner, caller):
        host.owner = caller
        host.heard_at = now
        return host
    if not _passes_on(world, host, caller, now):
        raise _not_yours(host_id)
    world.remove_host(host)
    return None


def owned(world: World, host_id: str, caller: Caller) -> Host:
    """The host of that id, which is the caller's.

    Raises:
        NotFound: It is not known.
        NotYours: It is another's.
    """
    host = world.host(host_id)
    if not _owns(host.owner, caller):
        raise _not_yours(host_id)
    return host


def _owns(owner: Caller, caller: Caller) -> bool:
    if owner.proof or caller.proof:
        return compare_digest(owner.proof, caller.proof)
    return owner.address == caller.address


def _passes_on(world: World, host: Host, caller: Caller, now: float) -> bool:
    if host.streams:
        return False
    patience = _SILENT * (world.limits.interval(host.facts.interval) or world.limits.host_ttl)
    return host.owner.address == caller.address or now - host.heard_at > patience


def _not_yours(host_id: str) -> NotYours:
    return NotYours(
        f"host {host_id} is another daemon's here, which is alive; if it is not, it will be free "
        "within one and a quarter of its scheduler.announceInterval"
    )
