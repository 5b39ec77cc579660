"""``dfctl … preheat``: its command line. :mod:`._preheat_job` does what it says."""

from __future__ import annotations

import argparse
import sys

from pantala.errors import DragonflyError
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS

from . import _arguments
from . import _flags as flags
from . import _identity as identity
from ._process import OutputLost
from ._signals import Stopped, ended_by_signals
from ._text import one_line

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

_TIMEOUT: Final = 2 * 3600.0

#: Seconds that the scheduler may take beyond what the job may.
_GRACE: Final = 30.0

_SCOPES: Final = ("single_seed_peer", "all_seed_peers", "all_peers")

_EPILOG: Final = """\
examples:
  dfctl task preheat https://example.com/model.bin --scheduler-endpoint 10.0.0.7:8002
  dfctl cache-task preheat URL URL --scope all_peers --scheduler-endpoint 10.0.0.7:8002
  dfctl task preheat oci://registry.example/team/image:1 --platform linux/arm64 …
  dfctl cache-task preheat -i urls.txt --scope all_peers --ip 10.0.0.8 --ip 10.0.0.9 …

Most flags have a variable: --scope has {prefix}SCOPE. A flag beats it.
Exit status: 0 all is there, 1 something is not, 2 wrong usage, 130 interrupted.
"""


class Options(argparse.Namespace):
    """What the user wants. The attributes are the flags of ``dfctl task preheat --help``."""

    kind: str
    urls: list[str]
    input_file: str | None
    scheduler_endpoint: tuple[str, ...]
    scope: str
    ips: list[str]
    percentage: int | None
    count: int | None
    concurrent_task_count: int
    concurrent_peer_count: int | None
    piece_length: int | None
    tag: str | None
    application: str | None
    filtered_query_params: list[str] | None
    content_for_calculating_task_id: str | None
    headers: list[str] | None
    request_header: Mapping[str, str]
    priority: int
    platform: str
    username: str | None
    password: str | None
    insecure_skip_verify: bool
    enable_task_id_based_blob_digest: bool
    timeout: float
    durable: bool
    detach: bool
    no_progress: bool
    json: bool


def prefix(kind: str) -> str:
    """Of the variables of the command for *kind*: ``DFCTL_CACHE_TASK_PREHEAT_``."""
    return f"DFCTL_{kind.upper().replace('-', '_')}_PREHEAT_"


def add_flags(
    parser: argparse.ArgumentParser, kind: str, environ: Mapping[str, str], *, scope: str
) -> None:
    """All flags of the command, to its *parser*; *scope*: if it is not given."""
    parser.epilog = _EPILOG.replace("{prefix}", prefix(kind))
    parser.add_argument("urls", metavar="URL", type=identity.url, nargs="*", help="what to fetch")
    add = flags.Flags(parser, environ, prefix(kind))
    add.value(
        "-i",
        "--input-file",
        type=flags.output,
        meta="FILE",
        help="more URLs, a line each; - is stdin",
    )
    add.scheduler()
    _add_targets(parser, add, scope)
    identity.add(parser, environ, prefix(kind))
    _add_priority(add)
    _add_image(add)
    add.value("--timeout", env="TIMEOUT", type=flags.duration, default=_TIMEOUT, help="default 2h")
    add.switch(
        "--durable",
        "the job goes on if this command is ended, or the scheduler; dfctl job shows it",
    )
    add.switch("--detach", "likewise, and do not wait for it")
    add.switch("--no-progress", "draw no progress")
    add.switch(
        "--json", "print a line of JSON for each URL and host, and one in the end", env=False
    )
    add.value("-l", "--log-level", env="LOG_LEVEL", help="accepted; the scheduler has the log")
    add.switch("--console", "accepted; the scheduler has the log")


