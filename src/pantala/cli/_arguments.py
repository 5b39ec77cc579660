"""The command line of ``dfget`` and its environment, ``DFGET_*``. A flag beats a variable."""

from __future__ import annotations

import argparse
import os
import sys

from pantala.errors import InvalidRequest
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.paths import DEFAULT_SOCKET

from . import _flags as flags
from . import _identity as identity

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from ._targets import Target

_TIMEOUT: Final = 2 * 3600.0

#: Seconds beyond --timeout: the daemon's own word about that says more than ours.
GRACE: Final = 1.0

_MOST_JOBS: Final = 64

_EPILOG: Final = """\
examples:
  dfget https://example.com/model.bin -O model.bin
  dfget --cache URL -O model.bin           # the daemons keep it in memory, never on a disk
  dfget URL -O part.bin --range 0-1048575
  dfget URL -O - | tar x
  dfget URL URL URL -O models/             # several files, into a directory
  dfget -i urls.txt -j 8 -O models/        # a list, a URL a line; -i - reads standard input

Without a daemon on this machine, and without --endpoint, dfget starts a personal one.
Of several files, one that fails does not keep the others; --json prints a line for each as it ends.
Most flags have a variable: --tag has DFGET_TAG. A flag beats it; an empty one counts as unset.
Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""


class Options(argparse.Namespace):
    """What the user wants. The attributes are the flags of ``dfget --help``, and what they mean.

    Attributes:
        url: The first that was given.
        output: The file; of several, the directory.
        targets: Several, or a list; None: one URL.
        directory: The directory that is to be made first, if one is.
        progress: To be drawn.
    """

    urls: list[str]
    input_file: str | None
    jobs: int
    url: str
    output: str
    targets: list[Target] | None = None
    directory: str | None = None
    progress: bool
    cache: bool
    digest: str | None
    tag: str | None
    application: str | None
    priority: int
    piece_length: int | None
    headers: list[str] | None
    request_header: dict[str, str]
    filtered_query_params: list[str] | None
    refresh: bool
    disable_back_to_source: bool
    overwrite: bool
    force_hard_link: bool
    transfer_from_dfdaemon: bool
    timeout: float
    content_for_calculating_task_id: str | None
    no_progress: bool
    endpoint: str | None
    range: str | None
    prefetch: bool
    json: bool


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read the command line; wrong usage ends the program with status 2.

    Args:
        argv: Arguments after the program's name.
        environ: Environment variables. An empty one counts as unset.
    """
    parser = make_parser(environ)
    options, others = parser.parse_known_args(argv, namespace=Options())
    flags.read_variables(parser, options)
    _take_others(parser, options, others)
    try:
        options.request_header = identity.headers_of(options.headers or [])
    except ValueError as error:
        parser.error(str(error))
    ranges = options.range is not None or any(
        name.lower() == "range" for name in options.request_header
    )
    if options.digest is not None and ranges:
        parser.error(
            "--digest is of the whole content: it cannot go with --range or a Range header"
        )
    if options.force_hard_link:
        _check_hard_link(parser, options, ranges=ranges)
    if options.prefetch and options.range is None:
        parser.error("--prefetch fetches the rest after a --range, and there is none")
    if options.refresh and options.disable_back_to_source:
        parser.error("--refresh asks the origin: it cannot go with --disable-back-to-source")
    if options.json and options.output == "-":
        parser.error("--json and -O - both want stdout")
    if options.filtered_query_params is None:
        options.filtered_query_params = list(DEFAULT_FILTERED_QUERY_PARAMS)
    _find_targets(parser, options)
    options.progress = not (options.no_progress or options.json) and sys.stderr.isatty()
    return options


def _take_others(parser: argparse.ArgumentParser, options: Options, others: Sequence[str]) -> None:
    """URLs may also stand behind flags that follow other URLs, where argparse knows none."""
    if any(text.startswith("-") for text in others):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        options.urls = [*options.urls, *map(identity.url, others)]
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument URL: {error}")
    if not options.urls and options.input_file is None:
        parser.error("the following arguments are required: URL")


def _find_targets(parser: argparse.ArgumentParser, options: Options) -> None:
    """Say which files there will be, and end the program where that cannot be said."""
    several = len(options.urls) > 1 or options.input_file is not None
    in_directory = options.output != "-" and (
        options.output.endswith("/") or os.path.isdir(options.output)  # noqa: PTH112  pathlib costs 3 ms, a tenth of dfget's start
    )
    if several:
        _check_several(parser, options)
    if not (several or in_directory):
        options.url = options.urls[0]
        return
    from . import _targets  # noqa: PLC0415  one file with a name of its own needs none of it

    try:
        if options.input_file is not None:
            options.urls = [*options.urls, *_targets.read_urls(options.input_file, identity.url)]
        _targets.check_directory(options.output)
        targets = _targets.targets_of(options.urls, options.output)
    except ValueError as error:
        parser.error(str(error))
    options.url = options.urls[0]
    if options.output.endswith("/"):
        options.directory = options.output
    if several:
        options.targets = targets
    else:
        options.output = targets[0].output


