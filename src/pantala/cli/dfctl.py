"""``dfctl``: look at the tasks of this machine's daemon, and remove them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, cast

import grpc
import grpc.aio
import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from pantala import BUILD_VERSION
from pantala.errors import DragonflyError, FeatureOff, InvalidRequest, Unavailable
from pantala.model.ids import check_task_id
from pantala.model.units import format_size
from pantala.model.urls import public_url
from pantala.paths import DEFAULT_SOCKET, personal_socket
from pantala.pb import common_pb2, dfdaemon_pb2, dfdaemon_pb2_grpc, node_pb2, node_pb2_grpc
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

from ._handoff import dial, socket_path
from ._process import program
from ._text import one_line

# Seconds. A daemon answers from memory; removing and asking involve its scheduler.
_SHORT: Final = 5.0
_LONG: Final = 30.0

#: What a daemon may be doing that gives no answer, though it takes connections.
_NO_ANSWER: Final = {
    grpc.StatusCode.UNAVAILABLE: "is about to end",
    grpc.StatusCode.DEADLINE_EXCEEDED: f"is stuck (nothing came in {_SHORT:g} s)",
}

_URL_SHOWN: Final = 40

_EPILOG: Final = """
Examples:

\b
  dfctl cache-task ls            what this machine's daemon holds in memory
  dfctl cache-task stat ID       what the cluster knows of a task
  dfctl cache-task rm ID ID      give the memory back
