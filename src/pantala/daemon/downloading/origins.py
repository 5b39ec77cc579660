"""The origin of one flight, with one caller's credentials after the other's."""

from __future__ import annotations

import asyncio

from pantala.daemon.node import Node
from pantala.errors import DragonflyError, InvalidRequest, NoProvider, SourceFailed

from .callers import Callers, Credentials, credentials
from .origin import Origin, Probe


class Origins:
    """Hands out the origin with the credentials of whoever may ask now.

    Args:
        node: For settings and sources.
        callers: On whose behalf it is asked.
        one_answer: Its answers are known to disagree; read all from one.
    """

    def __init__(self, node: Node, callers: Callers, *, one_answer: bool = False) -> None:
        self._node = node
        self._callers = callers
        self._origins: dict[Credentials, Origin] = {}
        self._one_answer = one_answer
        self._expected: tuple[int | None, str] | None = None
        #: End of what is wanted, as far as it is known.
        self.until: int | None = None

    def expect(self, total: int | None, version: str) -> None:
        """Hold every origin asked from now on to what is known of the content."""
        self._expected = total, version
        for origin in self._origins.values():
            origin.expect(total, version)

    def current(self) -> Origin:
        """The origin to ask now.

        Raises:
            NoProvider: No caller lets us ask it.
        """
        request = self._callers.sponsor()
        if request is None:
            raise NoProvider(
                "no peer is known to have the content, and this request must not ask the origin"
            )
        key = credentials(request)
        if key not in self._origins:
            url, headers = key
            origin = Origin(
                self._node.sources.for_url(url),
                url,
                dict(headers),
                timeout=self._node.config.download.piece_stall_timeout,
                answer=self._node.config.download.piece_timeout,
                retries=self._node.config.backend.max_retries,
                one_answer=self._one_answer,
            )
            if self._expected is not None:
                origin.expect(*self._expected)
            self._origins[key] = origin
        self._origins[key].until = self.until
        return self._origins[key]

    @property
    def in_order(self) -> bool:
        """The origin ignores ranges and is read from front to back."""
        return any(origin.in_order for origin in self._origins.values())

    async def probe(self) -> Origin:
        """Ask on behalf of one caller after the other until one is answered.

        Raises:
            SourceFailed: The last one was refused, too.
            NoProvider: Nobody may ask.
        """
        while True:
            origin = self.current()
            try:
                await self._node.run_for(origin.url, Probe(origin), self._node.probers)
            except (SourceFailed, InvalidRequest) as error:
                self.failed(origin, error)
                if self._callers.sponsor() is None:
                    raise
            else:
                return origin

    def failed(self, origin: Origin, error: DragonflyError) -> None:
        """Fail those on whose behalf *origin* was asked."""
        key = next(key for key, known in self._origins.items() if known is origin)
        self._callers.fail_sponsored(key, error)

    async def close(self) -> None:
        """Close what is open. Only when nobody reads."""
        origins, self._origins = list(self._origins.values()), {}
        loop = asyncio.get_running_loop()
        for origin in origins:
            await loop.run_in_executor(None, origin.close)
