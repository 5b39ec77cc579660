"""Which source serves a URL."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pantala.errors import InvalidRequest
from pantala.ports import Source

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")


class Registry:
    """Sources by URL scheme.

    Args:
        sources: Scheme, in lower case and without the colon, to source.
        off: Schemes whose sources say themselves why they serve nothing; none to be named.
    """

    def __init__(self, sources: Mapping[str, Source], *, off: Collection[str] = ()) -> None:
        self._sources = dict(sources)
        self._off = frozenset(off)

    def __repr__(self) -> str:
        return f"<Registry {' '.join(sorted(self._sources))}>"

    def for_url(self, url: str) -> Source:
        """The source for *url*.

        Raises:
            InvalidRequest: *url* has no scheme, or one that nobody here serves.
        """
        found = _SCHEME.match(url)
        scheme = found[1].lower() if found else ""
        source = self._sources.get(scheme)
        if source is None:
            known = ", ".join(f"{name}://" for name in sorted(self._sources.keys() - self._off))
            what = f"scheme {scheme[:50]!r}" if scheme else "no scheme"
            raise InvalidRequest(f"the URL has {what}; this daemon can fetch {known}")
        return source
