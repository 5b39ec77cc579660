"""What a file is, by the words of its origin and of the swarm."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import structlog

from pantala.core.policy import policy_of
from pantala.daemon.config import Backend, DaemonConfig
from pantala.model.pieces import piece_length_for
from pantala.model.task import READING, DownloadRequest, Kind, TaskRecord
from pantala.model.urls import public_url
from pantala.ports import KnownTask, SchedulerLink
from pantala.storage.home import Reason
from pantala.storage.stores import Stores

from .download import Download
from .origin import Origin
from .origins import Origins

logger = structlog.get_logger(__name__)


def revalidates(kind: Kind, backend: Backend) -> bool:
    """Contents of this kind are compared with their origins before they are given away."""
    return policy_of(kind).revalidates and backend.enable_revalidation


def is_still(record: TaskRecord, origin: Origin) -> bool:
    """Whether the content that is here is the one that its origin has now.

    Where either names no version, the length decides; where that is not told, nothing does, and
    what cannot be compared is not the same.
    """
    if origin.total is not None and origin.total != record.content_length:
        return False
    named = record.version != "" and not record.version.startswith(READING)
    if named and origin.reading is None:
        return record.version == origin.version
    return origin.total is not None


def told_piece_length(told: KnownTask, request: DownloadRequest) -> int:
    """How the swarm cuts the content.

    The first of several pieces shows it. Of a single one any length will do that makes it one.
    """
    if told.piece_count > 1 and told.first_piece:
        return told.first_piece
    length = piece_length_for(told.content_length, request.piece_length)
    return max(length, told.content_length) if told.piece_count == 1 else length


class Described(NamedTuple):
    """What a task is.

    Attributes:
        record: As it is to be held.
        streamed: The origin whose open answer must be read to its end, for that alone shows how
            long the content is; None: that is known.
        imported: The scheduler has it written down.
    """

    record: TaskRecord
    streamed: Origin | None = None
    imported: bool = False


class Describing:
    """Finds out what the content of one flight is, as often as it is begun.

    Args:
        config: Whether origins are asked first, and what is too small to ask schedulers for.
        stores: What is here already.
        schedulers: What the swarm knows.
        first: Who wants it.

    Attributes:
        version: What the origin has said that the content is; ``""`` while it has not.
    """

    def __init__(
        self, config: DaemonConfig, stores: Stores, schedulers: SchedulerLink, first: Download
    ) -> None:
        self._stores = stores
        self._schedulers = schedulers
        self._kind = first.request.kind
        self._task_id = first.task_id
        self._fingerprint = first.fingerprint
        self._url = public_url(first.request.url)
        self._bypass = config.download.bypass_sizes[self._kind]
        self._revalidates = revalidates(self._kind, config.backend)
        self.version = ""

    async def describe(self, request: DownloadRequest, origins: Origins) -> Described:
        """The content, as whoever knows it says that it is.

        Kinds that are compared with their origins: the origin first, so that what has changed
        there is not given away for ever; if it does not answer, who has the content will do.

        Args:
            request: What is wanted.
            origins: The origin, as the callers may ask it.

        Raises:
            DragonflyError: Nobody knows, or says.
        """
        if policy_of(self._kind).imported:
            return await self._by_import(request)
        origin = await origins.ask() if self._revalidates else None
        known = self._stores.get(self._kind, self._task_id)
        if known is not None and known.record.content_length is not None:
            if origin is None or is_still(known.record, origin):
                return Described(replace(known.record, updated_at=self._stores.now()))
            logger.info("changed at its origin", task=self._task_id, version=origin.version)
            self._stores.remove(known, Reason.CHANGED)
        if origin is not None:
            if (origin.total or 0) > self._bypass:
                # One that hangs is found out by this in seconds; by the announce stream, late.
                await self._schedulers.stat(self._kind, self._task_id)
            return self._by_origin(request, origin)
        described = await self._by_swarm(request)
        return described or self._by_origin(request, await origins.probe())

    async def _by_import(self, request: DownloadRequest) -> Described:
        """The content as its scheduler has it written down.

        Without a scheduler, what is here may be of an earlier import by that name.
        """
        told = await self._schedulers.imported(self._kind, self._task_id)
        self.version = told.version
        record = self._record(request, told.content_length, told.piece_length)
        record = replace(record, created_at=told.created_at, ttl=told.ttl)
        return Described(record, imported=True)

    async def _by_swarm(self, request: DownloadRequest) -> Described | None:
        """The content as the swarm knows it."""
        if request.need_back_to_source:
            return None
        told = await self._schedulers.stat(self._kind, self._task_id)
        if told is None:
            return None
        length = told_piece_length(told, request)
        return Described(self._record(request, told.content_length, length))

    def _by_origin(self, request: DownloadRequest, origin: Origin) -> Described:
        """The content as the origin has it."""
        if origin.total is None:
            return Described(self._record(request, None, None, origin), streamed=origin)
        length = piece_length_for(origin.total, request.piece_length)
        return Described(self._record(request, origin.total, length, origin))

    def _record(
        self,
        request: DownloadRequest,
        total: int | None,
        piece_length: int | None,
        origin: Origin | None = None,
    ) -> TaskRecord:
        if origin is not None and origin.reading is None:  # a reading is a version once it is read
            self.version = origin.version
        now = self._stores.now()
        return TaskRecord(
            kind=self._kind,
            id=self._task_id,
            url=self._url,
            identity=self._fingerprint,
            tag=request.tag,
            application=request.application,
            created_at=now,
            updated_at=now,
            content_length=total,
            piece_length=piece_length,
            response_header=origin.header if origin else {},
            version=self.version,
        )
