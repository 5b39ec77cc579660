"""Writing an imported task to a file, as its daemon can give it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from pantala.client.connection import connect
from pantala.client.output import Output, output_for
from pantala.client.saving import Saving
from pantala.errors import Unavailable
from pantala.model.task import Kind
from pantala.rpc.convert import duration

from ._daemon import Daemon
from ._progress import Progress

#: ``common.v2.TrafficType``
_LOCAL_PEER: Final = 2


class Wanted(Protocol):
    """What the user wants; the attributes are flags of ``dfcache export``."""

    id: str
    application: str | None
    tag: str | None
    timeout: float
    transfer_from_dfdaemon: bool
    overwrite: bool
    force_hard_link: bool
    output: str
    digest: str | None


def export(
    daemon: Daemon, wanted: Wanted, progress: Progress, *, grace: float
) -> Mapping[str, Any]:
    """Write what is *wanted*; what ``--json`` prints of it.

    Our daemon passes the file in which the content lies, as it does to dfget. A stock one writes
    the output itself, unless the content is to come through its socket.

    Args:
        daemon: Whom to ask.
        wanted: Of it.
        progress: Is told of everything.
        grace: Seconds beyond the user's own limit that the daemon has to say what went wrong.

    Raises:
        DragonflyError: It cannot be had, or not be written.
    """
    if daemon.is_ours:
        length = _from_ours(daemon, wanted, progress, grace)
    else:
        length = _from_stock(daemon, wanted, progress, grace)
    progress.done()
    return {
        "task_id": wanted.id,
        "output": wanted.output,
        "content_length": length,
        "seconds": round(progress.seconds, 6),
        "digest_verified": wanted.digest is not None,
    }


def _from_ours(daemon: Daemon, wanted: Wanted, progress: Progress, grace: float) -> int:
    request = {
        "op": "download",
        "kind": Kind.PERSISTENT_CACHE.name,
        "task_id": wanted.id,
        "digest": wanted.digest,
        "timeout": wanted.timeout,
    }
    deadline = time.monotonic() + wanted.timeout + grace
    hard_link = wanted.force_hard_link
    with (
        output_for(wanted.output, overwrite=wanted.overwrite, hard_link=hard_link) as output,
        connect(daemon.endpoint) as connection,
    ):
        saving = Saving(connection, output, progress, in_files=True)
        saving.run(request, deadline=deadline)
        output.commit()
    return saving.arrival.content_length


def _from_stock(daemon: Daemon, wanted: Wanted, progress: Progress, grace: float) -> int:
    request: dict[str, Any] = {
        "task_id": wanted.id,
        "tag": wanted.tag,
        "application": wanted.application,
        "digest": wanted.digest,
        "timeout": duration(wanted.timeout),
    }
    limit = wanted.timeout + grace
    if wanted.transfer_from_dfdaemon:
        request["need_piece_content"] = True
        with output_for(wanted.output, overwrite=wanted.overwrite) as output:
            length = _receive(daemon, request, progress, output, limit)
            output.commit()
        return length
    request |= {
        "output_path": str(Path(wanted.output).absolute()),
        "overwrite": wanted.overwrite,
        "force_hard_link": wanted.force_hard_link,
    }
    return _receive(daemon, request, progress, None, limit)


def _receive(
    daemon: Daemon,
    request: Mapping[str, Any],
    progress: Progress,
    output: Output | None,
    limit: float,
) -> int:
    """Have a task downloaded, and write its pieces to *output*, if there is one; its length.

    Raises:
        Unavailable: Less came than there should be.
    """
    total, received = None, dict.fromkeys(("peers", "cache"), 0)
    with daemon.stream("DownloadPersistentCacheTask", request, timeout=limit) as messages:
        for message in messages:
            match message.WhichOneof("response"):
                case "download_persistent_cache_task_started_response":
                    started = message.download_persistent_cache_task_started_response
                    total = int(started.content_length)
                    progress.started(total)
                case "download_piece_finished_response":
                    piece = message.download_piece_finished_response.piece
                    if output is not None:
                        output.write(int(piece.offset), memoryview(piece.content))
                    local = piece.traffic_type == _LOCAL_PEER
                    received["cache" if local else "peers"] += int(piece.length)
                    progress.moved(received)
    if total is None or sum(received.values()) != total:
        whole = "unknown" if total is None else f"{total} bytes"
        raise Unavailable(
            f"the download of task {request['task_id']} ended early: "
            f"{sum(received.values())} bytes came, of {whole}"
        )
    return total
