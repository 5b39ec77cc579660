"""An import: a file of this machine becomes a task, of which this host has the first copy.

    hash ──► Started ──► copy ──► Finished ──► others fetch replicas
             scheduler   into the  scheduler
                         store

The copy is written down piece by piece, and as a replica, before the scheduler hears that it is
whole: a daemon that is killed after that has it when it is started again. Half a copy is of no use
to anybody, so a daemon that finds one at its start removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from pantala.core.beliefs import TaskKey
from pantala.core.policy import policy_of
from pantala.daemon.node import Node, new_peer_id
from pantala.errors import (
    DragonflyError,
    FeatureOff,
    HostUnknown,
    InvalidRequest,
    TaskExists,
    TimedOut,
    Unavailable,
)
from pantala.model.ids import persistent_cache_task_id
from pantala.model.pieces import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH, piece_length_for
from pantala.model.task import ImportedTask, ImportRequest, Kind, TaskRecord, Traffic
from pantala.rpc import import_calls
from pantala.rpc.import_calls import CopyName
from pantala.rpc.scheduler import Scheduler
from pantala.storage.claims import Claim
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from .reading import Copying, Identifying, ImportFile

logger = structlog.get_logger(__name__)

T = TypeVar("T")

#: Seconds that an imported file may live, at least and at most: 5 minutes to 7 days.
TTL: Final = (300.0, 7 * 86400.0)

#: Seconds that an import may take whose caller names no limit: as long as others may fetch.
_LIMIT: Final = 7200.0

#: Seconds between two tries to reach a scheduler that is away.
_RETRY: Final = 0.5

#: Seconds for which a scheduler is told that an import came to nothing. It finds out by itself, for
#: it asks.
_LAST_WORDS: Final = 60.0


class Importer:
    """All imports of this node.

    Args:
        node: What all rooms share.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        #: By task.
        self._under_way: dict[TaskKey, CopyName] = {}

    @property
    def busy(self) -> int:
        """How many imports are under way."""
        return len(self._under_way)

    def carries_on(self, kind: Kind, task_id: str, peer_id: str) -> bool:
        """Whether an import goes on whose copy has that name."""
        copy = self._under_way.get((kind, task_id))
        return copy is not None and copy.peer_id == peer_id

    async def run(self, request: ImportRequest, *, public: bool = False) -> Any:
        """Import a file; the scheduler's description of the task.

        When it returns, the content is here for as long as it lives, and the scheduler sees to it
        that other hosts keep it, too. When it fails, nothing of it is left.

        Args:
            request: What is to be imported.
            public: Only a file that everybody on this machine may read.

        Raises:
            InvalidRequest: The request makes no sense.
            Forbidden: The file is not for this daemon, or this caller, to read.
            TaskExists: The task is there, or is being imported.
            SourceChanged: The file changed meanwhile.
            TimedOut: It took longer than the caller wants to wait.
            DragonflyError: It could not be read, kept, or told.
        """
        _check(request)
        seconds = _LIMIT if request.timeout is None else request.timeout
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                with contextlib.closing(ImportFile(request.path)) as file:
                    if public:
                        file.check_public()
                    task_id = await self._identify(request, file)
                    with self._alone(request.kind, task_id) as copy:
                        return await self._import(request, file, copy)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimedOut(f"{request.path} was not imported within {seconds:g} s") from None

    async def _identify(self, request: ImportRequest, file: ImportFile) -> str:
        content = request.content_for_calculating_task_id
        if content is not None:
            return hashlib.sha256(content.encode()).hexdigest()
        identify = partial(
            persistent_cache_task_id,
            tag=request.tag,
            application=request.application,
            piece_length=request.piece_length,
        )
        return await self._node.threads.helpers.run(
            Identifying(file, identify, _piece_length(request, file))
        )

    @contextlib.contextmanager
    def _alone(self, kind: Kind, task_id: str) -> Iterator[CopyName]:
        """The only import of a task here: two would write to one place. Raises TaskExists."""
        key = kind, task_id
        if key in self._under_way:
            raise TaskExists(f"task {task_id}: this host imports it now; wait for it to end")
        config = self._node.config
        self._under_way[key] = CopyName(kind, config.host_id, task_id, new_peer_id(config))
        try:
            yield self._under_way[key]
        finally:
            del self._under_way[key]

    async def _import(self, request: ImportRequest, file: ImportFile, copy: CopyName) -> Any:
        node, task_id = self._node, copy.task_id
        length = _piece_length(request, file)
        say = partial(
            import_calls.started, copy=copy, wanted=request, length=file.length, piece_length=length
        )
        logger.info("import", task=task_id, path=request.path, size=file.length)
        began = asyncio.get_running_loop().time()
        try:
            await self._say(copy, say)
        except (TaskExists, InvalidRequest):
            raise  # it is not begun
        except BaseException as error:  # it may be, without our having heard of it
            self._failed(copy, request, error)
            raise
        try:
            # By when it began, it is told from an earlier task of that id.
            described = await self._node.schedulers.describe(request.kind, task_id)
            holding = self._hold(request, copy, import_calls.described(described))
            with holding.lease():
                await self._copy(file, holding)
            task = await self._say(copy, partial(import_calls.finished, copy=copy), patient=True)
        except BaseException as error:  # whoever cancels it, the scheduler must hear of it
            node.stores[request.kind].drop(request.kind, task_id, Reason.FAILED)
            self._failed(copy, request, error)
            raise
        seconds = round(asyncio.get_running_loop().time() - began, 3)
        logger.info("imported", task=task_id, path=request.path, seconds=seconds)
        return task

    def _failed(self, copy: CopyName, request: ImportRequest, error: BaseException) -> None:
        why = str(error) if isinstance(error, DragonflyError) else type(error).__name__
        logger.warning("import failed", task=copy.task_id, path=request.path, why=why)
        say = partial(import_calls.failed, copy=copy, why=why)
        self._node.tasks.start(self._say_failed(copy, say), "an import that failed")

    def _hold(self, request: ImportRequest, copy: CopyName, told: ImportedTask) -> Holding:
        """Room for the copy. Raises NoRoom."""
        store = self._node.stores[request.kind]
        store.drop(request.kind, copy.task_id, Reason.CHANGED)  # of a task that is no more
        record = TaskRecord(
            kind=request.kind,
            id=copy.task_id,
            url="",
            identity=copy.task_id,
            tag=request.tag,
            application=request.application,
            created_at=told.created_at,
            updated_at=store.now(),
            content_length=told.content_length,
            piece_length=told.piece_length,
            version=told.version,
            persistent=True,
            ttl=told.ttl,
            peer_id=copy.peer_id,
        )
        holding = store.open(record)
        holding.check_fits(told.content_length)
        holding.reserve(range(record.piece_count or 0))
        return holding

    async def _copy(self, file: ImportFile, holding: Holding) -> None:
        """Bring all pieces. One after the other: the disk and its cache are the limit."""
        claims: list[Claim] = []
        for number in range(holding.record.piece_count or 0):
            claim = holding.claim(number)
            claims.append(claim)
            try:
                work = Copying(file, claim.piece, claim.sink)
                digest = await self._node.threads.helpers.run(work)
                claim.publish(digest, parent_id=None, traffic=Traffic.LOCAL_PEER)
            except BaseException:  # whatever it is, the piece is nobody's any more
                claim.abandon()
                raise
        for claim in claims:
            await claim.kept()
        file.check_unchanged()

    async def _say(
        self,
        copy: CopyName,
        say: Callable[[Scheduler], Awaitable[T]],
        *,
        patient: bool = False,
    ) -> T:
        """Tell the scheduler of a task something, as often as it takes.

        Args:
            copy: Of what.
            say: Does it.
            patient: Wait for a scheduler that is away; the caller's time is the limit.

        Raises:
            DragonflyError: It does not take it.
        """
        introduced = False
        while True:
            try:
                return await say(self._node.schedulers.require(copy.task_id))
            except HostUnknown:
                if introduced:
                    raise
                introduced = True
                await self._node.announcements.introduce(copy.task_id)
            except Unavailable as error:
                if not patient:
                    raise
                logger.info("scheduler lost", task=copy.task_id, why=str(error))
                await asyncio.sleep(_RETRY)
                introduced = False

    async def _say_failed(
        self, copy: CopyName, say: Callable[[Scheduler], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._say(copy, say, patient=True)
        except (DragonflyError, TimeoutError) as error:
            logger.info("failed import not told", task=copy.task_id, why=str(error))


def _piece_length(request: ImportRequest, file: ImportFile) -> int:
    return piece_length_for(file.length, request.piece_length)


def _check(request: ImportRequest) -> None:
    if not policy_of(request.kind).imported:
        raise FeatureOff(f"{request.kind.name} tasks are not imported")
    length = request.piece_length
    if length is not None and not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
        raise InvalidRequest(
            f"piece length {length} is not between {MIN_PIECE_LENGTH} and {MAX_PIECE_LENGTH}"
        )
    if request.replicas < 1:
        raise InvalidRequest(f"persistent replica count {request.replicas}: want at least 1")
    if not TTL[0] <= request.ttl <= TTL[1]:
        raise InvalidRequest(f"ttl {request.ttl:g} s: want {TTL[0]:g} to {TTL[1]:g}, 5m to 7d")
