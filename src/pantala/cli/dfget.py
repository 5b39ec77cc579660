"""``dfget URL -O FILE``: fetch a URL, or many, through the daemon of this machine.

The daemon passes the memory or file in which the content lies (docs/handoff.md), and ``dfget``
makes its own output from it, as its own user. Starting should cost little more than an interpreter
does, so this imports neither gRPC nor anything else that is not needed by every download; what many
URLs need is in :mod:`._many`.
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
from pantala.paths import DEFAULT_SOCKET

from ._arguments import GRACE, Options, parse, request_of
from ._outcome import advice, outcome, result_of
from ._process import program
from ._progress import Progress
from ._signals import Stopped

gc.enable()

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pantala.client.arrival import Arrival


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
    if options.targets is not None:
        from ._many import fetch_all  # noqa: PLC0415  most want one file, and wait for its import

        return fetch_all(options, options.targets, _connect)
    seconds = options.timeout + 2 * GRACE
    return outcome("dfget", lambda: _fetch(options), as_json=options.json, seconds=seconds)


def _fetch(options: Options) -> dict[str, Any]:
    """Download what is wanted; return what ``--json`` prints of it."""
    begun = time.monotonic()
    progress = Progress(sys.stderr, shown=options.progress)
    if options.directory is not None:
        from ._targets import make_directory  # noqa: PLC0415  most name a file, or what is there

        make_directory(options.directory)
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
    return result_of(arrival, options, options.url, options.output, progress.seconds)


def _download(options: Options, output: Output, progress: Progress, begun: float) -> Arrival:
    """Carry the download out, by a second daemon if a personal one was just about to quit."""
    request = request_of(options)
    for first in (True, False):
        with _connect(options.endpoint, progress.say) as connection:
            spent = time.monotonic() - begun
            if spent > GRACE / 2:  # else it shall stand in messages as the user put it
                request["timeout"] = max(round(options.timeout - spent, 1), 0.1)
            saving = Saving(connection, output, progress, in_files=not options.cache)
            try:
                saving.run(request, deadline=begun + options.timeout + GRACE)
            except Stopped as stop:
                stop.advice = advice(options, [saving.arrival])
                raise
            except Unavailable as error:
                personal = options.endpoint is None and connection.endpoint != DEFAULT_SOCKET
                lost = not connection.answered and not isinstance(error, TimedOut)
                if not (first and personal and lost):
                    raise
                continue
        break
    return saving.arrival


def _connect(
    endpoint: str | None, say: Callable[[str], None], *, numbered: bool = False
) -> Connection:
    """Connect to the daemon that was named, the machine's, or one of the user's own."""
    if endpoint is not None:
        return connect(endpoint, numbered=numbered)
    if (connection := connect_if_there(DEFAULT_SOCKET, numbered=numbered)) is not None:
        return connection
    from pantala.client.personal import connect_personal  # noqa: PLC0415  most machines have a daemon

    connection, pid = connect_personal(numbered=numbered)
    if pid is not None:
        say(f"no daemon is running; started a personal one (pid {pid}, quits after 5 minutes idle)")
    return connection


if __name__ == "__main__":
    sys.exit(main())
