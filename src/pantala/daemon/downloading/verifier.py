"""Whether content is what its callers' digests say, and what becomes of it if it is not."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from typing import Final, Protocol

import structlog

from pantala.daemon.node import Node, new_peer_id
from pantala.errors import DigestMismatch, DragonflyError
from pantala.model.digest import hasher
from pantala.model.ids import Identity
from pantala.model.notation import Digest
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from .callers import Callers
from .download import Download
from .means import Means
from .origins import Origins

logger = structlog.get_logger(__name__)

#: Bytes hashed between two looks at whether anybody still waits.
_HASH_STEP: Final = 64 << 20


class Downloads(Protocol):
    """The engine, as it is seen from here."""

    def open(self, request: DownloadRequest) -> AbstractAsyncContextManager[Download]:
        """Begin a download; leaving the context ends it."""

    def begin(self, download: Download) -> None:
        """Join it to what is here, to a flight, or to a new one."""


class Verifier:
    """See the module.

    Args:
        node: What all rooms share.
        means: For origins, and for those who gave what was wrong.
        engine: For what is to be read afresh.
    """

    def __init__(self, node: Node, means: Means, engine: Downloads) -> None:
        self._node = node
        self._means = means
        self._engine = engine
        #: What whole tasks hash to, as long as they are held.
        self._digests: weakref.WeakKeyDictionary[Holding, dict[str, asyncio.Task[Digest]]]
        self._digests = weakref.WeakKeyDictionary()
        #: Tasks that are read from their origins again, because what was here was wrong.
        self._fresh: dict[tuple[Kind, str], asyncio.Task[None]] = {}

    async def is_expected(self, download: Download, want: Digest) -> bool:
        """Whether all of it is what the caller expects; False: it begins again, read afresh.

        Raises:
            DigestMismatch: It is not, and the origin has nothing else, or must not be asked.
        """
        try:
            await self._verify(download, want)
        except DigestMismatch as error:
            if not await self._read_afresh(download):
                raise
            logger.warning("read afresh", task=download.task_id, why=str(error))
            return False
        return True

    async def _read_afresh(self, download: Download) -> bool:
        """Drop content that is not what it should be, and read the origin; whether that helps.

        Not twice for the same bytes within some minutes, nor when the origin does not answer: a
        digest may be wrong, too, and whoever gives one must not be able to empty the swarm.
        """
        holding, key = download.holding, (download.request.kind, download.task_id)
        node, suspects, now = self._node, self._means.suspects, self._node.stores.now()
        assert holding is not None  # noqa: S101  it was verified
        old = holding.digests
        if download.afresh or suspects.is_confirmed(key, old, now):
            return False
        if not await self._may_read(download):
            return False
        download.afresh = True
        again = download.can_begin_again
        if again:
            download.begin_again()
        if node.stores.get(*key) is holding:
            peers = {p.parent_id for p in holding.pieces.values() if p.parent_id is not None}
            suspects.suspect(key, holding.givers, peers, now)
            node.stores.remove(holding, Reason.FAILED)
            work = self._fetch_afresh(download.request, key, old)
            self._fresh[key] = node.tasks.start(work, "content read afresh")
        if again:
            node.tasks.start(self._begin_after(self._fresh.get(key), download), "begin afresh")
        return again

    async def _may_read(self, download: Download) -> bool:
        """Whether the origin answers this caller."""
        identity = Identity(download.task_id, download.fingerprint)
        scratch = Download(download.request, Delivery(), identity, new_peer_id(self._node.config))
        origins = Origins(self._node, self._means.sources, Callers(scratch))
        try:
            async with asyncio.timeout_at(download.deadline):
                await origins.probe()
        except (DragonflyError, TimeoutError) as error:
            logger.info("not read afresh", task=download.task_id, why=str(error))
            return False
        finally:
            await origins.close()
        return True

    async def _begin_after(self, fresh: asyncio.Task[None] | None, download: Download) -> None:
        if fresh is not None:
            await asyncio.wait((fresh,))
        if not download.closed:
            self._engine.begin(download)

    async def _fetch_afresh(
        self, request: DownloadRequest, key: tuple[Kind, str], old: str
    ) -> None:
        """Read all of a task from its origin; *old* is what the one before hashed to."""
        whole = replace(request, need_back_to_source=True, prefetch=False)
        try:
            async with self._engine.open(whole) as download:
                async for _ in download:
                    pass
                if download.holding is not None and download.holding.digests == old:
                    now = self._node.stores.now()
                    self._means.suspects.confirm(key, old, now)
        except DragonflyError as error:
            logger.info("not read afresh", task=key[1], why=str(error))
        finally:
            del self._fresh[key]

    async def _verify(self, download: Download, want: Digest) -> None:
        holding = download.holding
        assert holding is not None  # noqa: S101  its pieces have arrived
        known = self._digests.setdefault(holding, {})
        if want.algorithm not in known:
            work = self._hash(holding, want.algorithm)
            known[want.algorithm] = self._node.tasks.start(work, "digest of a task")
        try:
            async with asyncio.timeout_at(download.deadline):
                got = await asyncio.shield(known[want.algorithm])
        except TimeoutError:
            raise download.timed_out() from None
        if got != want:
            raise DigestMismatch("the content", want=str(want), got=str(got))

    async def _hash(self, holding: Holding, algorithm: str) -> Digest:
        """Hash all of the content once for all who ask."""
        state = hasher(algorithm)
        total = holding.total

        def take(at: int) -> None:
            with extent.read(at, min(_HASH_STEP, total - at)) as part:
                state.update(part)

        with holding.lease(), closing(holding.extent(ByteRange(0, total))) as extent:
            for at in range(0, total, _HASH_STEP):
                await self._node.threads.helpers.call(take, at)
        return state.digest()
