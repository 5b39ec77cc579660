"""``dfcache``: import a file into the cluster, where so many hosts keep it, and export it again.

The daemon of this machine reads what is imported, and writes what is exported, unless its content
is to come through the socket. Dragonfly's own daemon can be asked as well as ours.
"""
# ruff: noqa: PTH109, PTH110, PTH113, PTH116, PTH118  pathlib costs 3 ms, a tenth of the start

from __future__ import annotations

import argparse
import os
import sys

from pantala.errors import InvalidRequest
from pantala.paths import DEFAULT_SOCKET

from . import _flags as flags
from . import _identity as identity
from ._outcome import outcome
from ._process import program
from ._progress import Progress

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from ._daemon import Daemon

#: The daemon's own word about a timeout says more than ours; leave it the time to come.
_GRACE: Final = 1.0

#: Seconds until a daemon that cannot be asked is given up.
_STAT_LIMIT: Final = 30.0

#: Seconds that an imported file may be kept, at least and at most: 5 minutes to 7 days.
_TTL: Final = (300.0, 7 * 86400.0)

_MAX_REPLICAS: Final = 1000

#: Bytes that take some seconds to hash.
_LARGE: Final = 4 << 30

_EPILOG: Final = """\
examples:
  dfcache import model.bin --persistent-replica-count 3 --ttl 24h
  dfcache export ID -O model.bin
  dfcache stat ID

Most flags have a variable: dfcache import --tag has DFCACHE_IMPORT_TAG. A flag beats it; an empty
one counts as unset. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""


class Options(argparse.Namespace):
    """What the user wants. The attributes are the flags of each command's ``--help``."""

    command: str
    path: str
    id: str
    content_for_calculating_task_id: str | None
    persistent_replica_count: int
    piece_length: int | None
    application: str | None
    tag: str | None
    ttl: float
    timeout: float
    transfer_from_dfdaemon: bool
    overwrite: bool
    force_hard_link: bool
    output: str
    digest: str | None
    endpoint: str | None
    no_progress: bool
    json: bool


def main() -> int:
    """The program: :func:`run` with this process's arguments."""
    with program("dfcache"):
        return run(sys.argv[1:], os.environ)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments *argv* say; the exit status. Wrong usage ends the program with 2."""
    options = _parse(argv, environ)
    from ._daemon import Daemon  # noqa: PLC0415  gRPC: wrong usage need not wait for it

    shown = not (options.no_progress or options.json) and sys.stderr.isatty()
    progress = Progress(sys.stderr, shown=shown, program="dfcache")

    def work() -> Mapping[str, Any]:
        try:
            with Daemon.at(options.endpoint) as daemon:
                return _COMMANDS[options.command](daemon, options, progress)
        finally:
            progress.clear()

    return outcome("dfcache", work, as_json=options.json, seconds=options.timeout + 2 * _GRACE)


# -- commands ----------------------------------------------------------------------------------


def _import(daemon: Daemon, options: Options, progress: Progress) -> Mapping[str, Any]:
    from pantala.rpc.convert import duration  # noqa: PLC0415  gRPC: --help does not need it
    from pantala.rpc.rows import stat_row  # noqa: PLC0415  it imports typing, which --help does not need

    large = os.stat(options.path).st_size > _LARGE
    if options.content_for_calculating_task_id is None and large:
        progress.say("the content's id is its hash, which takes a while for a file of this size")
    wanted = {
        "content_for_calculating_task_id": options.content_for_calculating_task_id,
        "path": options.path,
        "persistent_replica_count": options.persistent_replica_count,
        "tag": options.tag,
        "application": options.application,
        "piece_length": options.piece_length,
        "ttl": duration(options.ttl),
        "timeout": duration(options.timeout),
    }
    limit = options.timeout + _GRACE
    task = daemon.wait("UploadPersistentCacheTask", wanted, progress.tick, timeout=limit)
    if not options.json:
        progress.clear()
        sys.stdout.write(f"{task.id}\n")
    return stat_row(task)


def _export(daemon: Daemon, options: Options, progress: Progress) -> Mapping[str, Any]:
    from ._export import export  # noqa: PLC0415  import and stat write no file

    return export(daemon, options, progress, grace=_GRACE)


def _stat(daemon: Daemon, options: Options, _progress: Progress) -> Mapping[str, Any]:
    from pantala.rpc.rows import stat_row  # noqa: PLC0415  it imports typing, which --help does not need

    from . import _rows  # noqa: PLC0415  it compiles patterns

    row = stat_row(daemon.ask("StatPersistentCacheTask", task_id=options.id))
    if not options.json:
        sys.stdout.write(_rows.stat_lines(row))
    return row


_COMMANDS: Final[Mapping[str, Callable[[Daemon, Options, Progress], Mapping[str, Any]]]] = {
    "import": _import,
    "export": _export,
    "stat": _stat,
}


# -- the command line --------------------------------------------------------------------------


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; *environ* has variables that stand in for flags."""
    return _parsers(environ)[0]


