"""``dfget URL -O FILE``: fetch one URL through the daemon of this machine.

The daemon passes the memory or file in which the content lies (docs/handoff.md), and ``dfget``
makes its own output from it, as its own user. Starting should cost little more than an interpreter
does, so this imports neither gRPC nor anything else that is not needed by every download.
"""
# ruff: noqa: E402  garbage is not looked for while modules are imported: that takes 2 ms, and finds none

from __future__ import annotations

import gc

gc.disable()

import os
import sys
import time

from pantala.client.connection import Connection, connect, connect_if_there
from pantala.client.output import Output, output_for
from pantala.client.saving import Saving
from pantala.errors import TimedOut, Unavailable
from pantala.model.urls import public_url
from pantala.paths import DEFAULT_SOCKET

from ._arguments import Options, parse, request_of
from ._outcome import outcome
from ._process import program
from ._progress import Progress

gc.enable()

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from pantala.client.arrival import Arrival

# The daemon's own word about a timeout says more than ours; leave it the time to come.
_GRACE: Final = 1.0


def main() -> int:
    """The program: :func:`run` with this process's arguments."""
    with program("dfget"):
        status = run(sys.argv[1:])
    # The interpreter's last search for garbage would take 3 ms, a tenth of it all; the kernel
    # is about to take everything anyway.
    gc.freeze()
    return status


def run(argv: Sequence[str]) -> int:
    """Do what the arguments *argv* say; return the exit status, see ``--help``."""
    options = parse(argv, os.environ)
    seconds = options.timeout + 2 * _GRACE
    return outcome("dfget", lambda: _fetch(options), as_json=options.json, seconds=seconds)


def _fetch(options: Options) -> dict[str, Any]:
    """Download what is wanted; return what ``--json`` prints of it."""
    begun = time.monotonic()
    shown = not (options.no_progress or options.json) and sys.stderr.isatty()
    progress = Progress(sys.stderr, shown=shown)
    output = output_for(
        options.output, overwrite=options.overwrite, hard_link=options.force_hard_link
    )
    with output:
        try:
            arrival = _download(options, output, progress, begun)
            output.commit()
        finally:
            progress.clear()
    progress.done()
    return {
        "task_id": arrival.task_id,
        "url": public_url(options.url),
        "output": options.output,
        "content_length": arrival.content_length,
        "start": arrival.start,
        "length": arrival.length,
        "bytes_from_peers": arrival.received["peers"],
        "bytes_from_origin": arrival.received["origin"],
        "bytes_from_cache": arrival.received["cache"],
        "seconds": round(progress.seconds, 6),
        "digest_verified": options.digest is not None,
    }


def _download(options: Options, output: Output, progress: Progress, begun: float) -> Arrival:
    """Carry the download out, by a second daemon if a personal one was just about to quit."""
    request = request_of(options)
    for first in (True, False):
        with _connect(options.endpoint, progress) as connection:
            spent = time.monotonic() - begun
            if spent > _GRACE / 2:  # else it shall stand in messages as the user put it
                request["timeout"] = max(round(options.timeout - spent, 1), 0.1)
            saving = Saving(connection, output, progress, in_files=not options.cache)
            try:
                saving.run(request, deadline=begun + options.timeout + _GRACE)
            except Unavailable as error:
                personal = options.endpoint is None and connection.endpoint != DEFAULT_SOCKET
                lost = not connection.answered and not isinstance(error, TimedOut)
                if not (first and personal and lost):
                    raise
                continue
        break
    return saving.arrival


def _connect(endpoint: str | None, progress: Progress) -> Connection:
    """Connect to the daemon that was named, the machine's, or one of the user's own."""
    if endpoint is not None:
        return connect(endpoint)
    if (connection := connect_if_there(DEFAULT_SOCKET)) is not None:
        return connection
    from pantala.client.personal import connect_personal  # noqa: PLC0415  most machines have a daemon

    connection, pid = connect_personal()
    if pid is not None:
        progress.say(
            f"no daemon is running; started a personal one (pid {pid}, quits after 5 minutes idle)"
        )
    return connection


if __name__ == "__main__":
    sys.exit(main())
