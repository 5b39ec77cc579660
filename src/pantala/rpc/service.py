"""Any service of the contract as a gRPC handler, made from its descriptor.

An implementation is an object with a method for each RPC that it serves, named as in the
contract; what it lacks is answered UNIMPLEMENTED.

    rpc                          method of the implementation
    unary → unary                async def M(self, request, context) -> response
    unary → stream               async def M(self, request, context): yield response
    stream → unary               async def M(self, requests, context) -> response
    stream → stream              async def M(self, requests, context): yield response

``requests`` is an async iterator. Methods raise; what they raise becomes the call's status.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pantala.errors import DragonflyError, InvalidRequest, TimedOut

from . import status

#: Called before a call is carried out, with the RPC's name. Raises to refuse the call.
Admit = Callable[[str], Awaitable[None]]

#: Called once for each call that was carried out or refused, with the RPC's name and what it
#: raised: None when it went well. A cancelled call tells ``asyncio.CancelledError``.
Observe = Callable[[str, BaseException | None], None]

#: Seconds for the message that a stream opens with.
FIRST_WORD: Final = 10.0

_REFLECTION: Final = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Callable[[Any, _Context], Awaitable[Any]]

_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def sends_headers(method: _F) -> _F:
    """Mark a streaming method that sends initial metadata of its own, at once."""
    method.sends_headers = True  # type: ignore[attr-defined]  # functions take attributes
    return method


def reads(convert: Callable[[Any, int], Any]) -> Callable[[_F], _F]:
    """Mark a method that is called with *convert*'s result in place of the request.

    A call keeps its request until it ends. Where that takes long, what is kept should be small.
    *convert* gets the message and the bytes that it took on the wire, and must not raise.
    """

    def mark(method: _F) -> _F:
        method.reads = convert  # type: ignore[attr-defined]  # functions take attributes
        return method

    return mark


def add_service(
    server: grpc.aio.Server,
    full_name: str,
    implementation: object,
    *,
    admit: Admit | None = None,
    observe: Observe | None = None,
) -> None:
    """Let *server* answer a service with the methods of *implementation*.

    Args:
        server: Not started yet.
        full_name: As in the contract, such as ``"scheduler.v2.Scheduler"``. The module that
            was generated from its file must have been imported.
        implementation: See the module's docstring.
        admit: Decides on each call before it is carried out.
        observe: Told of each call's end.

    Raises:
        KeyError: No such service.
    """
    service = descriptor_pool.Default().FindServiceByName(full_name)
    handlers = {
        method.name: _handler(method, getattr(implementation, method.name), admit, observe)
        for method in service.methods
        if hasattr(implementation, method.name)
    }
    server.add_registered_method_handlers(full_name, handlers)


def add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Let *server* tell what services it has, in both versions of the reflection protocol.

    Their messages are the same on the wire; the library knows the older name only.
    """
    services = (*names, *_REFLECTION, health.SERVICE_NAME)
    servicer: Any = reflection.aio.ReflectionServicer(service_names=services)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in _REFLECTION:
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})


def add_health_and_reflection(
    server: grpc.aio.Server, servicer: health.HealthServicer, services: Sequence[str]
) -> None:
    """Let *server* say what it has, and that it serves, until *servicer* is told otherwise."""
    for name in services:
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    add_reflection(server, services)


def _handler(
    method: MethodDescriptor,
    behaviour: Callable[[Any, _Context], Any],
    admit: Admit | None,
    observe: Observe | None,
) -> grpc.RpcMethodHandler[Any, Any]:
    call = _streaming(behaviour) if method.server_streaming else behaviour
    convert = getattr(behaviour, "reads", None)
    return _MAKERS[method.client_streaming, method.server_streaming](
        _guarded(method.name, call, admit, observe),
        request_deserializer=_reader(method, convert),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """What stands for a message that makes no sense.

    grpcio would log kilobytes of traceback for each, and answer INTERNAL, if reading it raised.
    """

    error: DragonflyError


def _reader(method: MethodDescriptor, convert: Callable[[Any, int], Any] | None) -> Any:
    parse = GetMessageClass(method.input_type).FromString

    def read(data: bytes) -> Any:
        try:
            message = parse(data)
            return message if convert is None else convert(message, len(data))
        except DecodeError:
            name = method.input_type.full_name
            return _Unreadable(InvalidRequest(f"{method.name}: {len(data)} bytes are no {name}"))
        except DragonflyError as error:
            return _Unreadable(error)

    return read


def _readable(request: Any) -> Any:
    """*request*, or the error that reading it was."""
    if isinstance(request, _Unreadable):
        raise request.error
    return request


class _Messages(AsyncIterator[Any]):
    """The messages of a call's stream, each readable or an error when its turn comes.

    The call is asked for each: a generator between it and the method would take as long as reading
    a short message does.
    """

    __slots__ = ("_read",)

    def __init__(self, context: _Context) -> None:
        self._read = context.read

    async def __anext__(self) -> Any:
        message = await self._read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return _readable(message)


def address_of(context: _Context) -> str:
    """The machine that calls, without its port; ``"unix"`` for this one by a socket."""
    return machine_of(context.peer()) or "unix"


def machine_of(peer: str) -> str:
    """The address in a peer's name, as gRPC gives it; ``""`` for a socket of this machine.

    >>> [machine_of(p) for p in ("ipv4:10.0.0.1:9", "ipv6:%5B::ffff:10.0.0.1%5D:9", "unix:")]
    ['10.0.0.1', '10.0.0.1', '']
    """
    family, _, where = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    host = where.rpartition(":")[0].strip("[]").partition("%")[0]
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


async def first_word(requests: AsyncIterator[_T], who: str) -> _T:
    """The message that a stream opens with; *who* is to say it.

    Raises:
        TimedOut: Nothing came within :data:`FIRST_WORD`.
        InvalidRequest: Nothing will come.
    """
    try:
        async with asyncio.timeout(FIRST_WORD):
            return await anext(requests)
    except TimeoutError:
        raise TimedOut(f"not a word of the {who} within {FIRST_WORD:g} s") from None
    except StopAsyncIteration:
        raise InvalidRequest(f"the {who} says nothing") from None


def _guarded(name: str, call: _Handler, admit: Admit | None, observe: Observe | None) -> _Handler:
    """Admission, status and observation around *call*."""

    async def guarded(request: Any, context: _Context) -> Any:
        raised: BaseException | None = None
        try:
            if admit is not None:
                await admit(name)
            said = _Messages(context) if hasattr(request, "__aiter__") else _readable(request)
            return await call(said, context)
        except grpc.aio.AbortError as error:  # the method has ended the call itself
            raised = error
            raise
        except Exception as error:  # noqa: BLE001  the boundary: whatever it is, it is answered
            raised = error
            await status.abort(context, error)
        except BaseException as error:  # cancelled: nobody is there to be answered
            raised = error
            raise
        finally:
            if observe is not None:
                observe(name, raised)

    return guarded


def _streaming(behaviour: Callable[[Any, _Context], AsyncGenerator[Any, None]]) -> _Handler:
    """*behaviour*'s messages written one by one; its ``finally`` blocks run before the end."""

    async def stream(request: Any, context: _Context) -> None:
        # gRPC would hold the headers back until the first message, and Dragonfly's Rust
        # clients give a call up that has sent none for ten seconds.
        if not getattr(behaviour, "sends_headers", False):
            await context.send_initial_metadata(())
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return stream
