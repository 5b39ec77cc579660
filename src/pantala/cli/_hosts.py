"""``dfctl hosts``: whom schedulers know."""

from __future__ import annotations

import argparse
import sys

from pantala.errors import DragonflyError

from . import _flags as flags
from ._outcome import print_json
from ._text import one_line

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

#: Seconds for the answer: a scheduler has it in memory.
_LIMIT: Final = 15.0

#: Trailing metadata: hosts that the answer has no room for.
_LEFT_OUT: Final = "pantala-left-out"


def add_flags(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """All flags of the command, to its *parser*."""
    add = flags.Flags(parser, environ, "DFCTL_HOSTS_")
    add.scheduler()
    add.switch("--json", "print JSON", env=False)


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Print them; the exit status. Raises DragonflyError: no scheduler answers."""
    flags.read_variables(parser, options)
    found: dict[str, dict[str, Any]] = {}
    left_out, silent = 0, dict[str, DragonflyError]()
    from ._at_once import ask_all  # noqa: PLC0415  it imports typing, which --help need not wait for

    for target, answer in ask_all(options.scheduler_endpoint, _ask).items():
        if isinstance(answer, DragonflyError):
            silent[target] = answer
        else:
            known, more = answer
            found.update((row["id"], row) for row in known)
            left_out = max(left_out, more)
    for why in silent.values():
        sys.stderr.write(f"dfctl: {one_line(str(why))}\n")
    rows = sorted(found.values(), key=lambda row: str(row["id"]))
    if options.json:
        unanswered = {target: str(why) for target, why in silent.items()}
        print_json({"hosts": rows, "left_out": left_out, "unanswered": unanswered}, indent=2)
        return 0
    from . import _rows  # noqa: PLC0415  it compiles patterns

    if rows:
        sys.stdout.write(_rows.table([_HEAD, *map(_cells, rows)]))
    counted = "1 host" if len(rows) == 1 else f"{len(rows)} hosts"
    others = f", and {left_out} for which the answer has no room" if left_out else ""
    sys.stdout.write(f"{counted}{others}\n")
    return 0


_HEAD: Final = ("ID", "TYPE", "ADDRESS", "IDC", "LOCATION", "DISK FREE", "VERSION")


def _cells(row: Mapping[str, Any]) -> list[str]:
    from pantala.model.addresses import host_port  # noqa: PLC0415  for those who read
    from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

    free = row["disk_free"]
    cells = (
        row["id"],
        row["type"],
        host_port(row["ip"], row["port"]),
        row["idc"],
        row["location"],
        "" if free is None else format_size(free),
        row["version"],
    )
    return [one_line(cell) or "-" for cell in cells]


def _ask(target: str) -> tuple[list[dict[str, Any]], int]:
    """All hosts, and of how many more there was no word. Raises DragonflyError."""
    import grpc  # noqa: PLC0415  it takes most of the time, which --help need not wait for

    from pantala.pb import scheduler_pb2, scheduler_pb2_grpc  # noqa: PLC0415  gRPC
    from pantala.rpc.status import from_rpc_error  # noqa: PLC0415  gRPC
    from pantala.rpc.transport import channel_options  # noqa: PLC0415  gRPC

    with grpc.insecure_channel(target, options=list(channel_options(target))) as channel:
        call: Any = scheduler_pb2_grpc.SchedulerStub(channel).ListHosts
        try:
            answer, ended = call.with_call(scheduler_pb2.ListHostsRequest(), timeout=_LIMIT)
        except grpc.RpcError as error:
            told: Any = error  # it has the methods of those of grpc.aio
            raise from_rpc_error(told, f"scheduler {target}") from error
    left_out = dict(ended.trailing_metadata() or ()).get(_LEFT_OUT, "0")
    return list(map(_row, answer.hosts)), int(left_out)


def _row(host: Any) -> dict[str, Any]:
    return {
        "id": host.id,
        "type": "seed" if host.type else "normal",
        "hostname": host.hostname,
        "ip": host.ip,
        "port": host.port,
        "idc": host.network.idc,
        "location": host.network.location,
        "disk_free": host.disk.free if host.HasField("disk") else None,
        "shares": not host.disable_shared,
        "version": host.build.git_version,
    }
