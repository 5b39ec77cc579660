"""What a child asks of parents: which pieces they have, and, failing Vortex, pieces."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio

from pantala.core.pace import SLEPT
from pantala.errors import (
    Busy,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    ParentLost,
    RemoteProtocolError,
)
from pantala.model.announce import Candidate, free_bandwidth
from pantala.model.digest import crc32, piece_digest, piece_metadata_digest
from pantala.model.exchange import Copy, Exchanged, Offer, Offering, Wish
from pantala.model.growth import Grown, Leader
from pantala.model.numbers import bits_of, runs_of
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2, dfdaemon_pb2_grpc, exchange_pb2, exchange_pb2_grpc
from pantala.ports import Wants

from . import status
from .convert import optional
from .daemon_dialects import daemon_dialect
from .transport import channel_options

#: Initial metadata of a piece stream that says which version of the content the parent has
#: (percent-encoded). Dragonfly's contract has no place for it; strangers ignore it.
VERSION_KEY: Final = "pantala-version"

#: Initial metadata with one digest over those of all pieces, if the parent has all.
DIGESTS_KEY: Final = "pantala-digests"

#: Initial metadata with the parent's clock, unix seconds. A piece that it got later than it
#: offered it is of another copy, made since.
CLOCK_KEY: Final = "pantala-clock"

#: Seconds until a parent's first word: connect, and headers.
_HELLO_LIMIT: Final = 10.0

#: Seconds between two pings of a parent: one that hangs must show while somebody waits for it.
_KEEPALIVE: Final = 10.0

#: Open channels; beyond, the one used longest ago is closed.
_MAX_CHANNELS: Final = 512


class GrpcParents:
    """Other daemons as parents, by gRPC. A few channels are kept, the latest used."""

    def __init__(self, host_id: str) -> None:
        self._host_id = host_id
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._in_use: dict[str, int] = {}
        #: Addresses of those who do not exchange, the latest last.
        self._plain: OrderedDict[str, None] = OrderedDict()

    async def close(self) -> None:
        """Close every channel; calls under way fail."""
        channels, self._channels = self._channels, OrderedDict()
        for channel in channels.values():
            await channel.close()

    async def _stub(self, address: str) -> Any:
        return dfdaemon_pb2_grpc.DfdaemonUploadStub(await self._channel(address))

    async def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            options = channel_options(address, keepalive=_KEEPALIVE, pieces=True)
            channel = grpc.aio.insecure_channel(address, options)
            self._channels[address] = channel
        self._channels.move_to_end(address)
        idle = [a for a in self._channels if not self._in_use.get(a) and a != address]
        if len(self._channels) > _MAX_CHANNELS and idle:
            await self._channels.pop(idle[0]).close()
        return channel

    def _use(self, address: str, change: int) -> None:
        count = self._in_use.get(address, 0) + change
        if count:
            self._in_use[address] = count
        else:
            self._in_use.pop(address, None)

    async def offers(
        self, parent: Candidate, kind: Kind, task_id: str, numbers: frozenset[int], *, gap: float
    ) -> AsyncIterator[Offer | Copy]:
        """See :class:`~pantala.ports.ParentLink`."""
        dialect = daemon_dialect(kind)
        self._use(parent.host.address, 1)
        try:
            stub = await self._stub(parent.host.address)
            request = dialect.message("Sync{}PiecesRequest")
            wanted = {dialect.numbers: sorted(numbers)}
            message = request(host_id=self._host_id, task_id=task_id, **wanted)
            call = getattr(stub, dialect.name("Sync{}Pieces"))(message)
            async with aclosing(_read(call, gap)) as answers:
                hello: _Hello = await anext(answers)
                yield hello.copy
                async for answer in answers:
                    yield _offer(answer, parent, hello.clock())
        except grpc.aio.AioRpcError as error:
            mine = status.from_rpc_error(error, f"parent {parent.host.address}")
            raise (mine if isinstance(mine, Busy) else ParentLost(str(mine))) from error
        except TimeoutError:
            raise ParentLost(f"parent {parent.host.address}: silent for {gap:g} s") from None
        finally:
            self._use(parent.host.address, -1)

    async def exchange(
        self, parent: Candidate, kind: Kind, task_id: str, wants: Wants, *, gap: float
    ) -> AsyncGenerator[Copy | Exchanged | Offering, None]:
        """See :class:`~pantala.ports.ParentLink`."""
        address = parent.host.address
        if address in self._plain:
            return
        self._use(address, 1)
        try:
            call = exchange_pb2_grpc.ExchangeStub(await self._channel(address)).Follow()
            first = _wish(wants.first)
            first.host_id, first.task_id = self._host_id, task_id
            first.type, first.peer_id = kind.value, wants.name
            async with _told(call, first, wants), aclosing(_read(call, gap)) as answers:
                hello: _Hello = await anext(answers)
                exchanged = _exchanged(await anext(answers), parent)
                yield hello.copy  # only now: whoever does not exchange has no copy to tell of
                yield exchanged
                async for answer in answers:
                    pieces = bits_of((run.first, run.count) for run in answer.offers)
                    yield Offering(pieces, hello.clock())
        except StopAsyncIteration:
            raise ParentLost(f"parent {address}: had nothing to say") from None
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._note_plain(address)
                return
            mine = status.from_rpc_error(error, f"parent {address}")
            raise (mine if isinstance(mine, Busy) else ParentLost(str(mine))) from error
        except InvalidRequest as error:
            raise RemoteProtocolError(f"parent {address}: {error}") from None
        except TimeoutError:
            raise ParentLost(f"parent {address}: silent for {gap:g} s") from None
        finally:
            self._use(address, -1)

    async def grown(
        self, leader: Leader, kind: Kind, task_id: str, version: str, *, gap: float
    ) -> AsyncGenerator[Grown, None]:
        """See :class:`~pantala.ports.ParentLink`."""
        address = leader.address
        self._use(address, 1)
        try:
            request = exchange_pb2.GrowRequest(
                host_id=self._host_id, task_id=task_id, version=version
            )
            request.type = kind.value  # type: ignore[assignment]  # the kinds are the types
            call = exchange_pb2_grpc.ExchangeStub(await self._channel(address)).Grow(request)
            async with aclosing(_read(call, gap)) as answers:
                await anext(answers)  # what the headers say
                first = await anext(answers)
                ip, port = _place(first, address)
                yield Grown(ip, port, first.steps)
                async for answer in answers:
                    yield Grown(ip, port, answer.steps)
        except StopAsyncIteration:
            raise ParentLost(f"{address}: had nothing to say") from None
        except grpc.aio.AioRpcError as error:
            raise ParentLost(str(status.from_rpc_error(error, address))) from error
        except TimeoutError:
            raise ParentLost(f"{address}: silent for {gap:g} s") from None
        finally:
            self._use(address, -1)

    def _note_plain(self, address: str) -> None:
        """A parent does not exchange. It may tomorrow, by another version: some are forgotten."""
        self._plain[address] = None
        if len(self._plain) > _MAX_CHANNELS:
            self._plain.popitem(last=False)

    async def weights(self, parent: Candidate) -> AsyncGenerator[float, None]:
        """See :class:`~pantala.ports.ParentLink`."""
        self._use(parent.host.address, 1)
        try:
            stub = await self._stub(parent.host.address)
            message = dfdaemon_pb2.SyncHostRequest(host_id=self._host_id, peer_id=str(uuid.uuid4()))
            call = stub.SyncHost(message)
            try:
                # Pings end it when the parent hangs.
                while (host := await call.read()) is not grpc.aio.EOF:
                    network = host.network
                    yield free_bandwidth(network.max_tx_bandwidth, network.tx_bandwidth)
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            raise ParentLost(
                str(status.from_rpc_error(error, f"parent {parent.host.address}"))
            ) from error
        finally:
            self._use(parent.host.address, -1)

    async def fetch(
        self,
        parent: Candidate,
        kind: Kind,
        task_id: str,
        piece: Offer,
        *,
        limit: float,
    ) -> tuple[bytes, str]:
        """See :class:`~pantala.ports.ParentLink`."""
        dialect = daemon_dialect(kind)
        method = dialect.method("Download{}Piece")
        if method is None:
            raise ParentLost(f"parent {parent.host.address}: names no port for its pieces")
        self._use(parent.host.address, 1)
        try:
            stub = await self._stub(parent.host.address)
            request = dialect.message("Download{}PieceRequest")
            message = request(host_id=self._host_id, task_id=task_id, piece_number=piece.number)
            answer = await getattr(stub, method)(message, timeout=limit)
        except grpc.aio.AioRpcError as error:
            mine = status.from_rpc_error(error, f"parent {parent.host.address}")
            raise (mine if isinstance(mine, NotFound) else ParentLost(str(mine))) from error
        finally:
            self._use(parent.host.address, -1)
        return _checked(answer, piece, parent.host.address)


class _Hello:
    """What a parent says of its copy before it offers pieces of it."""

    def __init__(self, metadata: dict[str, str]) -> None:
        version = unquote(metadata.get(VERSION_KEY, ""))
        self.copy = Copy(version, metadata.get(DIGESTS_KEY, ""))
        self._came = asyncio.get_running_loop().time()
        self._clock: float | None = None
        with contextlib.suppress(ValueError):
            self._clock = float(metadata[CLOCK_KEY]) if CLOCK_KEY in metadata else None

    def clock(self) -> float | None:
        """What the parent's clock shows now; None if it told none."""
        if self._clock is None:
            return None
        return self._clock + asyncio.get_running_loop().time() - self._came


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """As ``asyncio.timeout``; but one that ends far too late says nothing of a parent.

    Raises:
        Busy: It was us who were stopped meanwhile, or our machine.
        TimeoutError: The time is over.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        late = asyncio.get_running_loop().time() - (limit.when() or 0.0)
        if late > SLEPT:
            raise Busy(f"we slept for {late:.1f} s; try again") from None
        raise


async def _read(call: Any, gap: float) -> AsyncGenerator[Any, None]:
    """What the headers say, then the messages of a piece stream."""
    try:
        async with _within(_HELLO_LIMIT):
            metadata = await call.initial_metadata()
        yield _Hello({k: str(v) for k, v in metadata})
        while True:
            async with _within(gap):
                answer = await call.read()
            if answer is grpc.aio.EOF:
                code = await call.code()
                if code is grpc.StatusCode.UNIMPLEMENTED:
                    await call.read()  # raises what the stream ended with
                if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Busy(await call.details())
                if code is not grpc.StatusCode.OK:
                    raise ParentLost(f"{code.name}: {await call.details()}")
                return
            yield answer
    finally:
        call.cancel()


@asynccontextmanager
async def _told(call: Any, first: Any, wants: Wants) -> AsyncIterator[None]:
    """Have a parent told what is wanted, inside the ``with``."""

    async def tell() -> None:
        # Whoever reads the answers learns why nothing more can be told.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(first)
            while True:
                await call.write(_wish(await wants.next()))

    telling = asyncio.get_running_loop().create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


def _wish(wish: Wish) -> Any:
    return exchange_pb2.FollowRequest(
        lacks=_runs(wish.lacks),
        has=_runs(wish.has | wish.later),
        room=None if wish.room is None else max(0, wish.room),
        later=_runs(wish.later),
    )


def _runs(pieces: int) -> list[Any]:
    return [exchange_pb2.Run(first=first, count=count) for first, count in runs_of(pieces)]


def _exchanged(answer: Any, parent: Candidate) -> Exchanged:
    ip, port = _place(answer, parent.host.address)
    return Exchanged(answer.content_length, answer.piece_length, ip, port)


def _place(answer: Any, address: str) -> tuple[str, int]:
    """Where the parent at *address* says that it serves pieces."""
    if not _is_at(address, answer.ip) or not 0 < answer.tcp_port < 65536:
        what = f"{answer.ip}:{answer.tcp_port} for its pieces, which is another machine"
        raise RemoteProtocolError(f"parent {address}: names {what}")
    return answer.ip, answer.tcp_port


def _offer(answer: Any, parent: Candidate, at: float | None) -> Offer:
    port = optional(answer, "tcp_port")
    ip = answer.ip
    usable = port if ip and port and 0 < port < 65536 else None
    if usable is not None and not _is_at(parent.host.address, ip):
        raise RemoteProtocolError(
            f"parent {parent.host.address}: names {ip}:{port} for its pieces, which is another "
            "machine"
        )
    return Offer(answer.number, answer.offset, answer.length, ip, usable, at)


def _is_at(address: str, ip: str) -> bool:
    """Whether *ip* is that of *address*: nobody shall have children call whom he likes."""
    announced = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(ip) == ipaddress.ip_address(announced)
    except ValueError:  # a name: the same one then
        return ip == announced


def _checked(answer: Any, want: Offer, who: str) -> tuple[bytes, str]:
    """The bytes of a piece that came in a message, and their digest, if all is as it should be."""
    piece = answer.piece
    said = (piece.number, piece.offset, piece.length, len(piece.content))
    if said != (want.number, want.offset, want.length, want.length):
        raise RemoteProtocolError(f"parent {who}: asked for {want}, got {said}")
    if answer.HasField("digest"):
        expected = piece_metadata_digest(want.number, piece.offset, piece.length, piece.digest)
        if answer.digest != expected:
            what = f"metadata of piece {want.number} from {who}"
            raise DigestMismatch(what, want=expected, got=answer.digest)
    digest = piece_digest(crc32(piece.content))
    if piece.digest and digest != piece.digest:
        raise DigestMismatch(f"piece {want.number} from {who}", want=piece.digest, got=digest)
    return piece.content, digest
