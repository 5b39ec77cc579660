"""URLs as others may see them.

A module of its own because ``dfget`` needs it and may import little.
"""

from __future__ import annotations

import re
from typing import Final

# As the WHATWG rules read a URL: slashes may be missing or, where the scheme is one that
# browsers know, lean either way, and tabs and line breaks count for nothing.
_IGNORED: Final = re.compile(r"[\x00-\x1f\x7f]+")
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*:)?([/\\]*)")
_QUERY: Final = re.compile(r"[?#]")
_SLASH: Final = re.compile(r"/")
_ANY_SLASH: Final = re.compile(r"[/\\]")
_MAX_PORT: Final = 65535
_LENIENT: Final = frozenset({"http:", "https:", "file:"})


def public_url(url: str) -> str:
    """*url* without what may be a secret: user, password, query and fragment. Never fails.

    Tasks whose URLs differ in nothing else are told apart by their ids.

    >>> public_url("https://me:pw@example.com/a?token=1")
    'https://example.com/a'
    """
    scheme, slashes, rest = _parts(url)
    if scheme.lower() == "file:" and len(slashes) > 2:
        return scheme + slashes + rest  # no host, so nobody stands before one
    if not scheme:  # nobody knows where its host ends
        return slashes + rest.rpartition("@")[2]
    end = _end_of_host(scheme, rest)
    return scheme + slashes + rest[:end].rpartition("@")[2] + rest[end:]


def fault_of(url: str) -> str | None:
    """What makes *url* one that nobody can fetch, in words that show none of it; else None.

    Not all that a parser would refuse is found.

    >>> fault_of("http://me:pw@host:99999/x")
    'its port is above 65535'
    """
    scheme, slashes, rest = _parts(url)
    if not scheme:
        return "it has no scheme"
    if scheme.lower() == "file:":
        return None
    host = rest[: _end_of_host(scheme, rest)].rpartition("@")[2]
    # The rules take the next part for the host where there is none: nobody means that.
    if len(slashes) > 2 or not host or host.startswith(":"):
        return "it names no host"
    bracket = host.startswith("[")
    if bracket and "]" not in host:
        return "the [ of its IPv6 address is not closed"
    return _fault_of_port(host.partition("]")[2] if bracket else host)


def _fault_of_port(text: str) -> str | None:
    """What is wrong with the port after the first colon of *text*, if there is one."""
    port = text.partition(":")[2]
    if port and not (port.isascii() and port.isdigit()):
        return "its port is not a number"
    # More digits than this are too many for a number to be made of, and above it anyway.
    return "its port is above 65535" if int(port.lstrip("0")[:10] or "0") > _MAX_PORT else None


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme with its colon, slashes, and what follows up to a query or fragment."""
    text = _QUERY.split(_IGNORED.sub("", url), maxsplit=1)[0]
    head = _SCHEME.match(text)
    scheme, slashes = (head[1] or "", head[2]) if head else ("", "")
    return scheme, slashes, text[head.end() :] if head else text


def _end_of_host(scheme: str, rest: str) -> int:
    slash = (_ANY_SLASH if scheme.lower() in _LENIENT else _SLASH).search(rest)
    return slash.start() if slash else len(rest)