def _check_several(parser: argparse.ArgumentParser, options: Options) -> None:
    """End the program if flags make no sense for more than one file."""
    against = {
        "-O -": options.output == "-" and "one after the other they would be one file",
        "--digest": options.digest is not None and "it is that of one file",
        "--content-for-calculating-task-id": options.content_for_calculating_task_id is not None
        and "all would be the same content",
    }
    for flag, why in against.items():
        if why:
            parser.error(f"{flag} cannot go with several URLs, or -i: {why}")


def _check_hard_link(parser: argparse.ArgumentParser, options: Options, *, ranges: bool) -> None:
    """End the program if a hard link can never be had."""
    against = {
        "--cache": options.cache and "memory has no file to link",
        "a range": ranges and "a link is of the whole file",
        "--transfer-from-dfdaemon": options.transfer_from_dfdaemon and "that writes a file",
        "-O -": options.output == "-" and "stdout is no file to make",
    }
    for other, why in against.items():
        if why:
            parser.error(f"--force-hard-link cannot go with {other}: {why}")


def request_of(options: Options) -> dict[str, Any]:
    """The request that docs/handoff.md has for *options*."""
    wanted = {
        "op": "download",
        "kind": "CACHE" if options.cache else "STANDARD",
        "url": options.url,
        "digest": options.digest,
        "range": options.range,
        "tag": options.tag,
        "application": options.application,
        "priority": options.priority,
        "filtered_query_params": options.filtered_query_params,
        "request_header": options.request_header,
        "piece_length": options.piece_length,
        "timeout": options.timeout,
        "refresh": options.refresh or None,  # a daemon that does not know it need not hear of it
        "disable_back_to_source": options.disable_back_to_source,
        "prefetch": options.prefetch,
        "progress": options.progress or None,
        "content_for_calculating_task_id": options.content_for_calculating_task_id,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; *environ* has variables that stand in for flags."""
    usage = "dfget URL [URL...] -O FILE|DIR [options]"
    about = "Fetch files through the cluster's peers."
    parser = flags.program_parser("dfget", about, usage=usage, epilog=_EPILOG)
    parser.add_argument("urls", metavar="URL", type=identity.url, nargs="*", help="what to fetch")
    _add_several(parser, environ)
    _add_content(parser, environ)
    _add_conduct(parser, environ)
    return parser


def _add_several(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Flags for more than one file."""
    add = flags.Flags(parser, environ, "DFGET_")
    add.value(
        *("-i", "--input-file"),
        type=flags.text,
        meta="FILE",
        help="a list of URLs, one a line; - is standard input; lines that begin with # are skipped",
    )
    add.value(
        *("-j", "--jobs"),
        env="JOBS",
        type=flags.number(_MOST_JOBS),
        default=4,
        meta="N",
        help=f"of several files, how many at once: 1 to {_MOST_JOBS}, default 4",
    )


def _add_content(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Flags that say what is wanted, and what its identity is."""
    add = flags.Flags(parser, environ, "DFGET_")
    add.switch("--cache", "a CacheTask: daemons keep it in memory, never on a disk")
    add.value(
        "--digest", type=_digest, meta="ALG:VALUE", help="sha256:HEX, sha512:HEX or crc32:DECIMAL"
    )
    add.value(
        "--range",
        type=identity.byte_range,
        meta="A-B",
        help="bytes A to B; A-: from A; -N: the last N",
    )
    add.switch("--prefetch", "with --range: let the daemon fetch the rest afterwards", env=False)
    identity.add(parser, environ, "DFGET_")


def _add_conduct(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Flags that say how to go about it."""
    add = flags.Flags(parser, environ, "DFGET_")
    parser.add_argument(
        "-O",
        "--output",
        type=flags.output,
        required=True,
        metavar="FILE",
        help="where to put it; - is stdout; in a directory it is named as the URL's path ends",
    )
    add.switch("--overwrite", "replace an existing file, once all of it is here")
    add.switch("--force-hard-link", "the file must be a hard link of the daemon's, or it fails")
    # Dragonfly's daemon writes the file unless it is given this; ours never does.
    add.switch("--transfer-from-dfdaemon", "accepted: dfget always writes the file itself")
    add.value(
        "-p", "--priority", env="PRIORITY", type=priority, default=6, help="0 to 6, default 6"
    )
    add.value(
        "--timeout",
        env="TIMEOUT",
        type=flags.duration,
        default=_TIMEOUT,
        help="for each file, default 2h",
    )
    add.switch("--refresh", "ask the origin first: fetch anew what has changed there", env=False)
    add.switch("--disable-back-to-source", "never ask the origin, only peers")
    add.endpoint(DEFAULT_SOCKET)
    add.switch("--no-progress", "draw no progress")
    add.switch("--json", "print the result, or the error, as one JSON object", env=False)
    # Scripts for Dragonfly's dfget set these. There is nothing to log on this side.
    add.value("-l", "--log-level", env="LOG_LEVEL", help="accepted; the daemon has the log")
    add.switch("--console", "accepted; the daemon has the log")


def _digest(text: str) -> str:
    from pantala.model.notation import parse_digest  # noqa: PLC0415  few give it, all would pay

    try:
        parse_digest(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("digest ")) from error
    return text


def priority(text: str) -> int:
    """One of Dragonfly's."""
    if text not in set("0123456"):
        raise argparse.ArgumentTypeError(f"{text!r}: want 0 to 6")
    return int(text)
