"""Calling a host: what a scheduler asks of daemons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from pantala.errors import Unavailable
from pantala.model.announce import HostFacts
from pantala.pb import dfdaemon_pb2_grpc
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

#: Seconds until the first word of a host of ours, which it says at once.
_HELLO_LIMIT: Final = 3.0

#: Seconds between two pings: whoever waits for a host waits as long as it lives. Ours let them be
#: as frequent as that, and stock daemons count none.
_KEEPALIVE: Final = 10.0


async def ask(
    host: HostFacts,
    method: str,
    request: Any,
    *,
    timeout: float,  # noqa: ASYNC109  grpc's
    stock_hello: float,
    hello: float = _HELLO_LIMIT,
    what: str = "host",
    service: Callable[[Any], Any] = dfdaemon_pb2_grpc.DfdaemonUploadStub,
    heard: Callable[[Any], object] = lambda _answer: None,
    ended: Callable[[Mapping[str, str | bytes]], object] = lambda _trailing: None,
) -> Any:
    """What a host answers, of a stream the last message; it has carried out what was asked.

    Args:
        host: Whom.
        method: Of its service for others, or of *service*.
        request: What.
        timeout: Seconds for all of it.
        stock_hello: Seconds until the first word of a stock daemon, which does something first.
        hello: Likewise of one of ours.
        what: It is to us, for messages.
        service: Makes the stub of the service from a channel.
        heard: Told each message of a stream.
        ended: Told what is said at the end of a stream that ended well.

    Raises:
        DragonflyError: It refused, could not be reached, or was silent for too long; or *heard* or
            *ended* raised it.
    """
    hello = hello if host.is_ours else stock_hello
    options = channel_options(host.address, keepalive=_KEEPALIVE)
    async with grpc.aio.insecure_channel(host.address, options) as channel:
        stub = service(channel)
        answer = None
        try:
            call = getattr(stub, method)(request, timeout=timeout)
            if not hasattr(call, "__aiter__"):
                return await call
            async with asyncio.timeout(hello):
                await call.initial_metadata()
            async for answer in call:
                heard(answer)
            ended(dict(await call.trailing_metadata() or ()))
        except TimeoutError:
            raise Unavailable(f"{what} {host.id}: silent for {hello:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"{what} {host.id}") from error
        return answer
