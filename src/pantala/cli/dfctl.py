"""``dfctl``: look at the tasks of this machine's daemon, and remove them; preheat; jobs.

What a command does is written once; the kinds of task are a table. Whatever is slow to import is
imported when there is something to ask.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from pantala.errors import DragonflyError, Unavailable
from pantala.model.urls import public_url
from pantala.paths import DEFAULT_SOCKET

from . import _identity as identity
from ._flags import endpoint, formatter, program_parser, read_variables
from ._names import Names, task_name, wishes_of, with_defaults
from ._outcome import print_json
from ._process import program
from ._tasks_handoff import HandoffTasks, NotServed
from ._text import one_line

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from ._names import Wanted
    from ._tasks_grpc import GrpcTasks

    Tasks = HandoffTasks | GrpcTasks

_VARIABLES: Final = ("DFCTL_DFDAEMON_ENDPOINT", "DFCTL_ENDPOINT")

#: Hosts that a stat lists if it is not said how many, and at most.
_HOLDERS: Final = 20
_MOST_HOLDERS: Final = 500

_NAME: Final = "its id, or enough of its beginning; or its URL"

_EPILOG: Final = """\
examples:
  dfctl cache-task ls            what this machine's daemon holds in memory
  dfctl cache-task stat ID       what the cluster knows of a task
  dfctl cache-task stat ID --holders  which hosts hold how much of it
  dfctl cache-task rm ID ID      give the memory back
  dfctl cache-task rm URL        likewise; with --tag and the like, if dfget had them
  dfctl task stat 3fa8           an id may be cut short, as long as no other begins so
  dfctl cache-task rm --swarm ID on every host: the next download reads the origin anew
  dfctl cache-task preheat --help  have hosts fetch what others will want
  dfctl job ls --scheduler-endpoint 10.0.0.7:8002       what is preheated, and was
  dfctl hosts --scheduler-endpoint 10.0.0.7:8002-8005   who is there, for any of four

Exit status: 0 done, 1 failed, 2 wrong usage.
"""


class _Kind:
    """A kind of task. (Importing dataclasses would take a tenth of the start.)

    Attributes:
        about: Of tasks of it, for people.
        word: What names of methods and messages have for it.
        type: Its name in the contract.
        ours: Only a daemon of ours survives being asked.
        preheat: The scope of remote, if none is given; None: it is not preheated.
    """

    def __init__(
        self, about: str, word: str, type: str, *, ours: bool = False, preheat: str | None = None
    ) -> None:
        self.about = about
        self.word = word
        self.type = type
        self.ours = ours
        self.preheat = preheat


_KINDS: Final[Mapping[str, _Kind]] = {
    "task": _Kind("tasks whose content lies on disk", "", "STANDARD", preheat="all_seed_peers"),
    "cache-task": _Kind(
        *("tasks whose content lies in memory", "Cache", "CACHE"),
        ours=True,
        preheat="single_seed_peer",
    ),
    "persistent-cache-task": _Kind(
        "tasks that were imported, and are kept in so many copies",
        "PersistentCache",
        "PERSISTENT_CACHE",
    ),
}


class _Options(argparse.Namespace):
    """What the user wants."""

    kind: str
    command: str = ""  # hosts have none
    names: list[str]
    wishes: dict[str, Any]
    no_trunc: bool
    holders: bool
    most: int
    swarm: bool
    endpoint: str | None
    json: bool


def main() -> int:
    """The program, with this process's arguments; the exit status."""
    with program("dfctl"):
        return run(sys.argv[1:], os.environ)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments *argv* say; the exit status. Wrong usage ends the program with 2."""
    everything = any(each.startswith("--print-completion") for each in argv)
    parser, remote = _parser(None if everything else argv, environ)
    options = parser.parse_args(argv, namespace=_Options())
    if options.command == "preheat":
        from ._preheat import run as preheat  # noqa: PLC0415  it has been imported, for its flags

        return preheat(remote[options.kind], options, _KINDS[options.kind].type)
    try:
        if options.kind == "hosts":
            from ._hosts import run as hosts  # noqa: PLC0415  it has been imported, for its flags

            return hosts(remote["hosts"], options)
        if options.kind == "job":
            from ._jobs import run as job  # noqa: PLC0415  it has been imported, for its flags

            return job(remote["job"], options)
        return _on_tasks(parser, options, environ)
    except DragonflyError as error:
        message = _report(error)
        if options.json:
            print_json({"error": {"code": error.code.name, "message": message}}, indent=2)
        return 1


def _on_tasks(
    parser: argparse.ArgumentParser, options: _Options, environ: Mapping[str, str]
) -> int:
    """Ask the daemon that is meant; wrong usage ends the program."""
    if options.endpoint is None:
        named = next((environ[name] for name in _VARIABLES if environ.get(name)), None)
        try:
            options.endpoint = None if named is None else endpoint(named)
        except argparse.ArgumentTypeError as error:
            parser.error(f"{' or '.join(_VARIABLES)}: {error}")
    kind = _KINDS[options.kind]
    if options.command != "ls":
        _read_identity(parser, kind, options)
    return _carry_out(kind, options)


def _read_identity(parser: argparse.ArgumentParser, kind: _Kind, options: _Options) -> None:
    """Find out what names a URL's content; wrong usage ends the program."""
    with_url = any("://" in name for name in options.names)
    if with_url and kind.word == "PersistentCache":
        parser.error("tasks that were imported have no URL: name them by their ids")
    if not with_url:
        options.wishes = {}
        return
    read_variables(parser, options)
    try:
        options.wishes = with_defaults(wishes_of(options))
    except ValueError as error:
        parser.error(str(error))


