"""One scheduler: the connection to it, and single calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.errors import DragonflyError, HostUnknown, NotFound, SchedulerLost
from pantala.model.task import Kind
from pantala.pb import (
    common_pb2,
    node_pb2,
    node_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)

from . import status
from .convert import duration
from .describing import Questions
from .dialects import dialect_of
from .holdings import Holdings
from .patience import while_busy
from .reporting import Reports
from .transport import channel_options

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

UNARY_LIMIT: Final = 10.0  # seconds, as Dragonfly's client
_SWARM_LIMIT: Final = 25.0  # a scheduler gives itself 20 s to tell, or ask, all hosts


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
        self.reports = Reports(self, self._channel)
        self.holdings = Holdings(self, self._channel)

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
        trailing = await while_busy(lambda: self._announce(message), limit=UNARY_LIMIT)
        epoch = next((str(v) for k, v in trailing if k == EPOCH_KEY), None)
        if epoch != self.epoch:  # it may be another program by now
            self.epoch, self.questions.understood = epoch, True
            self.reports.understood = None
            self.holdings.understood = True

    async def _announce(self, message: scheduler_pb2.AnnounceHostRequest) -> Any:
        """Announce once; the trailing metadata."""
        with self.speaking():
            call = self.stub.AnnounceHost(message, timeout=UNARY_LIMIT, metadata=self.metadata)
            await call
            return await call.trailing_metadata()

    async def leave(self, host_id: str, limit: float = UNARY_LIMIT) -> None:
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

    async def list_holders(self, request: Any) -> Any:
        """Which hosts hold how much of a task; its answer. Raises DragonflyError."""
        with self.speaking():
            return await self._swarm.ListHolders(
                request, timeout=_SWARM_LIMIT, metadata=self.metadata
            )

    async def call(
        self,
        method: str,
        message: Any,
        limit: float = UNARY_LIMIT,
        *,
        patience: float | None = UNARY_LIMIT,
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
