"""What all parts of a daemon share."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Protocol

import structlog

from pantala.background import Tasks
from pantala.core.bucket import Bucket
from pantala.core.policy import policy_of
from pantala.errors import Damaged
from pantala.model.announce import Registration
from pantala.model.ids import peer_id
from pantala.model.task import Kind
from pantala.net.piece_client import Connections
from pantala.ports import Conversation, ParentLink, SchedulerLink
from pantala.sources.registry import Registry
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.stores import Stores

from .config import DaemonConfig
from .downloading.race import Spare
from .downloading.room import Rooms
from .downloading.suspects import Suspects
from .downloading.weights import Weights
from .host.threads import Threads
from .metrics import Metrics

logger = structlog.get_logger(__name__)


class Limiters:
    """Bandwidth limits, bytes a second."""

    def __init__(self, config: DaemonConfig) -> None:
        self.download = Bucket(config.download.bandwidth_limit)
        self.source = Bucket(config.download.back_to_source_bandwidth_limit)
        self.prefetch = Bucket(config.proxy.prefetch_bandwidth_limit)
        self.upload = Bucket(config.upload.bandwidth_limit)


class Announcements(Protocol):
    """Telling the swarm what this node holds."""

    def announce(self, holding: Holding) -> None:
        """Say what of a task is here, soon."""

    def damaged(self, holding: Holding) -> None:
        """Say that less of a task is here than was told, soon."""

    async def announce_now(self, holding: Holding) -> None:
        """Say it, and return when it was heard, or could not be said."""

    async def settle(self, kind: Kind, task_id: str) -> None:
        """Return when what is to be told of a task was heard, or could not be said."""

    def talk(self, registration: Registration) -> Conversation:
        """Open the stream of a download to the scheduler of its task.

        It ends with :meth:`heard`, if all was told on it, else with :meth:`announce`.

        Raises:
            SchedulerLost: No scheduler is available.
        """

    def heard(self, holding: Holding) -> None:
        """What of a task is here was said on the stream that :meth:`talk` opened last."""

    async def introduce(self, task_id: str) -> None:
        """Announce this host again, now: the scheduler of a task does not know it."""


class Node:
    """What flights, uploads and front ends work with."""

    def __init__(
        self,
        config: DaemonConfig,
        *,
        stores: Stores,
        schedulers: SchedulerLink,
        announcements: Announcements,
        tasks: Tasks,
        parents: ParentLink,
        sources: Registry,
        metrics: Metrics,
        threads: Threads,
    ) -> None:
        self.config = config
        self.host_id = config.host_id
        self.stores = stores
        self.schedulers = schedulers
        self.announcements = announcements
        self.parents = parents
        self.sources = sources
        self.metrics = metrics
        self.connections = Connections()
        self.suspects = Suspects()
        self.limiters = Limiters(config)
        #: Those who wait for room.
        self.rooms = Rooms(stores)
        self.spare = Spare()
        self.tasks = tasks
        self.weights = Weights(parents, tasks)
        self.rng = random.Random()  # noqa: S311  chooses parents, keeps no secret
        self.threads = threads

    def revalidates(self, kind: Kind) -> bool:
        """Contents of this kind are compared with their origins before they are given away."""
        return policy_of(kind).revalidates and self.config.backend.enable_revalidation

    def new_peer_id(self) -> str:
        """A name for one attempt at one task."""
        return new_peer_id(self.config)

    def drop(self, holding: Holding, number: int, error: Damaged) -> None:
        """A piece is not any more what was verified: it is here no more, and others are told.

        The task goes with it where that holds for all of its content.
        """
        logger.error("piece damaged", task=holding.id, piece=number, why=str(error))
        if not holding.gone and number in holding.pieces:
            self.announcements.damaged(holding)  # by the name that its copy had
            if error.whole:
                self.stores.remove(holding, Reason.LOST)
            else:
                holding.drop(number)


def new_peer_id(config: DaemonConfig) -> str:
    """A name for one attempt of this node at one task."""
    host = config.host
    return peer_id(host.ip, host.hostname, str(uuid.uuid4()), seed=config.seed_peer.enable)


async def take(bucket: Bucket, amount: int) -> None:
    """Wait until *bucket* grants *amount*."""
    loop = asyncio.get_running_loop()
    while wait := bucket.take(amount, loop.time()):  # noqa: ASYNC110  tokens come with time
        await asyncio.sleep(wait)