def _parsers(
    environ: Mapping[str, str],
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The command line, and those of the commands."""
    about = "Keep files in the cluster: import them, and export them again."
    parser = flags.program_parser("dfcache", about, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: commands.add_parser(
            name, help=about, description=f"{about.capitalize()}.", formatter_class=flags.formatter
        )
        for name, about in (
            ("import", "import a file of this machine into the cluster; prints the task's id"),
            ("export", "write a task's content to a file"),
            ("stat", "show what the cluster knows of a task"),
        )
    }
    for name, below in parsers.items():
        _add(name, below, flags.Flags(below, environ, f"DFCACHE_{name.upper()}_"))
    return parser, parsers


def _parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    parser, parsers = _parsers(environ)
    options = parser.parse_args(argv, namespace=Options())
    below = parsers[options.command]
    flags.read_variables(below, options)
    if options.command == "export":
        _check_export(below, options)
    if options.command == "import":
        try:
            options.path = _readable(options.path)
        except InvalidRequest as error:
            below.error(str(error))
    return options


def _add(command: str, parser: argparse.ArgumentParser, add: flags.Flags) -> None:
    if command == "import":
        parser.add_argument("path", metavar="PATH", type=flags.text, help="the file")
        identity.add_content_id(add, "its hash")
        add.value(
            "--persistent-replica-count",
            env="PERSISTENT_REPLICA_COUNT",
            type=flags.number(_MAX_REPLICAS),
            default=2,
            meta="N",
            help="hosts that shall keep it as long as it lives, default 2",
        )
        identity.add_piece_length(add)
        add.value(
            "--ttl", env="TTL", type=_ttl, default=3600.0, meta="TIME", help="5m to 7d, default 1h"
        )
    else:
        parser.add_argument("id", metavar="ID", type=flags.task_id, help="the task")
    if command == "export":
        _add_export(add)
    if command == "stat":
        parser.set_defaults(no_progress=True, timeout=_STAT_LIMIT)
    else:
        identity.add_labels(add)
        times = {"import": (1800.0, "30m"), "export": (7200.0, "2h")}
        default, shown = times[command]
        add.value(
            "--timeout",
            env="TIMEOUT",
            type=flags.duration,
            default=default,
            meta="TIME",
            help=f"default {shown}",
        )
        add.switch("--no-progress", "draw no progress")
    add.endpoint(f"{DEFAULT_SOCKET}, or the personal daemon's")
    add.switch("--json", "print the result, or the error, as one JSON object", env=False)
    # Scripts for Dragonfly's dfcache set these. There is nothing to log on this side.
    add.value("-l", "--log-level", env="LOG_LEVEL", help="accepted; the daemon has the log")
    add.switch("--console", "accepted; the daemon has the log")


def _add_export(add: flags.Flags) -> None:
    add.value(
        "-O",
        "--output",
        env="OUTPUT",
        type=flags.output,
        required=True,
        meta="FILE",
        help="where to put it; - is stdout",
    )
    add.switch(
        "--transfer-from-dfdaemon",
        "the content comes through the socket, and dfcache writes the file itself",
    )
    add.switch("--overwrite", "replace an existing file")
    add.switch("--force-hard-link", "the file must be a hard link of the daemon's, or it fails")
    add.value("--digest", env="DIGEST", type=flags.text, meta="ALG:VALUE", help="of the content")


def _check_export(parser: argparse.ArgumentParser, options: Options) -> None:
    if options.output == "-":
        if options.json:
            parser.error("--json and -O - both want stdout")
        options.transfer_from_dfdaemon = True  # a daemon writes files only
    if options.force_hard_link and options.transfer_from_dfdaemon:
        parser.error("--force-hard-link: content from the socket is no link of the daemon's file")


def _ttl(text: str) -> float:
    seconds = flags.duration(text)
    if not _TTL[0] <= seconds <= _TTL[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: want 5m to 7d")
    return seconds


def _readable(text: str) -> str:
    """The absolute path of a file. Raises InvalidRequest if there is none."""
    if not os.path.isfile(text):
        raise InvalidRequest(f"{text}: {'is no file' if os.path.exists(text) else 'no such file'}")
    return os.path.join(os.getcwd(), text)


if __name__ == "__main__":
    sys.exit(main())