def _add_targets(parser: argparse.ArgumentParser, add: flags.Flags, scope: str) -> None:
    add.value(
        "--scope",
        env="SCOPE",
        type=_scope,
        default=scope,
        meta="SCOPE",
        help=f"{', '.join(_SCOPES)}; default {scope}",
    )
    parser.add_argument(
        "--ip",
        dest="ips",
        type=flags.text,
        action="append",
        default=[],
        metavar="IP",
        help="only hosts at these addresses, repeatable",
    )
    add.value(
        "--count",
        env="COUNT",
        type=flags.number(200),
        meta="N",
        help="only so many hosts, 1 to 200",
    )
    add.value(
        "--percentage",
        env="PERCENTAGE",
        type=flags.number(100),
        meta="N",
        help="only so many hosts of a hundred, 1 to 100",
    )
    add.value(
        "--concurrent-task-count",
        env="CONCURRENT_TASK_COUNT",
        type=flags.number(100),
        default=4,
        meta="N",
        help="URLs at once, 1 to 100, default 4",
    )
    add.value(
        "--concurrent-peer-count",
        env="CONCURRENT_PEER_COUNT",
        type=flags.number(1000),
        meta="N",
        help="hosts of one URL at once, 1 to 1000, default 500",
    )


def _add_priority(add: flags.Flags) -> None:
    add.value(
        "-p",
        "--priority",
        env="PRIORITY",
        type=_arguments.priority,
        default=6,
        help="0 to 6, default 6",
    )


def _add_image(add: flags.Flags) -> None:
    add.value(
        "--platform",
        env="PLATFORM",
        type=flags.text,
        default="",
        meta="OS/ARCH",
        help="of an image; default the scheduler's",
    )
    add.value("--username", env="USERNAME", type=flags.text, help="at the image's registry")
    add.value(
        "--password", env="PASSWORD", type=flags.text, help="likewise; better in its variable"
    )
    add.switch("--insecure-skip-verify", "do not check the registry's certificate")
    add.value(
        "--enable-task-id-based-blob-digest",
        env="ENABLE_TASK_ID_BASED_BLOB_DIGEST",
        type=flags.truth,
        default=True,
        meta="BOOL",
        help="a blob of an image has its digest for its id, as containers are fetched; default "
        "true, and false for cache tasks",
    )


def run(parser: argparse.ArgumentParser, given: argparse.Namespace, kind: str) -> int:
    """Do what is wanted; the exit status.

    Args:
        parser: The command's, for wrong usage.
        given: What it has read.
        kind: Of task, by its name in the contract.
    """
    options = Options(**vars(given))
    try:
        _complete(parser, options)
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    from ._preheat_job import Preheat  # noqa: PLC0415  gRPC: wrong usage need not wait for it
    from ._preheat_report import Report  # noqa: PLC0415  it imports typing, which --help does not need

    shown = not (options.no_progress or options.json) and sys.stderr.isatty()
    report = Report(sys.stdout, sys.stderr, as_json=options.json, shown=shown)
    try:
        with ended_by_signals(options.timeout + 2 * _GRACE):
            return Preheat(options, kind, report).carry_out(options.timeout + _GRACE)
    except DragonflyError as error:
        if isinstance(error, OutputLost):
            raise
        report.error(error.code.name, one_line(str(error)))
        return 1
    except Stopped as stop:
        report.stopped(stop.number, goes_on=options.detach or options.durable)
        return 128 + stop.number


def _complete(parser: argparse.ArgumentParser, options: Options) -> None:
    """Add what variables and files say. Raises ValueError."""
    flags.read_variables(parser, options)
    options.request_header = identity.headers_of(options.headers or [])
    if options.filtered_query_params is None:
        options.filtered_query_params = list(DEFAULT_FILTERED_QUERY_PARAMS)
    if options.scope == _SCOPES[0] and (options.ips or options.count or options.percentage):
        raise ValueError(f"--ip, --count and --percentage: {_SCOPES[0]} has one host for each URL")
    if options.input_file is not None:
        from ._targets import listed  # noqa: PLC0415  it imports typing, which --help does not need

        try:
            options.urls += listed(options.input_file, identity.url)
        except OSError as error:
            raise ValueError(f"--input-file {options.input_file}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"--input-file {options.input_file}: {error}") from error
    if not options.urls:
        raise ValueError("no URL: name some, or a file of them with --input-file")


def _scope(text: str) -> str:
    if text not in _SCOPES:
        raise argparse.ArgumentTypeError(f"{text!r}: want one of {', '.join(_SCOPES)}")
    return text
