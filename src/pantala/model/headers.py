"""Headers of a request to an origin that no caller decides.

A module of its own because ``dfget`` needs it and may import little.
"""

from __future__ import annotations

from typing import Final

#: In lower case. They belong to one connection or to one message (RFC 9110, 7.6.1), or are made
#: of what the caller says elsewhere; what he sends of them is dropped.
NOT_THE_CALLERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
