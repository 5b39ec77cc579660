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
_LENIENT: Final = frozenset({"http:", "https:", "file:"})


def public_url(url: str) -> str:
    """*url* without what may be a secret: user, password, query and fragment. Never fails.

    Tasks whose URLs differ in nothing else are told apart by their ids.

    >>> public_url("https://me:pw@example.com/a?token=1")
    'https://example.com/a'
    """
    text = _QUERY.split(_IGNORED.sub("", url), maxsplit=1)[0]
    head = _SCHEME.match(text)
    scheme, slashes = (head[1] or "", head[2]) if head else ("", "")
    rest = text[head.end() :] if head else text
    if scheme.lower() == "file:" and len(slashes) > 2:
        return scheme + slashes + rest  # no host, so nobody stands before one
    slash = (_ANY_SLASH if scheme.lower() in _LENIENT else _SLASH).search(rest)
    end = slash.start() if slash else len(rest)
    return scheme + slashes + rest[:end].rpartition("@")[2] + rest[end:]
