"""Headers of a request to an origin: those that no caller decides, those that decide the content.

A module of its own because ``dfget`` needs it and may import little.
"""

from __future__ import annotations

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
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

#: In lower case, besides all that begin with one of the prefixes below: by them an origin chooses
#: which representation of a resource it sends (RFC 9110, 12.5; RFC 2295, 3229, 7240; client hints).
_NEGOTIATE: Final = frozenset(
    {
        "a-im",
        "device-memory",
        "dpr",
        "downlink",
        "ect",
        "negotiate",
        "prefer",
        "rtt",
        "save-data",
        "viewport-width",
        "width",
    }
)
_NEGOTIATE_PREFIXES: Final = ("accept", "sec-ch-")


def negotiates(name: str) -> bool:
    """Whether an origin may choose by the header *name* which bytes it sends for a URL."""
    name = name.lower()
    return name in _NEGOTIATE or name.startswith(_NEGOTIATE_PREFIXES)


def representation(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of *headers* that decide which representation is meant, in an order of their own.

    ``Accept-Encoding: identity`` is left out: that is what origins are asked for anyway.

    >>> representation({"Accept-Encoding": "gzip", "Authorization": "Bearer x"})
    [('accept-encoding', 'gzip')]
    """
    found = ((name.lower(), value.strip()) for name, value in headers.items() if negotiates(name))
    return sorted(pair for pair in found if pair != ("accept-encoding", "identity"))
