"""A daemon's gRPC socket, for programs that ask it something and wait for the answer.

Importing gRPC takes longer than all else that these programs do, so they import this when they have
something to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, cast

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from pantala.client.connection import dial
from pantala.errors import FeatureOff, TimedOut, Unavailable
from pantala.paths import DEFAULT_SOCKET, personal_socket
from pantala.pb import dfdaemon_pb2, node_pb2
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

#: Seconds. A daemon answers from memory; removing and asking involve its scheduler.
SHORT: Final = 5.0
LONG: Final = 30.0

#: What a daemon may be doing that gives no answer, though it takes connections.
_NO_ANSWER: Final = {
    grpc.StatusCode.UNAVAILABLE: "is about to end",
    grpc.StatusCode.DEADLINE_EXCEEDED: f"is stuck (nothing came in {SHORT:g} s)",
}

_DOWNLOAD: Final = dfdaemon_pb2.DESCRIPTOR.services_by_name["DfdaemonDownload"]
_NODE: Final = node_pb2.DESCRIPTOR.services_by_name["Node"]


class Daemon:
    """A daemon that answers.

    Args:
        endpoint: The path of its gRPC socket.
        channel: To it.

    Attributes:
        endpoint: As given.
        is_ours: It is pantala, so that it survives a cache RPC, and knows ``pantala.v1``.

    Raises:
        Unavailable: Nobody answers as a daemon does.
    """

    def __init__(self, endpoint: str, channel: grpc.Channel) -> None:
        self.endpoint = endpoint
        self._who = f"the daemon at {endpoint}"
        self._channel = channel
        try:
            info = self._unary(_NODE, "Info")(node_pb2.InfoRequest(), timeout=SHORT)
        except grpc.RpcError as error:
            status = _async(error).code()
            if status in _NO_ANSWER:
                # The words of gRPC are about the frames of HTTP/2.
                raise Unavailable(
                    f"no daemon answers at {endpoint}: it {_NO_ANSWER[status]}, or the socket is "
                    "another program's; name that of a daemon with --endpoint"
                ) from error
            if status is not grpc.StatusCode.UNIMPLEMENTED:
                raise from_rpc_error(_async(error), self._who) from error
            self.is_ours = False
        else:
            self.is_ours = info.version.startswith("pantala/")

    def need_ours(self, why: str) -> None:
        """Raises FeatureOff, with *why*, if the daemon is not pantala."""
        if not self.is_ours:
            raise FeatureOff(f"{self._who} is not pantala: {why}")

    def has(self, method: str) -> bool:
        """Whether the contract has a method of that name for programs."""
        return method in _DOWNLOAD.methods_by_name

    def ask(self, method: str, **fields: Any) -> Any:
        """Call a unary method of the contract's ``DfdaemonDownload``; its answer.

        Args:
            method: Its name.
            fields: Of the request.

        Raises:
            DragonflyError: What the daemon answered, or that it did not within 30 seconds.
        """
        return self._ask(_DOWNLOAD, method, fields)

    def ask_node(self, method: str, **fields: Any) -> Any:
        """The same of ``pantala.v1.Node``, which a daemon of ours has."""
        return self._ask(_NODE, method, fields)

    def wait(
        self, method: str, fields: Mapping[str, Any], tick: Callable[[], None], *, timeout: float
    ) -> Any:
        """Call a unary method that takes its time; its answer.

        Args:
            method: Its name.
            fields: Of the request.
            tick: Called ten times a second meanwhile.
            timeout: Seconds.

        Raises:
            DragonflyError: What the daemon answered, or that it did not within *timeout* seconds.
        """
        request = _request(_DOWNLOAD.methods_by_name[method], fields)
        call = self._unary(_DOWNLOAD, method).future(request, timeout=timeout)
        try:
            while True:
                try:
                    return call.result(timeout=0.1)
                except grpc.FutureTimeoutError:
                    tick()
        except grpc.RpcError as error:
            raise from_rpc_error(_async(error), self._who) from error
        finally:
            call.cancel()

    @contextmanager
    def stream(
        self, method: str, fields: Mapping[str, Any], *, timeout: float
    ) -> Iterator[Iterator[Any]]:
        """Call a method that answers with a stream of messages, to be read inside the ``with``.

        Raises:
            DragonflyError: What the daemon answered, or that it did not end in *timeout* seconds.
        """
        found = _DOWNLOAD.methods_by_name[method]
        call = self._channel.unary_stream(
            _path(found),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )(_request(found, fields), timeout=timeout)
        try:
            yield iter(call)
        except grpc.RpcError as error:
            if _async(error).code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimedOut(f"{self._who}: not done in {timeout:g} s") from error
            raise from_rpc_error(_async(error), self._who) from error
        finally:
            call.cancel()

    def _ask(self, service: ServiceDescriptor, method: str, fields: Mapping[str, Any]) -> Any:
        request = _request(service.methods_by_name[method], fields)
        try:
            return self._unary(service, method)(request, timeout=LONG)
        except grpc.RpcError as error:
            raise from_rpc_error(_async(error), self._who) from error

    def _unary(self, service: ServiceDescriptor, method: str) -> Any:
        found = service.methods_by_name[method]
        return self._channel.unary_unary(
            _path(found),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )

    @classmethod
    @contextmanager
    def at(cls, endpoint: str | None) -> Iterator[Self]:
        """Connect to the daemon that was named, the machine's, or this user's personal one.

        Raises:
            Unavailable: Nobody listens there, or answers.
        """
        path = _find(endpoint)
        target = f"unix:{path}"
        with grpc.insecure_channel(target, options=list(channel_options(target))) as channel:
            yield cls(path, channel)


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _request(method: MethodDescriptor, fields: Mapping[str, Any]) -> Any:
    """The message, of those fields that are given."""
    given = {name: value for name, value in fields.items() if value is not None}
    return GetMessageClass(method.input_type)(**given)


def _async(error: grpc.RpcError) -> grpc.aio.AioRpcError:
    # What a blocking call raises has the same methods, but no public class that says so.
    return cast("grpc.aio.AioRpcError", error)


def _find(endpoint: str | None) -> str:
    places = (DEFAULT_SOCKET, personal_socket()) if endpoint is None else (endpoint,)
    for path in places:
        if (sock := dial(path)) is not None:
            sock.close()
            return path
    raise Unavailable(
        f"no daemon at {' or '.join(places)}: start dfdaemon, or name its socket with --endpoint"
    )
