"""What comes to be when a host announces itself, or a peer registers: these, and the peer's task.

A registration is a stranger's word. What of it is kept for others to see has been cleaned
(:meth:`~pantala.model.announce.Registration.public`); its credentials become a name, by which two
can be told apart and neither be found out; and its numbers are held within reason.
"""

from __future__ import annotations

import sys
from typing import Final

from pantala.core.fsm import Machine
from pantala.model.announce import HostFacts, Registration
from pantala.model.ids import credentials_id
from pantala.model.task import DownloadRequest

from .entities import DEFAULT_CONCURRENT_PIECES, Caller, Host, Peer, Task
from .rules import Rules
from .shape import Shape
from .states import PeerState, TaskState

#: The most pieces at once that a peer is believed to fetch: what its parents' hosts are charged for
#: must stay within reason.
_MAX_CONCURRENT_PIECES: Final = 1024

#: Of a task of which nothing has been told.
UNKNOWN: Final = Shape(0, 0)


def new_host(facts: HostFacts, limit: int, caller: Caller, life: int, now: float) -> Host:
    """The host of an announcement, which is its caller's from now on.

    Args:
        facts: What it says of itself.
        limit: How many children it may have at once.
        caller: Who announced it.
        life: See :attr:`.Host.life`.
        now: When.
    """
    return Host(
        facts=facts,
        upload_limit=limit,
        created_at=now,
        updated_at=now,
        owner=caller,
        heard_at=now,
        account=caller.account,
        life=life,
    )


def new_task(registration: Registration, rules: Rules, now: float) -> Task:
    """The task of a registration, as that describes it."""
    return Task(
        kind=registration.kind,
        id=registration.task_id,
        rules=rules,
        machine=Machine(f"task {registration.task_id}", rules.tasks, TaskState.PENDING),
        registration=registration,
        shape=UNKNOWN.told(registration),
        created_at=now,
        updated_at=now,
    )


def new_peer(
    host: Host, task: Task, registration: Registration, credentials: str, now: float
) -> Peer:
    """The peer of a registration; what that does not say of the content is as the task says."""
    wanted = registration.concurrent_piece_count or DEFAULT_CONCURRENT_PIECES
    return Peer(
        id=registration.peer_id,
        task=task,
        host=host,
        machine=Machine(f"peer {registration.peer_id}", task.rules.peers, PeerState.PENDING),
        registration=registration,
        credentials=credentials,
        concurrent_pieces=min(wanted, _MAX_CONCURRENT_PIECES),
        shape=task.shape.told(registration),
        range=registration.request.range,
        created_at=now,
        updated_at=now,
        piece_at=now,
        blocked={registration.peer_id},
        version=sys.intern(registration.version),  # of thousands it is one and the same
    )


def credentials_of(wish: DownloadRequest) -> str:
    """A name for what a peer asks the origin with and others do not; ``""`` for nothing.

    Raises:
        InvalidRequest: The URL cannot be parsed.
    """
    if not wish.url:
        return ""
    return credentials_id(wish.url, wish.filtered_query_params, wish.request_header, wish.access)
