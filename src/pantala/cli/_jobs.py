"""``dfctl job``: jobs of schedulers, and what has come of each."""

from __future__ import annotations

import argparse
import sys

from pantala.errors import InvalidRequest, NotFound, Unavailable

from . import _flags as flags
from ._outcome import print_json
from ._text import one_line

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from ._job_watch import Schedulers

_HEAD: Final = (
    *("ID", "STATE", "TYPE", "SCOPE", "CREATED", "PAIRS", "DONE", "FAILED", "PENDING", "BYTES"),
)


def add_commands(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """``ls`` and ``show``, to the *parser* of ``dfctl job``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (("ls", "list jobs"), ("show", "show what has come of a job")):
        command = commands.add_parser(
            name, help=about, description=f"{about.capitalize()}.", formatter_class=flags.formatter
        )
        add = flags.Flags(command, environ, "DFCTL_JOB_")
        if name == "show":
            command.add_argument("job_id", metavar="ID", help="its id, or enough of its beginning")
        add.scheduler()
        add.switch("--json", "print JSON", env=False)


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Do what is wanted; the exit status. Raises DragonflyError: why it cannot be done."""
    flags.read_variables(parser, options)
    from ._job_watch import Schedulers  # noqa: PLC0415  gRPC: wrong usage need not wait for it

    schedulers = Schedulers(options.scheduler_endpoint)
    if options.command == "ls":
        return _ls(schedulers, as_json=options.json)
    return _show(schedulers, options.job_id, as_json=options.json)


def _ls(schedulers: Schedulers, *, as_json: bool) -> int:
    from ._job_watch import job_of  # noqa: PLC0415  gRPC, which the caller has

    found, troubles = schedulers.jobs()
    rows = [job_of(job) for job, _ in found.values()]
    rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    if as_json:
        print_json({"jobs": rows, "troubles": troubles}, indent=2)
        return 0
    from . import _rows  # noqa: PLC0415  it compiles patterns

    for why in troubles.values():
        sys.stderr.write(f"dfctl: {one_line(why)}\n")
    if rows:
        sys.stdout.write(_rows.table([_HEAD, *map(_cells, rows)]))
    sys.stdout.write("1 job\n" if len(rows) == 1 else f"{len(rows)} jobs\n")
    return 0


def _cells(row: Mapping[str, Any]) -> list[str]:
    from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

    created = str(row["created_at"]).partition(".")[0].removesuffix("Z") + "Z"
    numbers = [str(row[name]) for name in ("pairs", "done", "failed", "pending")]
    words = [str(row[name]) for name in ("id", "state", "type", "scope")]
    return [*words, created, *numbers, format_size(row["received"])]


def _show(schedulers: Schedulers, job_id: str, *, as_json: bool) -> int:
    from ._job_watch import job_of, row_of  # noqa: PLC0415  gRPC, which the caller has

    if not job_id:
        raise InvalidRequest("ID: want that of a job, or enough of its beginning")
    found, troubles = schedulers.jobs()
    names = [job_id] if job_id in found else [name for name in found if name.startswith(job_id)]
    if len(names) > 1:
        raise InvalidRequest(f"{len(names)} jobs begin with {job_id[:50]!r}: give more of the id")
    if not names and troubles:
        raise Unavailable(f"no job {job_id[:50]!r} is known, and {next(iter(troubles.values()))}")
    if not names:
        raise NotFound(f"no job {job_id[:50]!r} is known")
    job, plan, pairs = schedulers.show(names[0], found[names[0]][1])
    head = job_of(job)
    rows = [row_of(plan.tasks[pair.task], pair) for pair in pairs]
    if as_json:
        print_json({"job": head, "pairs": rows}, indent=2)
        return 0
    from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

    from ._preheat_report import Report  # noqa: PLC0415  slow, and --json needs none

    report = Report(sys.stdout, sys.stderr, as_json=False, shown=False)
    for row in rows:
        report.result(row)
    counts = ", ".join(f"{head[name]} {name}" for name in ("done", "failed", "pending"))
    when = (
        f"ended {head['ended_at']}" if head["ended_at"] else f"its time is over {head['ends_at']}"
    )
    sys.stdout.write(
        f"job {head['id']} is {'over' if head['ended_at'] else 'under way'}: {head['type']}, "
        f"{head['scope']}, begun {head['created_at']}, {when}\n"
        f"{counts}, {format_size(head['received'])}\n"
    )
    return 0