"""

Response = TypeVar("Response")


class _Daemon:
    """A daemon that is known to be pantala, so that it survives a cache RPC."""

    def __init__(self, endpoint: str, channel: grpc.Channel) -> None:
        self._who = f"the daemon at {endpoint}"
        self.node = node_pb2_grpc.NodeStub(channel)
        self.download = dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)
        other = FeatureOff(f"{self._who} is not pantala: a cache RPC would kill it")
        try:
            info = self.node.Info(node_pb2.InfoRequest(), timeout=_SHORT)
        except grpc.RpcError as error:
            status = _async(error).code()
            if status is grpc.StatusCode.UNIMPLEMENTED:
                raise other from error
            if status in _NO_ANSWER:
                # The words of gRPC are about the frames of HTTP/2.
                raise Unavailable(
                    f"no daemon answers at {endpoint}: it {_NO_ANSWER[status]}, or the socket is "
                    "another program's; name that of a daemon with --endpoint"
                ) from error
            raise from_rpc_error(_async(error), self._who) from error
        if not info.version.startswith("pantala/"):
            raise other

    def ask(self, call: Callable[..., Response], request: Message) -> Response:
        """Make *call* with *request*.

        Raises:
            DragonflyError: What the daemon answered, or that it did not within 30 seconds.
        """
        try:
            return call(request, timeout=_LONG)
        except grpc.RpcError as error:
            raise from_rpc_error(_async(error), self._who) from error


def _async(error: grpc.RpcError) -> grpc.aio.AioRpcError:
    # What a blocking call raises has the same methods, but no public class that says so.
    return cast("grpc.aio.AioRpcError", error)


@contextmanager
def _daemon(endpoint: str | None, *, as_json: bool) -> Iterator[_Daemon]:
    """Connect to the daemon; end the program with one line when anything goes wrong."""
    try:
        path = _find(endpoint)
        target = f"unix:{path}"
        with grpc.insecure_channel(target, options=list(channel_options(target))) as channel:
            yield _Daemon(path, channel)
    except DragonflyError as error:
        _report(error, as_json=as_json)
        raise typer.Exit(1) from error


def _find(endpoint: str | None) -> str:
    """The gRPC socket that was named, the machine's, or this user's personal daemon's.

    Raises:
        Unavailable: Nobody listens there.
    """
    places = (DEFAULT_SOCKET, personal_socket()) if endpoint is None else (endpoint,)
    for path in places:
        if (sock := dial(path)) is not None:
            sock.close()
            return path
    raise Unavailable(
        f"no daemon at {' or '.join(places)}: start dfdaemon, or name its socket with --endpoint"
    )


def _report(error: DragonflyError, *, as_json: bool) -> None:
    message = one_line(str(error))
    sys.stderr.write(f"dfctl: {message}\n")
    if as_json:
        _print_json({"error": {"code": error.code.name, "message": message}})


def _print_json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


_Row = Mapping[str, Any]


def _row(task: node_pb2.NodeTask) -> _Row:
    """*task* as ``--json`` has it: numbers are bytes, times are RFC 3339 or null.

    A piece is never longer than the content, whatever was asked for: of a single piece
    :func:`_stat_row` could not tell more. Without a piece there is no length.
    """
    return {
        "id": task.id,
        "type": common_pb2.TaskType.Name(task.type),
        "url": public_url(task.url),
        "tag": task.tag if task.HasField("tag") else None,
        "application": task.application if task.HasField("application") else None,
        "piece_length": min(task.piece_length, task.content_length) or None,
        "content_length": task.content_length,
        "piece_count": task.piece_count,
        "finished_piece_count": task.finished_piece_count,
        "reserved_bytes": task.reserved_bytes,
        "lease_count": task.lease_count,
        "uploaded_count": task.uploaded_count,
        "created_at": _time(task.created_at, there=task.HasField("created_at")),
        "finished_at": _time(task.finished_at, there=task.HasField("finished_at")),
        "failed_at": _time(task.failed_at, there=task.HasField("failed_at")),
        "updated_at": _time(task.updated_at, there=task.HasField("updated_at")),
    }


def _stat_row(task: common_pb2.CacheTask) -> _Row:
    """*task* likewise. Its request headers are left out: they may hold credentials."""
    return {
        "id": task.id,
        "url": public_url(task.url),
        "tag": task.tag if task.HasField("tag") else None,
        "application": task.application if task.HasField("application") else None,
        "digest": task.digest if task.HasField("digest") else None,
        "state": task.state,
        "piece_length": _piece_length(task),
        "content_length": task.content_length,
        "piece_count": task.piece_count,
        "peer_count": task.peer_count,
        "has_available_peer": task.has_available_peer,
        "created_at": _time(task.created_at, there=task.HasField("created_at")),
        "updated_at": _time(task.updated_at, there=task.HasField("updated_at")),
    }


def _piece_length(task: common_pb2.CacheTask) -> int | None:
    """Bytes in every piece but the last; None if *task* lists no piece to tell it from."""
    if not task.pieces:
        return None
    # It may be the last, which is shorter: where it begins tells how long those before it are.
    piece = task.pieces[0]
    return piece.offset // piece.number if piece.number else piece.length


def _time(stamp: Timestamp, *, there: bool) -> str | None:
    return stamp.ToDatetime(UTC).isoformat(timespec="seconds") if there else None


def _shown_time(text: str | None) -> str:
    """In the time of this place, as people read it."""
    return "-" if text is None else f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"


def _shown_url(url: str) -> str:
    return url if len(url) <= _URL_SHOWN else f"{url[:12]}…{url[13 - _URL_SHOWN :]}"


def _plainly(value: object) -> str:
    return "-" if value in {None, ""} else one_line(str(value))


def _shown_size(size: int | None) -> str:
    return "-" if size is None else format_size(size)


_Column = tuple[str, Callable[[_Row], str]]

_LS_COLUMNS: Final[Sequence[_Column]] = (
    ("ID", lambda row: str(row["id"])),
    ("URL", lambda row: _shown_url(_plainly(row["url"]))),
    ("PIECE LENGTH", lambda row: _shown_size(row["piece_length"])),
    ("CONTENT LENGTH", lambda row: _shown_size(row["content_length"])),
    ("PIECES", lambda row: f"{row['finished_piece_count']}/{row['piece_count']}"),
    ("CREATED", lambda row: _shown_time(row["created_at"])),
    ("FINISHED", lambda row: _shown_time(row["finished_at"])),
    ("FAILED", lambda row: _shown_time(row["failed_at"])),
    ("UPDATED", lambda row: _shown_time(row["updated_at"])),
    ("LEASES", lambda row: str(row["lease_count"])),
)

_STAT_COLUMNS: Final[Sequence[_Column]] = (
    ("ID", lambda row: str(row["id"])),
    ("URL", lambda row: _plainly(row["url"])),
    ("TAG", lambda row: _plainly(row["tag"])),
    ("APPLICATION", lambda row: _plainly(row["application"])),
    ("DIGEST", lambda row: _plainly(row["digest"])),
    ("STATE", lambda row: _plainly(row["state"])),
    ("PIECE LENGTH", lambda row: _shown_size(row["piece_length"])),
    ("CONTENT LENGTH", lambda row: _shown_size(row["content_length"])),
    ("PIECES", lambda row: str(row["piece_count"])),
    ("PEERS", lambda row: str(row["peer_count"])),
    ("AVAILABLE", lambda row: "yes" if row["has_available_peer"] else "no"),
    ("CREATED", lambda row: _shown_time(row["created_at"])),
    ("UPDATED", lambda row: _shown_time(row["updated_at"])),
)


def _console() -> Console:
    # A line is a line, however long: an id that is cut in two cannot be copied, on a terminal
    # as little as by the programs that cut lines up.
    return Console(width=1000, highlight=False, markup=False)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(head))
    for name in head or [""] * len(rows[0]):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


app = typer.Typer(
    help="Look at the tasks of this machine's daemon, and remove them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_cache_task = typer.Typer(help="Tasks whose content lies in memory.", no_args_is_help=True)
app.add_typer(_cache_task, name="cache-task")


def _endpoint(text: str) -> str:
    try:
        return socket_path(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


_ENDPOINT_VARIABLES: Final = ["DFCTL_DFDAEMON_ENDPOINT", "DFCTL_ENDPOINT"]

_Endpoint = Annotated[
    str | None,
    typer.Option(
        "-e",
        "--endpoint",
        metavar="SOCKET",
        parser=_endpoint,
        envvar=_ENDPOINT_VARIABLES,
        show_envvar=False,  # it would be shown as Python writes a list
        help=f"The daemon's gRPC socket; {' or '.join(_ENDPOINT_VARIABLES)} stands in for it. "
        f"Default: {DEFAULT_SOCKET}, or the personal daemon's.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _task_id(text: str) -> str:
    try:
        return check_task_id(text)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from error


def _print_version(wanted: bool) -> None:  # noqa: FBT001  the signature of an option's callback
    if wanted:
        typer.echo(f"dfctl {BUILD_VERSION}")
        raise typer.Exit


@app.callback()
def _app(
    *,
    _version: Annotated[
        bool,
        typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="And exit."),
    ] = False,
) -> None:
    """Without this, a single group of commands would lose its name."""


@_cache_task.command()
def ls(*, endpoint: _Endpoint = None, as_json: _Json = False) -> None:
    """List the tasks that the daemon holds."""
    with _daemon(endpoint, as_json=as_json) as daemon:
        request = node_pb2.ListTasksRequest(type=common_pb2.CACHE)
        answer = daemon.ask(daemon.node.ListTasks, request)
    rows = [_row(task) for task in answer.tasks]
    if as_json:
        figures = {"capacity_bytes": answer.capacity_bytes, "used_bytes": answer.used_bytes}
        _print_json({"tasks": rows, **figures})
        return
    if rows:
        head = [name for name, _ in _LS_COLUMNS]
        _print_table(head, [[show(row) for _, show in _LS_COLUMNS] for row in rows])
    tasks = "1 task" if len(rows) == 1 else f"{len(rows)} tasks"
    used, capacity = format_size(answer.used_bytes), format_size(answer.capacity_bytes)
    typer.echo(f"{tasks}, {used} of {capacity} used")


@_cache_task.command()
def stat(
    task_id: Annotated[str, typer.Argument(metavar="ID", parser=_task_id)],
    *,
    endpoint: _Endpoint = None,
    as_json: _Json = False,
) -> None:
    """Show what is known of a task."""
    with _daemon(endpoint, as_json=as_json) as daemon:
        request = dfdaemon_pb2.StatCacheTaskRequest(task_id=task_id)
        task = daemon.ask(daemon.download.StatCacheTask, request)
    row = _stat_row(task)
    if as_json:
        _print_json(row)
    else:
        _print_table((), [[name, show(row)] for name, show in _STAT_COLUMNS])


@_cache_task.command()
def rm(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", parser=_task_id)],
    *,
    endpoint: _Endpoint = None,
    as_json: _Json = False,
) -> None:
    """Remove tasks from the daemon. One that fails does not keep the others."""
    removed: list[str] = []
    failed: dict[str, str] = {}
    with _daemon(endpoint, as_json=as_json) as daemon:
        for task_id in task_ids:
            request = dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id)
            try:
                daemon.ask(daemon.download.DeleteCacheTask, request)
            except DragonflyError as error:
                _report(error, as_json=False)
                failed[task_id] = one_line(str(error))
            else:
                removed.append(task_id)
                if not as_json:
                    typer.echo(f"removed {task_id}")
    if as_json:
        _print_json({"removed": removed, "failed": failed})
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """The program."""
    with program("dfctl"):
        app()


if __name__ == "__main__":
    main()
