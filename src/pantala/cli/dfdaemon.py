"""``dfdaemon``: run the daemon of a machine.

This is its command line. What is slow to import comes with :mod:`._daemon_run`, when there is
something to run: ``--help`` needs none of it.
"""

from __future__ import annotations

import argparse
import os
import sys

from pantala.errors import DragonflyError
from pantala.paths import DAEMON_SETTINGS

from . import _flags as flags
from . import _options
from ._process import program

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_EPILOG: Final = f"""\
examples:
  dfdaemon                                   use {DAEMON_SETTINGS}, if it is there
  dfdaemon --scheduler 10.0.0.7:8002         no file needed
  dfdaemon -c my.yaml --cache-capacity 8GiB  flags win over the file
  dfdaemon -c my.yaml --check                show what would be used, and stop

A flag beats its variable; an empty one counts as unset.
Exit status: 0 ended as told, 1 failed, 2 wrong usage.
"""


class Options(_options.Options):
    """What the user wants. The attributes are the flags of ``dfdaemon --help``."""

    dynconfig: str | None
    scheduler: list[str] | None
    seed: bool
    ip: str | None
    hostname: str | None
    socket: str | None
    data_dir: str | None
    cache_capacity: str | None
    upload_port: int | None
    storage_port: int | None
    metrics_port: int | None
    health_port: int | None
    log_level: str
    log_dir: str | None
    log_max_files: int
    log_max_file_size: str
    console: bool
    personal: bool
    idle_timeout: str | None


def main() -> int:
    """The program: :func:`run` with this process's arguments."""
    with program("dfdaemon"):
        return run(sys.argv[1:], os.environ)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments *argv* say; the exit status. Wrong usage ends the program with 2."""
    parser = make_parser(environ)
    options = parser.parse_args(argv, namespace=Options())
    flags.read_variables(parser, options)
    from . import _daemon_run  # noqa: PLC0415  slow, and wrong usage need not wait for it

    try:
        return _daemon_run.run(options)
    except DragonflyError as error:
        return _options.tell_why("dfdaemon", error)


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; *environ* has variables that stand in for flags."""
    parser = flags.program_parser(
        "dfdaemon",
        "Run a Dragonfly daemon: get content from peers, and give it to them.",
        usage="dfdaemon [options]",
        epilog=_EPILOG,
    )
    # Only some flags have an environment variable, those of Dragonfly's daemon. Names such as
    # DFDAEMON_METRICS_PORT are dangerous: Kubernetes sets them, to something else, in every
    # container beside a service named dfdaemon-metrics.
    add = flags.Flags(parser, environ, "DFDAEMON_")
    _add_node(add, parser)
    _add_logs(add)
    add.switch("--personal", "for this user alone, with a scheduler, until it is idle", env=False)
    add.value(
        "--idle-timeout", meta="TIME", help=f"when a personal one quits, default {_options.IDLE}"
    )
    _options.add_checks(add)
    return parser


def _add_node(add: flags.Flags, parser: argparse.ArgumentParser) -> None:
    """Flags that are settings."""
    _options.add_config(add, DAEMON_SETTINGS, "DFDAEMON_CONFIG")
    add.value(
        "--dynconfig",
        env="DYNCONFIG",
        meta="FILE",
        help="YAML file that names the schedulers; DFDAEMON_DYNCONFIG",
    )
    parser.add_argument(
        "--scheduler",
        action="append",
        metavar="HOST:PORT",
        help="a scheduler, or HOST:8002-8005 for those at each of these ports, instead of that "
        "file, repeatable",
    )
    add.switch("--seed", "be a seed: first to ask the origin", env=False)
    add.value("--ip", help="address under which others reach this host")
    add.value("--hostname", meta="NAME", help="name of this host")
    add.value("--socket", meta="PATH", help="unix socket for programs on this host")
    add.value("--data-dir", meta="DIR", help="directory for content kept on disk")
    add.value(
        "--cache-capacity", meta="SIZE", help="memory for cache tasks: auto, 2GiB …, or 0 for none"
    )
    _options.add_ports(add, ("upload-port", "storage-port", "metrics-port", "health-port"))


def _add_logs(add: flags.Flags) -> None:
    """Flags that say what is logged, and where."""
    add.value(
        "-l",
        "--log-level",
        env="LOG_LEVEL",
        default="info",
        meta="LEVEL",
        help="trace … error, default info; DFDAEMON_LOG_LEVEL",
    )
    add.value(
        "--log-dir",
        env="LOG_DIR",
        meta="DIR",
        help="log to dfdaemon.log in this directory; DFDAEMON_LOG_DIR",
    )
    add.value(
        "--log-max-files",
        env="LOG_MAX_FILES",
        type=_log_files,
        default=6,
        meta="N",
        help="log files to keep, 2 or more, default 6; DFDAEMON_LOG_MAX_FILES",
    )
    add.value(
        "--log-max-file-size",
        env="LOG_MAX_FILE_SIZE",
        default="1GiB",
        meta="SIZE",
        help="of one log file, default 1GiB; DFDAEMON_LOG_MAX_FILE_SIZE",
    )
    add.switch("--console", "log to standard error anyway; DFDAEMON_CONSOLE")


def _log_files(text: str) -> int:
    count = _options.whole(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"{text[:50]!r}: want 2 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
