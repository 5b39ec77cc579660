"""What a file is, by the words of its origin and of the swarm."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final, NamedTuple

import structlog

from pantala.core.policy import policy_of
from pantala.daemon.node import Node
from pantala.errors import DragonflyError, OriginError, SourceUnreachable
from pantala.model.pieces import piece_count, piece_length_for
from pantala.model.task import READING, Description, DownloadRequest, TaskRecord
from pantala.model.urls import public_url
from pantala.ports import KnownTask, SchedulerLink, Turn
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from .callers import Callers
from .comparing import is_still, revalidates, word_of
from .download import Download
from .means import Means
from .origin import Origin
from .origins import Origins, is_refusal
from .trailing import Trail

logger = structlog.get_logger(__name__)

#: Seconds to wait for another host that asks the origin whether what is here is still the same.
#: Most answer within a fraction of one; of those that do not, each host finds out by itself.
_PATIENCE: Final = 2.0


def _without_range(request: DownloadRequest) -> DownloadRequest:
    headers = {k: v for k, v in request.request_header.items() if k.lower() != "range"}
    return replace(request, request_header=headers)


def told_piece_length(told: KnownTask, request: DownloadRequest, *, least: int) -> int:
    """How the swarm cuts the content.

    The first of several pieces shows it. Of a single one any length will do that makes it one.
    Otherwise their number shows whether they are as short as may be, or as everybody's.
    """
    if told.piece_count > 1 and told.first_piece:
        return told.first_piece
    length = piece_length_for(told.content_length, request.piece_length, least=least)
    if told.piece_count not in (0, piece_count(told.content_length, length)):
        length = piece_length_for(told.content_length, request.piece_length)
    return max(length, told.content_length) if told.piece_count == 1 else length


class Described(NamedTuple):
    """What a task is.

    Attributes:
        record: As it is to be held.
        streamed: The origin whose open answer must be read to its end, for that alone shows how
            long the content is; None: that is known.
        imported: The scheduler has it written down.
        insists: Nobody can be known to have the same: it is to be read at the origin.
    """

    record: TaskRecord
    streamed: Origin | None = None
    imported: bool = False
    insists: bool = False


class Describing:
    """Finds out what the content of one flight is, as often as it is begun.

    Args:
        node: Its settings, and what it holds, and whom it asks what the swarm knows.
        means: What all downloads share.
        first: Who wants it.
        callers: All who do.

    Attributes:
        version: What the origin has said that the content is; ``""`` while it has not.
        asked_at: Since when the origin's word is of, by which what is here was compared for a
            caller who insists on that (``refresh``), on the loop's clock; None: it was not.
    """

    def __init__(self, node: Node, means: Means, first: Download, callers: Callers) -> None:
        config = node.config
        self._node = node
        self._means = means
        self._callers = callers
        #: What has come while we waited for another who reads it.
        self._trail: Trail | None = None
        self._stores = node.stores
        self._schedulers: SchedulerLink = node.schedulers
        self._announcements = node.announcements
        self._tasks = node.tasks
        self._kind = first.request.kind
        self._task_id = first.task_id
        self._fingerprint = first.fingerprint
        self._url = public_url(first.request.url)
        self._bypass = config.download.bypass_sizes[self._kind]
        self._revalidates = revalidates(self._kind, config.backend)
        self._least_piece = policy_of(self._kind).least_piece
        #: It is, or was, ours to ask the origin on behalf of the swarm.
        self._turn: Turn | None = None
        #: Nothing but the origin's word will do, of after it was asked for.
        self._refreshes = first.delivery.refresh
        self.version = ""
        self.asked_at: float | None = None

    def is_as_of(self, moment: float) -> bool:
        """Whether it is, or will be, what the origin has said after *moment*."""
        return self._refreshes and (self.asked_at is None or self.asked_at >= moment)

    @property
    def _compares(self) -> bool:
        return self._revalidates or self._refreshes

    async def describe(self, request: DownloadRequest, origins: Origins) -> Described:
        """The content, as whoever knows it says that it is.

        Kinds that are compared with their origins: the origin first, so that what has changed
        there is not given away for ever; if it does not answer, who has the content will do.
        Of hosts that ask at once, one asks the origin, and the others are told what it said.

        Where a caller insists on what the origin has now, nobody else will do.

        Args:
            request: What is wanted.
            origins: The origin, as the callers may ask it.

        Raises:
            DragonflyError: Nobody knows, or says.
        """
        if policy_of(self._kind).imported:
            return await self._by_import(request)
        said = await self._origins_word(request, origins) if self._compares else None
        if said is None and self._refreshes:
            self._not_compared(origins.silence)
        # What was followed until now is what the description is of.
        known = None if self._trail is not None else self._known()
        same = known is not None and (said is None or self._is_still(known, said))
        if isinstance(said, Origin):
            self._learnt(request, said, alone=same)
        if known is not None and same:
            return Described(replace(known.record, updated_at=self._stores.now()))
        if known is not None and said is not None:
            logger.info("changed at its origin", task=self._task_id, version=said.version)
            await self._drop(known)
        if said is None:
            said = await self._swarms_word(request, origins)
        if isinstance(said, Origin) and said.total is None and self._turn is None:
            await self._offer_to_read(request, origins)
        return self._described(request, said)

    def _is_still(self, known: Holding, said: Origin | Description) -> bool:
        return is_still(known.record, word_of(said), strictly=self._refreshes)

    def _not_compared(self, why: DragonflyError | None) -> None:
        """The origin does not say what it has: those who insist on its word are told so.

        Raises:
            SourceUnreachable: Nobody else is there.
        """
        self._refreshes, self.asked_at = False, None
        what = "is not known" if self._known() is None else "cannot be compared with what is here"
        answer = why if isinstance(why, OriginError) else None
        error = SourceUnreachable(
            f"what {self._url} has now {what}: {why or 'its origin does not answer'}",
            status=None if answer is None else answer.status,
            header=None if answer is None else answer.header,
            transient=True,
        )
        self._callers.fail_refreshing(error)
        if not self._callers.active():
            raise error

    async def _by_import(self, request: DownloadRequest) -> Described:
        """The content as its scheduler has it written down.

        Without a scheduler, what is here may be of an earlier import by that name.
        """
        told = await self._schedulers.imported(self._kind, self._task_id)
        self.version = told.version
        record = self._record(request, told.content_length, told.piece_length)
        record = replace(record, created_at=told.created_at, ttl=told.ttl)
        return Described(record, imported=True)

    def _known(self) -> Holding | None:
        """What is here, if it is known what that is."""
        known = self._stores.get(self._kind, self._task_id)
        return None if known is None or known.record.content_length is None else known

    async def _drop(self, known: Holding) -> None:
        """Let go of what has changed, and have the scheduler hear of it before we register anew.

        Of hosts that all drop the same, each would else be sent to others that have nothing yet.
        """
        self._stores.remove(known, Reason.CHANGED)
        with contextlib.suppress(TimeoutError):  # a scheduler that hangs is noticed elsewhere
            async with asyncio.timeout(_PATIENCE):
                await self._announcements.settle(self._kind, self._task_id)

    # -- whom to ask -----------------------------------------------------------------------------

    async def _origins_word(
        self, request: DownloadRequest, origins: Origins
    ) -> Origin | Description | None:
        """What the origin says now, to us or just now to another; None: nothing in time.

        Raises:
            DragonflyError: It refuses all on whose behalf it may be asked.
        """
        if self._refreshes:
            self.asked_at = asyncio.get_running_loop().time()
        if not request.need_back_to_source and origins.sponsor is not None:
            try:
                said = await self._ask_swarm(request, origins, patience=_PATIENCE)
            except OriginError as error:
                if is_refusal(error):
                    raise
                origins.silence = error
                return None
            # Where it names no version, others who have something of that length have anything.
            if said is not None and (said.version or not self._refreshes):
                return said
        try:
            origin = await origins.ask(patient=self._refreshes and self._callers.all_refresh)
        except DragonflyError as error:
            self._failed(error)
            raise
        if origin is None:
            self._failed(None)
        elif self._turn is None and (origin.total or 0) > self._bypass:
            # One that hangs is found out by this in seconds; by the announce stream, late.
            await self._schedulers.stat(self._kind, self._task_id)
        return origin

    async def _swarms_word(
        self, request: DownloadRequest, origins: Origins
    ) -> Origin | Description:
        """What the swarm says, else the origin.

        Raises:
            DragonflyError: Nobody says anything.
        """
        if not request.need_back_to_source:
            said = await self._ask_swarm(request, origins, patience=None)
            if said is None and self._turn is None:  # there may be a stock scheduler
                told = await self._schedulers.stat(self._kind, self._task_id)
                if told is not None:
                    said = Description(
                        told.content_length,
                        told_piece_length(told, request, least=self._least_piece),
                    )
            if said is not None:
                return said
        try:
            origin = await origins.probe()
        except DragonflyError as error:
            self._failed(error)
            raise
        self._learnt(request, origin, alone=False)
        return origin

    async def _ask_swarm(
        self, request: DownloadRequest, origins: Origins, *, patience: float | None
    ) -> Description | None:
        """What the swarm says; None: it is ours to ask the origin, for others, too, or not.

        Args:
            request: What is wanted.
            origins: On behalf of whom the origin would be asked.
            patience: Seconds to wait for others who ask it; then only the origin's word will do.
                None: as long as they take.

        Raises:
            OriginError: The origin has failed several others, who could ask it like us.
        """
        self.give_up()
        sponsor = origins.sponsor
        wanted = sponsor or replace(request, disable_back_to_source=True)
        fresh, known = patience is not None, self._known()
        version = "" if known is None else known.record.version
        trail = self._begin_trail(request)
        question = self._schedulers.description(
            _without_range(wanted),
            self._task_id,
            origin=fresh,
            version="" if version.startswith(READING) else version,
            patience=patience,
            anew=fresh and self._refreshes,
            on_growth=None if trail is None else trail.hear,
        )
        try:
            said = await (question if trail is None else trail.beside(question))
        except OriginError as error:
            if sponsor is None or (fresh and not is_refusal(error)):
                raise
            origins.refused(sponsor, error)
            if fresh and origins.sponsor is None:
                return None
            return await self._ask_swarm(request, origins, patience=patience)
        if trail is not None:
            await self._end_trail(trail, request, said)
        if said is None or isinstance(said, Description):
            return said
        logger.info("asking the origin for others, too", task=self._task_id)
        self._take(said)
        return None

    # -- what another reads ----------------------------------------------------------------------

    def _begin_trail(self, request: DownloadRequest) -> Trail | None:
        """Whom we wait for may be followed, unless something is here already."""
        self.release()
        if self._stores.get(self._kind, self._task_id) is not None:
            return None
        record = self._record(request, None, None)
        return Trail(self._node, self._means, self._callers, record)

    async def _end_trail(
        self, trail: Trail, request: DownloadRequest, said: Description | Turn | None
    ) -> None:
        """Keep what has come, if it is known now what that is."""
        if not isinstance(said, Description):
            await trail.drop()
            return
        length = said.piece_length or self._piece_length(request, said.content_length)
        await trail.finish(said, length)
        self._trail = trail

    def release(self) -> None:
        """What has come is the flight's."""
        trail, self._trail = self._trail, None
        if trail is not None:
            trail.release()

    # -- what others are told --------------------------------------------------------------------

    def _learnt(self, request: DownloadRequest, origin: Origin, *, alone: bool) -> None:
        """Tell what the origin says, if others wait for it. *alone*: nothing will be fetched."""
        if self._turn is None:
            return
        if origin.total is None:
            self._turn.reading(0)
            return
        length = self._piece_length(request, origin.total)
        # Who insists on this content has to tell it from others that have no name, either.
        version = origin.version if self._refreshes else word_of(origin).version
        said = Description(origin.total, length, version, origin.header)
        self._turn.learnt(said, alone=alone or origin.total <= self._bypass)

    async def _offer_to_read(self, request: DownloadRequest, origins: Origins) -> None:
        """Have those who wait for this task follow us, who were sent to its origin for them."""
        if not request.need_back_to_source or origins.sponsor is None:
            return
        with contextlib.suppress(TimeoutError, OriginError):  # then we read for ourselves alone
            async with asyncio.timeout(_PATIENCE):
                turn = await self._schedulers.description(
                    _without_range(origins.sponsor),
                    self._task_id,
                    origin=self._compares,
                    version="",
                    patience=0.0,
                )
                if turn is not None and not isinstance(turn, Description):
                    self._take(turn)
                    turn.reading(0)

    def _take(self, turn: Turn) -> None:
        self._turn = turn
        self._tasks.start(turn.run(), f"description of {self._task_id[:8]}")

    def _failed(self, error: DragonflyError | None) -> None:
        if self._turn is not None:
            self._turn.failed(error)

    def reading(self, holding: Holding, received: int) -> None:
        """So much of content whose length the origin does not name is here: others wait for it."""
        if self._turn is not None:
            crcs = () if holding.growth is None else holding.growth.crcs
            self._turn.reading(received, holding.record.version, crcs)

    def read(self, record: TaskRecord) -> None:
        """All of it is here, and is about to be announced."""
        if self._turn is not None and record.content_length is not None:
            named = self._refreshes or not record.version.startswith(READING)
            said = Description(
                record.content_length,
                record.piece_length or 0,
                record.version if named else "",
                record.response_header,
                read=True,
            )
            self._turn.learnt(said, alone=False)

    def give_up(self) -> None:
        """Nothing comes of it here: if others wait for us, it is their turn."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()

    # -- what it comes to ------------------------------------------------------------------------

    def _described(self, request: DownloadRequest, said: Origin | Description) -> Described:
        """The content as the origin has it, or others say that it has."""
        if isinstance(said, Description):
            self.version = said.version
            total, length = said.content_length, said.piece_length
            record = self._record(request, total, length or self._piece_length(request, total))
            return Described(replace(record, response_header=said.response_header))
        insists = self._refreshes and said.reading is not None
        if said.reading is None or insists:  # a reading is a version once it is read
            self.version = said.version
        if said.total is None:
            record = self._record(request, None, None)
        else:
            length = self._piece_length(request, said.total)
            record = self._record(request, said.total, length)
        record = replace(record, response_header=said.header)
        return Described(record, said if said.total is None else None, insists=insists)

    def _piece_length(self, request: DownloadRequest, total: int) -> int:
        return piece_length_for(total, request.piece_length, least=self._least_piece)

    def _record(
        self, request: DownloadRequest, total: int | None, piece_length: int | None
    ) -> TaskRecord:
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
            version=self.version,
        )
