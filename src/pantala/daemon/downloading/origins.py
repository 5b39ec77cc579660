"""The origin of one flight, with one caller's credentials after the other's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from pantala.daemon.node import Node
from pantala.errors import DragonflyError, InvalidRequest, NoProvider, OriginError, TimedOut
from pantala.model.task import DownloadRequest
from pantala.model.urls import public_url
from pantala.sources.registry import Registry

from .callers import Callers, Credentials, credentials
from .origin import Origin, Probe

logger = structlog.get_logger(__name__)


#: Seconds for an origin to answer where others may know what it is asked. One that hangs holds
#: nobody up for longer who could have the content elsewhere.
PATIENCE: Final = 5.0

#: Statuses by which a server says that it has too much to do, or did not understand in time.
_NOT_NOW: Final = frozenset({408, 425, 429})


def is_refusal(error: DragonflyError) -> bool:
    """Whether an origin says that it has nothing for who asks; not that it cannot answer now."""
    if not isinstance(error, OriginError):
        return True
    status = error.status
    return status is not None and 400 <= status < 500 and status not in _NOT_NOW


class Origins:
    """Hands out the origin with the credentials of whoever may ask now.

    Args:
        node: For settings and threads.
        sources: How it is asked.
        callers: On whose behalf it is asked.
        one_answer: Its answers are known to disagree; read all from one.
    """

    def __init__(
        self, node: Node, sources: Registry, callers: Callers, *, one_answer: bool = False
    ) -> None:
        self._node = node
        self._sources = sources
        self._callers = callers
        self._origins: dict[Credentials, Origin] = {}
        self._one_answer = one_answer
        self._expected: tuple[int | None, str] | None = None
        #: Why no answer of it has come that would do.
        self.silence: DragonflyError | None = None
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
                self._sources.for_url(url),
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
    def sponsor(self) -> DownloadRequest | None:
        """The request on whose behalf it may be asked now; None: nobody's."""
        return self._callers.sponsor()

    def refused(self, request: DownloadRequest, error: OriginError) -> None:
        """It has failed others who asked as for *request*: whoever would ask so again has failed.

        Raises:
            OriginError: Nobody else is there.
        """
        self._callers.fail_sponsored(credentials(request), error)
        if not self._callers.active():
            logger.warning("origin failed", url=public_url(request.url), why=str(error))
            raise error

    @property
    def in_order(self) -> bool:
        """The origin ignores ranges and is read from front to back."""
        return any(origin.in_order for origin in self._origins.values())

    async def probe(self) -> Origin:
        """Ask on behalf of one caller after the other until one is answered.

        Raises:
            OriginError: The last one was refused, too.
            NoProvider: Nobody may ask.
        """
        origin = await self._ask(silence=False)
        assert origin is not None  # noqa: S101  silence is a failure here
        return origin

    async def ask(self, *, patient: bool = False) -> Origin | None:
        """The same, but None where no answer comes soon, or nobody may ask: others may know.

        Args:
            patient: Nobody else would do: it may take its time.

        Raises:
            OriginError: It refused all on whose behalf it was asked, and nobody else is there.
        """
        request = self._callers.sponsor()
        if request is None:
            return None
        try:
            async with asyncio.timeout(None if patient else PATIENCE):
                return await self._ask(silence=True)
        except TimeoutError:
            why = f"nothing within {PATIENCE:g} s"
            logger.warning("the origin does not answer", url=public_url(request.url), why=why)
            self.silence = TimedOut(why)
            return None

    async def _ask(self, *, silence: bool) -> Origin | None:
        while True:
            origin = self.current()
            try:
                await self._node.threads.probers.run(origin.url, Probe(origin))
            except (OriginError, InvalidRequest) as error:
                if silence and not is_refusal(error):
                    logger.warning(
                        "the origin does not answer", url=public_url(origin.url), why=str(error)
                    )
                    self.silence = error
                    return None
                self.failed(origin, error)
                if self._callers.sponsor() is None:
                    if silence and self._callers.active():
                        return None
                    logger.warning("origin failed", url=public_url(origin.url), why=str(error))
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


async def probe(node: Node, sources: Registry, url: str, headers: Mapping[str, str]) -> Origin:
    """What is at *url*, asked once, and for no download.

    Raises:
        OriginError: It refuses, or cannot be reached.
        InvalidRequest: Nobody is asked by such a URL.
    """
    config = node.config.download
    origin = Origin(
        sources.for_url(url),
        url,
        {k: v for k, v in headers.items() if k.lower() != "range"},
        timeout=config.piece_stall_timeout,
        answer=config.piece_timeout,
        retries=0,
    )
    try:
        await node.threads.probers.run(url, Probe(origin))
    finally:
        await node.threads.helpers.call(origin.close)
    return origin
