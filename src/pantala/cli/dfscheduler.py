"""``dfscheduler``: run a scheduler.

This is its command line. What is slow to import comes with :mod:`._scheduler_run`, when there is
something to run: ``--help`` needs none of it.
"""

from __future__ import annotations

import argparse
import os
import sys

from pantala.errors import DragonflyError
from pantala.paths import DYNCONFIG, SCHEDULER_SETTINGS

from . import _flags as flags
from . import _options
from ._process import program

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_EPILOG: Final = f"""\
examples:
  dfscheduler                                use {SCHEDULER_SETTINGS}, if it is there
  dfscheduler --port 0 --listen-ip 127.0.0.1 any free port; the log says which
  dfscheduler --workers 4                    four, at the ports 8002 to 8005
  dfscheduler --config my.yaml --json-logs   flags win over the file
  dfscheduler --config my.yaml --check       show what would be used, and stop

Exit status: 0 ended as told, 1 failed, 2 wrong usage.
"""


class Options(_options.Options):
    """What the user wants. The attributes are the flags of ``dfscheduler --help``."""

    port: int | None
    workers: int | None
    listen_ip: str | None
    advertise_ip: str | None
    json_logs: bool
    dynconfig: str | None


def main() -> int:
    """The program: :func:`run` with this process's arguments."""
    with program("dfscheduler"):
        return run(sys.argv[1:], os.environ)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments *argv* say; the exit status. Wrong usage ends the program with 2."""
    parser = make_parser(environ)
    options = parser.parse_args(argv, namespace=Options())
    flags.read_variables(parser, options)
    from . import _scheduler_run  # noqa: PLC0415  slow, and wrong usage need not wait for it

    try:
        return _scheduler_run.run(options)
    except DragonflyError as error:
        return _options.tell_why("dfscheduler", error)


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; *environ* has variables that stand in for flags."""
    parser = flags.program_parser(
        "dfscheduler",
        "Run a Dragonfly scheduler: tell peers from which others to get content.",
        usage="dfscheduler [options]",
        epilog=_EPILOG,
    )
    add = flags.Flags(parser, environ, "SCHEDULER_")
    _options.add_config(add, SCHEDULER_SETTINGS, "SCHEDULER_CONFIG")
    add.value(
        "--dynconfig",
        env="DYNCONFIG",
        meta="FILE",
        help="YAML file of limits and priorities, read again and again, "
        f"default {DYNCONFIG} if it is there; SCHEDULER_DYNCONFIG",
    )
    _options.add_ports(add, ("port",))
    add.value(
        "--workers",
        type=flags.number(64),
        meta="N",
        help="so many schedulers, 1 to 64, a process each, at consecutive ports; default 1",
    )
    add.value("--listen-ip", meta="IP", help="address to listen on")
    add.value("--advertise-ip", meta="IP", help="address for daemons; shown in the log")
    add.value("-l", "--log-level", meta="LEVEL", help="trace … error")
    add.switch("--json-logs", "log JSON lines on a terminal too", env=False)
    _options.add_checks(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
