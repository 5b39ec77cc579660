"""Lets in what the cluster's operator has not blocked; asked where programs of this machine ask."""

from __future__ import annotations

import structlog

from pantala.core.blocking import BlockLists, Deed, Subject
from pantala.errors import Forbidden
from pantala.model.task import DownloadRequest, ImportRequest, Kind

from .metrics import Metrics

logger = structlog.get_logger(__name__)


class Gate:
    """See the module. Lists that change count for requests that come from then on.

    What schedulers ask of a seed is not asked here: whoever wants it was, on a host of his own.

    Args:
        metrics: Count what was blocked.

    Attributes:
        lists: What counts now.
        source: Where they are from, for messages.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.lists = BlockLists()
        self.source = ""

    def follow(self, lists: BlockLists, source: str) -> None:
        """From now on *lists* count, which are from *source*."""
        if lists == self.lists:
            return
        self.lists, self.source = lists, source
        logger.info("block lists", lists=len(lists.lists), source=source)
        if lists.problems:
            logger.warning(
                "parts of a block list without effect", source=source, parts=lists.problems
            )

    def blocks(self, wanted: DownloadRequest) -> str | None:
        """The list that a download is on, by name; None if it is on none."""
        if not self.lists.lists:
            return None
        subject = Subject(
            wanted.url, wanted.application or "", wanted.tag or "", int(wanted.priority)
        )
        return self.lists.match(wanted.kind, Deed.DOWNLOAD, subject)

    def check_download(self, wanted: DownloadRequest) -> None:
        """Raises Forbidden: it is blocked, by a list that is named."""
        self._refuse(wanted.kind, Deed.DOWNLOAD, self.blocks(wanted))

    def check_upload(self, wanted: ImportRequest) -> None:
        """Raises Forbidden: an import is blocked. It has no URL that a list could know."""
        subject = Subject("", wanted.application or "", wanted.tag or "")
        self._refuse(wanted.kind, Deed.UPLOAD, self.lists.match(wanted.kind, Deed.UPLOAD, subject))

    def _refuse(self, kind: Kind, deed: Deed, name: str | None) -> None:
        if name is None:
            return
        self._metrics.blocked(kind, deed.value)
        logger.info("blocked", list=name, source=self.source)
        raise Forbidden(f"blocked for this cluster by {name} in {self.source}")
