"""The schedulers of a daemon: who is there, whose a task is, and single calls."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, cast

import grpc
import grpc.aio
import structlog

from pantala.background import Loops
from pantala.core.beliefs import Beliefs
from pantala.errors import (
    Busy,
    DragonflyError,
    HostUnknown,
    NotFound,
    SchedulerLost,
    SourceFailed,
    TaskNotFound,
)
from pantala.model.announce import Registration
from pantala.model.task import Description, DownloadRequest, ImportedTask, Kind
from pantala.pb import (
    common_pb2,
    node_pb2,
    node_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from pantala.ports import KnownTask

from . import status
from .announce_stream import GrpcAnnounceStream
from .convert import duration
from .describing import GrpcTurn, Questions, question
from .dialects import dialect_of
from .import_calls import imported_task
from .patience import while_busy
from .transport import channel_options

logger = structlog.get_logger(__name__)

#: Trailing metadata of AnnounceHost: new at each start of a scheduler of ours.
EPOCH_KEY: Final = "pantala-epoch"

#: Metadata of every call: what only this life of this daemon knows. A scheduler of ours lets nobody
#: else speak for its host; strangers ignore it.
SECRET_KEY: Final = "pantala-secret"  # noqa: S105  a name

#: While a scheduler is away, each host calls upon it every second and a half, give or take a fifth,
#: so that no download goes without it for much longer than it is away; the kernel of its machine
#: refuses them. gRPC by itself would wait for up to two minutes. The last is how long a connection
#: may take to be there, by default 20 s.
_RECONNECT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1500),
    ("grpc.min_reconnect_backoff_ms", 5000),
)

_UNARY_LIMIT: Final = 10.0  # seconds, as Dragonfly's client
_SWARM_LIMIT: Final = 25.0  # a scheduler gives itself 20 s to tell all hosts
_STAT_LIMIT: Final = 3.0  # somebody waits for this one; without an answer the origin is asked


class Scheduler:
    """One scheduler, by address.

    Args:
        address: Where it is.
        secret: By which it knows that it is us who call.
        on_lost: Called with *address* whenever it turns out to be away, however that shows.
        on_there: Likewise when there is a connection to it again, or for the first time.
    """

    def __init__(
        self,
        address: str,
        secret: str,
        on_lost: Callable[[str], object],
        on_there: Callable[[str], object],
    ) -> None:
        self.address = address
        #: Goes with every call.
        self.metadata: Final = ((SECRET_KEY, secret),)
        self._on_lost = on_lost
        self._on_there = on_there
        #: What it called itself at the last announcement; None for a stock one.
        self.epoch: str | None = None
        self._closed = False
        options = (*channel_options(address), *_RECONNECT)
        self._channel = grpc.aio.insecure_channel(address, options)
        self.stub: Any = scheduler_pb2_grpc.SchedulerStub(self._channel)
        self._swarm: Any = node_pb2_grpc.SwarmStub(self._channel)
        self.questions = Questions(self, self._channel, on_lost)

    def __repr__(self) -> str:
        return f"<Scheduler {self.address}>"

    def error(self, error: grpc.aio.AioRpcError) -> DragonflyError:
        """The error of ours that a failed call stands for.

        A scheduler that is away is not asked again before it has answered an announcement. One that
        cannot get at its records says so, and is there for all else.
        """
        away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if away and not status.is_answer(error):
            self._on_lost(self.address)
        mine = status.from_rpc_error(error, f"scheduler {self.address}")
        if type(mine) is NotFound and self.epoch is None:
            # A stock scheduler does not say what it has not found. It may be us.
            return HostUnknown(str(mine))
        return mine

    async def announce(self, host: common_pb2.Host, interval: float) -> None:
        """Tell it who we are. Raises DragonflyError if it did not take it."""
        message = scheduler_pb2.AnnounceHostRequest(host=host, interval=duration(interval))
        trailing = await while_busy(lambda: self._announce(message), limit=_UNARY_LIMIT)
        epoch = next((str(v) for k, v in trailing if k == EPOCH_KEY), None)
        if epoch != self.epoch:  # it may be another program by now
            self.epoch, self.questions.understood = epoch, True

    async def _announce(self, message: scheduler_pb2.AnnounceHostRequest) -> Any:
        """Announce once; the trailing metadata."""
        with self.speaking():
            call = self.stub.AnnounceHost(message, timeout=_UNARY_LIMIT, metadata=self.metadata)
            await call
            return await call.trailing_metadata()

    async def leave(self, host_id: str, limit: float = _UNARY_LIMIT) -> None:
        """Have it forget this host and what it held. Raises DragonflyError if it is away."""
        with contextlib.suppress(NotFound):
            message = scheduler_pb2.DeleteHostRequest(host_id=host_id)
            await self.call("DeleteHost", message, limit)

    async def delete_task(self, host_id: str, kind: Kind, task_id: str) -> None:
        """Say that a host holds a task no longer. Raises DragonflyError if it did not take it."""
        method, request = dialect_of(kind).delete
        await self.call(method, request(host_id=host_id, task_id=task_id))

    async def delete_from_swarm(self, host_id: str, kind: Kind, task_id: str) -> Any:
        """Have it tell all other hosts to delete a task; its answer. Raises DragonflyError."""
        message = node_pb2.DeleteFromSwarmRequest(host_id=host_id, task_id=task_id)
        message.type = cast("common_pb2.TaskType.ValueType", kind.value)
        with self.speaking():
            return await self._swarm.DeleteTask(
                message, timeout=_SWARM_LIMIT, metadata=self.metadata
            )

    async def call(
        self,
        method: str,
        message: Any,
        limit: float = _UNARY_LIMIT,
        *,
        patience: float | None = _UNARY_LIMIT,
    ) -> Any:
        """A unary call, made anew for so many seconds of *patience* while it is refused for load.

        Raises:
            DragonflyError: It failed.
        """

        async def attempt() -> Any:
            with self.speaking():
                send = getattr(self.stub, method)
                return await send(message, timeout=limit, metadata=self.metadata)

        return await while_busy(attempt, limit=patience)

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Whatever a call may raise, as an error of ours.

        A channel that is closed cancels its calls: that is not our own cancellation.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from error
        except (asyncio.CancelledError, grpc.aio.UsageError):
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise SchedulerLost(f"scheduler {self.address} is not ours any longer") from None

    async def watch(self) -> None:
        """Notice that the connection broke, long before the next announcement would; and is back.

        A scheduler that comes back knows nothing; whoever notices at once loses a moment only.
        Returns when the connection's state has changed; to be called again, until :meth:`close`.
        """
        state = self._channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            self._on_there(self.address)
        else:
            self._on_lost(self.address)
        await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        await self._channel.close()


class Schedulers:
    """All schedulers of this daemon.

    Args:
        host_id: Ours.
        beliefs: Who of them is there, and what each has been told.
        schedule_timeout: Seconds that a scheduler may think at most.
        loops: Where the watches on connections run. None: on their own.
    """

    def __init__(
        self,
        host_id: str,
        beliefs: Beliefs,
        *,
        schedule_timeout: float,
        loops: Loops | None = None,
    ) -> None:
        self._beliefs = beliefs
        self._loops = loops or Loops()
        self._host_id = host_id
        self._schedule_timeout = schedule_timeout
        self._secret = secrets.token_urlsafe(32)
        self._all: dict[str, Scheduler] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        #: Called when a scheduler went away: it is to be announced to until it is back.
        self.on_trouble: Callable[[], None] = lambda: None
        #: Called when one may be announced to that was away.
        self.on_return: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Scheduler]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    async def set_addresses(self, addresses: Iterable[str]) -> None:
        """Announce to these from now on. New ones are used once they have been announced to."""
        wanted = set(addresses)
        self._beliefs.listed(wanted)
        for address in wanted - self._all.keys():
            scheduler = self._all[address] = Scheduler(
                address, self._secret, self._lost, self._there
            )
            self._watches[address] = self._loops.keep(scheduler.watch, "watch a scheduler")
        for address in self._all.keys() - wanted:
            watching = self._watches.pop(address, None)  # None: we were broken off below, once
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await self._all.pop(address).close()

    def _lost(self, address: str) -> None:
        if self._beliefs.lost(address):
            self.on_trouble()

    def _there(self, address: str) -> None:
        if address not in self._beliefs.available:
            self.on_return()

    async def close(self) -> None:
        """Close all channels."""
        await self.set_addresses(())

    @property
    def addresses(self) -> frozenset[str]:
        """All that we announce to, whether they answer or not."""
        return frozenset(self._all)

    def get(self, address: str) -> Scheduler | None:
        """The scheduler at *address*, if it is one of ours."""
        return self._all.get(address)

    def pick(self, task_id: str) -> Scheduler | None:
        """The scheduler of a task, among those that answer."""
        address = self._beliefs.owner(task_id)
        return None if address is None else self._all[address]

    async def greet(self, address: str, host: common_pb2.Host, interval: float) -> bool:
        """Announce this host to one scheduler; whether it may not know what it was told before.

        Raises:
            DragonflyError: It did not take it.
        """
        scheduler, greeting = self._all.get(address), self._beliefs.greeting(address)
        if scheduler is None or greeting is None:  # the list has changed
            return False
        try:
            if greeting.afresh:
                # Whatever it remembers of this host is from before we were started.
                await scheduler.leave(host.id)
            await scheduler.announce(host, interval)
        except Busy:
            raise  # it is there
        except DragonflyError:
            self._beliefs.lost(address)
            raise
        now = asyncio.get_running_loop().time()
        return self._beliefs.announced(greeting, scheduler.epoch, now)

    async def stat(self, kind: Kind, task_id: str) -> KnownTask | None:
        """See :class:`~pantala.ports.SchedulerLink`."""
        # Instead of an answer there is only the origin, which all would ask at once.
        task = await self.stat_message(kind, task_id, patience=None)
        if task is None or task.id != task_id or not task.has_available_peer:
            return None
        if not task.content_length and task.piece_count:
            return None
        first = next((p.length for p in task.pieces if p.number == 0), None)
        return KnownTask(task.content_length, task.piece_count, first)

    async def description(
        self,
        request: DownloadRequest,
        task_id: str,
        *,
        origin: bool,
        version: str,
        patience: float | None,
    ) -> Description | GrpcTurn | None:
        """See :class:`~pantala.ports.SchedulerLink`."""
        scheduler = self.pick(task_id)
        if scheduler is None or not scheduler.questions.understood:
            return None
        ask = question(self._host_id, task_id, request, origin=origin, version=version)
        try:
            return await while_busy(
                lambda: scheduler.questions.ask(ask, patience=patience), limit=patience
            )
        except SourceFailed:
            raise
        except DragonflyError as error:
            logger.warning("cannot ask the swarm", task=task_id, error=str(error))
            self.on_trouble()
            return None

    async def stat_message(
        self, kind: Kind, task_id: str, *, patience: float | None = _UNARY_LIMIT
    ) -> Any:
        """The scheduler's own words on a task; None when there are none.

        Args:
            kind: Of the task.
            task_id: The task.
            patience: Seconds to try again while the scheduler has too much to do.
        """
        scheduler = self.pick(task_id)
        if scheduler is None:
            return None
        method, request = dialect_of(kind).stat
        message = request(host_id=self._host_id, task_id=task_id)
        try:
            return await scheduler.call(method, message, _STAT_LIMIT, patience=patience)
        except NotFound:
            return None
        except DragonflyError as error:
            logger.warning("cannot ask the swarm", task=task_id, error=str(error))
            self.on_trouble()
            return None

    def require(self, task_id: str) -> Scheduler:
        """The scheduler of a task. Raises SchedulerLost: there is none that answers."""
        scheduler = self.pick(task_id)
        if scheduler is None:
            raise SchedulerLost("no scheduler is available")
        return scheduler

    async def imported(self, kind: Kind, task_id: str) -> ImportedTask:
        """See :class:`~pantala.ports.SchedulerLink`."""
        return imported_task(await self.describe(kind, task_id))

    async def describe(self, kind: Kind, task_id: str) -> Any:
        """The scheduler's own words on a task that was imported.

        Raises:
            TaskNotFound: It knows of none.
            DragonflyError: It does not say.
        """
        method, request = dialect_of(kind).stat
        message = request(host_id=self._host_id, task_id=task_id)
        try:
            return await self.require(task_id).call(method, message, _STAT_LIMIT)
        except NotFound:
            raise TaskNotFound(task_id) from None

    async def delete_host(self, limit: float) -> None:
        """Say goodbye to every scheduler that knows us."""

        async def goodbye(scheduler: Scheduler) -> None:
            with contextlib.suppress(DragonflyError):
                await scheduler.leave(self._host_id, limit)

        await asyncio.gather(*(goodbye(self._all[a]) for a in self._beliefs.available))

    def open_stream(
        self, registration: Registration, address: str | None = None
    ) -> GrpcAnnounceStream:
        """A stream that opens with a registration.

        Args:
            registration: For what.
            address: To whom. None: to the scheduler of the task.

        Raises:
            SchedulerLost: No scheduler is available.
        """
        at = self._beliefs.owner(registration.task_id) if address is None else address
        scheduler = None if at is None else self._all.get(at)
        if scheduler is None:
            raise SchedulerLost("no scheduler is available")
        return GrpcAnnounceStream(scheduler, registration, self._schedule_timeout)