def _carry_out(kind: _Kind, options: _Options) -> int:
    """Do what is wanted, by the hand-off socket; by gRPC where a daemon does not serve it so."""
    command = _COMMANDS[options.command]
    tasks = HandoffTasks.at(options.endpoint)
    if tasks is not None:
        with suppress(NotServed):
            return command(tasks, kind, options)
    from ._tasks_grpc import GrpcTasks  # noqa: PLC0415  gRPC takes most of the time, if it is needed

    with GrpcTasks.at(options.endpoint) as others:
        return command(others, kind, options)


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; *environ* has variables that stand in for flags."""
    return _parser(None, environ)[0]


def _parser(
    argv: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command line, and within it those of the commands that ask a scheduler, by kind.

    It has all that *argv* may need; None: everything.
    """
    remote: dict[str, argparse.ArgumentParser] = {}
    parser = program_parser(
        "dfctl", "Look at the tasks of this machine's daemon, and remove them.", epilog=_EPILOG
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in _KINDS.items():
        below = kinds.add_parser(
            name,
            help=kind.about,
            description=f"Commands on {kind.about}.",
            formatter_class=formatter,
        )
        commands = below.add_subparsers(dest="command", required=True, metavar="COMMAND")
        ls = _command(commands, "ls", "list the tasks that the daemon holds")
        ls.add_argument(
            "--no-trunc", action="store_true", help="shorten nothing to fit the terminal"
        )
        stat = _command(commands, "stat", "show what is known of a task")
        stat.add_argument("names", metavar="ID|URL", type=task_name, nargs=1, help=_NAME)
        stat.add_argument(
            "--holders",
            action="store_true",
            help="ask the hosts that have some of it how much, and list them",
        )
        stat.add_argument(
            "--most",
            metavar="N",
            type=_most,
            default=_HOLDERS,
            help=f"of more holders, list the first N; up to {_MOST_HOLDERS}, default {_HOLDERS}",
        )
        rm = _command(commands, "rm", "remove tasks; one that fails does not keep the others")
        rm.add_argument("names", metavar="ID|URL", type=task_name, nargs="+", help=_NAME)
        rm.add_argument(
            "--swarm",
            action="store_true",
            help="on all hosts that the task's scheduler knows of, not on this one alone",
        )
        for command in (stat, rm):
            identity.add(command, environ, "DFCTL_")
        if kind.preheat is not None:
            preheat = _bare(commands, "preheat", "have hosts fetch what others will want")
            remote[name] = preheat
            if argv is None or "preheat" in argv:
                from . import _preheat  # noqa: PLC0415  it has many flags, which take time

                _preheat.add_flags(preheat, name, environ, scope=kind.preheat)
    remote["hosts"] = _bare(kinds, "hosts", "list the hosts that schedulers know")
    if argv is None or "hosts" in argv:
        from . import _hosts  # noqa: PLC0415  other commands need not wait for it

        _hosts.add_flags(remote["hosts"], environ)
    remote["job"] = _bare(kinds, "job", "list jobs of schedulers, and show what has come of them")
    if argv is None or "job" in argv:
        from . import _jobs  # noqa: PLC0415  other commands need not wait for it

        _jobs.add_commands(remote["job"], environ)
    return parser, remote


def _most(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_HOLDERS):
        raise argparse.ArgumentTypeError(f"{text[:100]!r}: want 1 to {_MOST_HOLDERS}")
    return int(text)


def _bare(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about.capitalize()}.", formatter_class=formatter
    )
    return parser


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser = _bare(commands, name, about)
    parser.add_argument(
        "-e",
        "--endpoint",
        metavar="SOCKET",
        type=endpoint,
        help=f"the daemon's gRPC socket; {' or '.join(_VARIABLES)} stands in for it; "
        f"default {DEFAULT_SOCKET}, or the personal daemon's",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


# -- commands ----------------------------------------------------------------------------------


def _ls(tasks: Tasks, kind: _Kind, options: _Options) -> int:
    rows, figures = tasks.held(kind)
    if options.json:
        print_json({"tasks": rows, **figures}, indent=2)
        return 0
    from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

    from . import _rows  # noqa: PLC0415  it compiles patterns

    if rows:
        sys.stdout.write(_rows.ls_lines(rows, None if options.no_trunc else _columns()))
    used = [format_size(figures[name]) for name in ("used_bytes", "capacity_bytes") if figures]
    counted = "1 task" if len(rows) == 1 else f"{len(rows)} tasks"
    sys.stdout.write(f"{counted}, {' of '.join(used)} used\n" if used else f"{counted}\n")
    return 0


def _stat(tasks: Tasks, kind: _Kind, options: _Options) -> int:
    keys = Names(tasks, kind, options.wishes).find(options.names[0]).keys
    row = tasks.stat(kind, keys)
    holders, left_out = tasks.holders(kind, keys, options.most) if options.holders else ([], 0)
    if options.json:
        more = {"holders": holders, "holders_left_out": left_out} if options.holders else {}
        print_json({**row, **more}, indent=2)
        return 0
    from . import _rows  # noqa: PLC0415  it compiles patterns

    sys.stdout.write(_rows.stat_lines(row))
    if options.holders:
        sys.stdout.write(_rows.holder_lines(holders, left_out))
    return 0


def _rm(tasks: Tasks, kind: _Kind, options: _Options) -> int:
    removed: list[str] = []
    failed: dict[str, str] = {}
    hosts: dict[str, list[str]] = {}
    names = Names(tasks, kind, options.wishes)
    for name in options.names:
        one = public_url(name) if "://" in name else name
        try:
            found = names.find(name)
            one = found.shown
            hosts[one] = _remove(tasks, kind, found, swarm=options.swarm)
        except DragonflyError as error:
            failed[one] = _report(error)
        else:
            removed.append(one)
            if not options.json:
                count = len(hosts[one])
                where = f" from {count} host{'s' * (count != 1)}" if options.swarm else ""
                sys.stdout.write(f"removed {one}{where}\n")
    if options.json:
        told = {"removed": removed, "failed": failed} | ({"hosts": hosts} if options.swarm else {})
        print_json(told, indent=2)
    return 1 if failed else 0


def _remove(tasks: Tasks, kind: _Kind, task: Wanted, *, swarm: bool) -> list[str]:
    """Have a task deleted; the hosts where it was, as far as they are told.

    Raises:
        Unavailable: Some of them may hold it still.
    """
    hosts, failed = tasks.delete(kind, task.keys, swarm=swarm)
    if failed:
        why = "; ".join(f"{host}: {text}" for host, text in sorted(failed.items()))
        raise Unavailable(
            f"task {task.shown}: removed from {len(hosts)} hosts, not from {len(failed)} ({why})"
        )
    return hosts


_COMMANDS: Final[Mapping[str, Callable[[Tasks, _Kind, _Options], int]]] = {
    "ls": _ls,
    "stat": _stat,
    "rm": _rm,
}


def _columns() -> int | None:
    """Those of the terminal that is written to; None: it is none."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def _report(error: DragonflyError) -> str:
    """Write an error as a line; without the program's name."""
    message = one_line(str(error))
    sys.stderr.write(f"dfctl: {message}\n")
    return message


if __name__ == "__main__":
    sys.exit(main())
