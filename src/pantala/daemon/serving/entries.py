"""What an origin says of a URL, for callers who ask before they download."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pantala.daemon.downloading.engine import Engine
from pantala.errors import TimedOut
from pantala.pb import dfdaemon_pb2
from pantala.rpc.convert import seconds

#: What an origin has answered that was asked with success. Its sources do not tell 206 from it.
_OK: Final = 200


async def list_task_entries(engine: Engine, request: Any) -> Any:
    """Answer ``ListTaskEntries``: length and headers of what is at a URL.

    It has entries only where it is a directory, and origins of ours have none.

    Raises:
        OriginError: The origin refuses, or cannot be reached.
        TimedOut: The caller's time is over.
    """
    limit = seconds(request.timeout) if request.HasField("timeout") else None
    try:
        async with asyncio.timeout(limit):
            origin = await engine.ask_origin(request.url, request.request_header)
    except TimeoutError:
        raise TimedOut(f"no answer within the {limit:g} s that were asked for") from None
    return dfdaemon_pb2.ListTaskEntriesResponse(
        content_length=origin.total or 0, response_header=origin.header, status_code=_OK
    )
