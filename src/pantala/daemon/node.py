"""What all rooms of a daemon share."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pantala.background import Tasks
from pantala.model.ids import peer_id
from pantala.rpc.scheduler_link import Schedulers
from pantala.storage.stores import Stores

from .config import DaemonConfig
from .gate import Gate
from .host.threads import Threads
from .metrics import Metrics
from .telling.announcements import Announcements


@dataclass(frozen=True, slots=True)
class Node:
    """The node, as each of its rooms knows it. Made once, before them; it does nothing.

    What one room alone needs is made and kept there.

    Attributes:
        config: Who this host is, and how it is to be.
        threads: Where it waits for what blocks.
        tasks: What goes on beside; all of it ends with the daemon.
        stores: What it holds.
        schedulers: Whom it asks about tasks.
        announcements: By which it tells them of what it holds.
        metrics: What is counted.
        gate: What programs of this machine may have.
    """

    config: DaemonConfig
    threads: Threads
    tasks: Tasks
    stores: Stores
    schedulers: Schedulers
    announcements: Announcements
    metrics: Metrics
    gate: Gate


def new_peer_id(config: DaemonConfig) -> str:
    """A name for one attempt of this node at one task."""
    host = config.host
    return peer_id(host.ip, host.hostname, str(uuid.uuid4()), seed=config.seed_peer.enable)
