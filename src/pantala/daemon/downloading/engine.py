"""A request becomes a download: joined to what is here, to a flight, or to a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog

from pantala.core.policy import POLICIES, policy_of
from pantala.daemon.metrics import TaskLabels
from pantala.daemon.node import Node, new_peer_id
from pantala.errors import (
    DragonflyError,
    FeatureOff,
    Forbidden,
    InvalidRequest,
    NoRoom,
    TaskDeleted,
    Unavailable,
)
from pantala.model.ids import Identity, check_task_id, check_url, identity_of
from pantala.model.pieces import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from pantala.model.task import (
    PRIORITIES,
    PRIORITY_FORBIDDEN,
    Delivery,
    DownloadRequest,
    Kind,
)
from pantala.model.urls import public_url
from pantala.storage.holding import Holding

from .checking import check
from .comparing import revalidates
from .download import Download, Event, asks_for_range, log_end
from .flight import Flight
from .means import Means
from .origin import Origin
from .origins import probe
from .verifier import Verifier

logger = structlog.get_logger(__name__)

#: Seconds for callers to be told that what they wait for will not come.
_LAST_WORDS = 1.0

_PLAIN = Delivery()


def _log_refused(request: DownloadRequest, error: DragonflyError) -> None:
    logger.info("download refused", url=public_url(request.url), why=str(error))


class Engine:
    """All downloads of this node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._flights: dict[tuple[Kind, str], Flight] = {}
        #: What downloads alone need.
        self.means = Means.of(node, self.begin)
        self._verifier = Verifier(node, self.means, self)
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False

    @property
    def busy(self) -> int:
        """Downloads that somebody waits for, and flights."""
        return self._open + len(self._flights)

    def identify(self, request: DownloadRequest) -> Identity:
        """The identity of the task that *request* is for.

        Raises:
            InvalidRequest: It makes no sense.
            Forbidden: Its priority is the one at which nothing is downloaded.
            FeatureOff: Tasks of its kind are not served here.
        """
        policy = policy_of(request.kind)
        if request.priority not in PRIORITIES:
            raise InvalidRequest(f"priority {request.priority}: want LEVEL0 to LEVEL6")
        if request.priority == PRIORITY_FORBIDDEN:
            raise Forbidden("downloads of priority LEVEL1 are forbidden")
        if off := self._node.stores[request.kind].medium.off:
            raise FeatureOff(f"{request.kind.name} tasks are switched off: {off}")
        if policy.imported:
            if asks_for_range(request):
                raise InvalidRequest(f"{request.kind.name} tasks are exported whole, not in ranges")
            task_id = check_task_id(request.task_id or "")
            return Identity(task_id, task_id)
        length = request.piece_length
        if length is not None and not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
            raise InvalidRequest(
                f"piece length {length} is not between {MIN_PIECE_LENGTH} and {MAX_PIECE_LENGTH}"
            )
        self.means.sources.for_url(request.url)
        check_url(request.url)  # also where the caller's own words decide the id
        return identity_of(request)

    async def ask_origin(self, url: str, headers: Mapping[str, str]) -> Origin:
        """What is at *url*, without a download of it. Raises OriginError, InvalidRequest."""
        check_url(url)
        return await probe(self._node, self.means.sources, url, headers)

    @asynccontextmanager
    async def open(
        self, request: DownloadRequest, delivery: Delivery = _PLAIN
    ) -> AsyncIterator[Download]:
        """Begin a download; its bytes stay in place until the ``with`` is left.

        ``async for event in download`` says what happens, until all of it is here and is what the
        caller expects. Leaving early withdraws the caller; what is under way goes on to its end.

        Args:
            request: What is wanted.
            delivery: How this caller wants it.

        Raises:
            DigestMismatch: While iterating: it is all here, and hashes to something else.
            DragonflyError: It makes no sense, or cannot be begun now; while iterating: it cannot
                be had.
        """
        if self._stopping:
            raise Unavailable("the daemon is stopping")
        overflow = self._overflow_of(request, delivery)
        if overflow is not None:  # nobody waits who need not
            delivery = replace(delivery, patient=False)
        try:
            identity = self.identify(request)
            peer_id = new_peer_id(self._node.config)
            follow = partial(self._follow, overflow=overflow)
            download = Download(request, delivery, identity, peer_id, follow)
        except DragonflyError as error:
            _log_refused(request, error)
            raise
        self._open += 1
        self._idle.clear()
        try:
            self.begin(download)
            yield download
        finally:
            await download.stop()
            download.close()
            self._left(download)
            self.means.rooms.look()
            self._open -= 1
            self._look_idle()

    def _left(self, download: Download) -> None:
        """The caller needs nothing more of a flight."""
        flight = self._flights.get((download.request.kind, download.task_id))
        if flight is not None:
            flight.left()
            self._give_up_orphans()

    def begin(self, download: Download) -> None:
        """Join *download* to what is here, to a flight, or to a new one."""
        kind = download.request.kind
        holding = self._node.stores.get(kind, download.task_id)
        if holding is not None and holding.pieces and self._node.stores[kind].medium.decays:
            self._node.tasks.start(self._check_and_begin(download, holding), "check what is here")
        else:
            self._begin(download)

    async def _check_and_begin(self, download: Download, holding: Holding) -> None:
        """What turns out to be damaged is fetched again like what was never here."""
        try:
            await check(self._node, holding, download.wanted(holding.total))
        except TaskDeleted:
            pass  # then nothing is here
        except DragonflyError as error:
            download.fail(error)
            return
        except Exception as error:  # a bug: the caller must hear of it, and not wait for ever
            logger.exception("check failed", task=holding.id)
            download.fail(DragonflyError(f"download failed: {type(error).__name__}"))
            return
        if not download.closed:
            self._begin(download)

    def _begin(self, download: Download) -> None:
        key = download.request.kind, download.task_id
        flight, holding = self._flights.get(key), self._node.stores.get(*key)
        if (other := _another(download, flight, holding)) is not None:
            self._refuse(download, other)
            return
        if holding is not None and holding.complete and not self._asks(download, holding):
            self._node.metrics.cache_hit()
            holding.touch()
            try:
                download.begin(holding)
            except DragonflyError as error:
                download.fail(error)
            return
        self._node.metrics.cache_miss()
        if flight is not None:
            if not flight.join(download):
                self._node.tasks.start(self._retry(download, flight), "join the next flight")
            return
        flight = self._flights[key] = Flight(self._node, self.means, download)
        self._node.tasks.start(self._fly(key, flight), f"flight {download.task_id[:8]}")

    def _asks(self, download: Download, holding: Holding) -> bool:
        """Whether somebody is to be asked first if what is here is what is wanted."""
        kind = download.request.kind
        if download.delivery.refresh:
            return holding.compared_at is None or holding.compared_at < download.came_at
        may_ask = revalidates(kind, self._node.config.backend) and download.may_use_source
        return policy_of(kind).imported or may_ask

    def _refuse(self, download: Download, other: str) -> None:
        """What is here by this id is another file: that of the public URL *other*."""
        url = public_url(download.request.url)
        logger.warning(
            "refused: same id, other content", task=download.task_id, url=url, held=other
        )
        download.fail(
            InvalidRequest(
                f"task {download.task_id} is another file on this node, that of {other}: URL, "
                "tag, application and the like of both are written alike; choose another tag"
            )
        )

    async def _retry(self, download: Download, flight: Flight) -> None:
        """Begin again once a flight that takes nobody along any more has ended."""
        await flight.ended.wait()
        if not download.closed:
            self.begin(download)

    async def _fly(self, key: tuple[Kind, str], flight: Flight) -> None:
        try:
            await flight.run()
        finally:
            del self._flights[key]
            flight.ended.set()
            self.means.rooms.look()
            self._look_idle()

    def _overflow_of(self, request: DownloadRequest, delivery: Delivery) -> Kind | None:
        """The kind as which it is carried out if there is no room for it; None: it fails then.

        Who has others to ask asks them.
        """
        wanted = self._node.config.storage.cache_overflow == "task"
        row = POLICIES.get(request.kind)
        return row.overflow if wanted and row and delivery.attended and delivery.patient else None

    def _overflow(self, download: Download, kind: Kind, error: NoRoom) -> None:
        """Carry it out as a task of another kind.

        Raises:
            DragonflyError: Not with this request.
        """
        flight = self._flights.get((download.request.kind, download.task_id))
        if flight is not None:
            flight.forget(download)
        request = replace(download.request, kind=kind)
        download.overflow(request, self.identify(request), str(error))
        logger.info("overflow", task=download.task_id, kind=kind.name, why=str(error))
        self.begin(download)

    def _look_idle(self) -> None:
        if not self.busy:
            self._idle.set()

    async def _follow(
        self, download: Download, *, overflow: Kind | None
    ) -> AsyncGenerator[Event, None]:
        """What happens to *download*, see :meth:`open`; its end is counted and logged."""
        request = download.request
        labels = TaskLabels(
            request.kind, request.tag or "", request.application or "", request.priority
        )
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._node.metrics.download_started(labels)
        good, why = False, "the caller left"
        try:
            expected = False
            while not expected:
                try:
                    async for event in download.until_here():
                        yield event
                except NoRoom as error:
                    if overflow is None or download.request.kind is overflow:
                        raise
                    self._overflow(download, overflow, error)
                    continue
                expected = download.digest is None or await self._verifier.is_expected(
                    download, download.digest
                )
            if request.persistent and download.holding is not None:
                download.holding.keep()
            good = True
        except DragonflyError as error:
            why = str(error)
            raise
        finally:
            self._left(download)
            seconds = loop.time() - started
            log_end(download, seconds, None if good else why)
            if good:
                size = download.part.length
                self._node.metrics.download_finished(labels, seconds=seconds, size=size)
            else:
                self._node.metrics.download_failed(labels)
        if request.prefetch and download.holding is not None:
            self._prefetch(download, download.holding)

    # -- prefetching ---------------------------------------------------------------------------

    def _prefetch(self, download: Download, holding: Holding) -> None:
        """Fetch the rest of a file of which a part was asked for, once."""
        if holding.complete or holding.gone or holding.record.prefetched_at is not None:
            return
        request = download.request
        headers = {k: v for k, v in request.request_header.items() if k.lower() != "range"}
        whole = replace(
            request,
            range=None,
            request_header=headers,
            prefetch=False,
            is_prefetch=True,
        )
        self._node.tasks.start(self._prefetch_all(whole, holding), "prefetch")

    async def _prefetch_all(self, request: DownloadRequest, holding: Holding) -> None:
        labels = TaskLabels(request.kind, request.tag or "", request.application or "")
        try:
            holding.prefetch_started()
        except DragonflyError:  # somebody else does, or it was deleted
            return
        self._node.metrics.prefetch_started(labels)
        try:
            async with self.open(request, Delivery(attended=False)) as download:
                async for _ in download:
                    pass
        except DragonflyError as error:
            logger.info("prefetch failed", task=holding.id, why=str(error))
            self._node.metrics.prefetch_failed(labels)
            if not holding.gone:
                holding.prefetch_failed()

    # -- the end -------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Begin nothing new; give what is under way *grace* seconds, then fail it."""
        self._stopping = True
        self.means.rooms.give_up()
        self._give_up_orphans()
        if await self._is_idle_within(grace):
            return
        logger.info("gave up waiting", downloads=self._open, flights=len(self._flights))
        for flight in self._flights.values():
            flight.give_up()
        await self._is_idle_within(_LAST_WORDS)

    def _give_up_orphans(self) -> None:
        """What nobody waits for serves nobody once we stop."""
        if self._stopping:
            for flight in self._flights.values():
                if not flight.is_waited_for:
                    flight.give_up()

    async def _is_idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _another(download: Download, flight: Flight | None, holding: Holding | None) -> str | None:
    """The public URL of what is here by the id of *download*, if that is made of something else."""
    if flight is not None and flight.fingerprint != download.fingerprint:
        return flight.url
    if holding is not None and holding.record.identity != download.fingerprint:
        return holding.record.url
    return None
