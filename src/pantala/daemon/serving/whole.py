"""Small content that is here, answered at once: no download is begun for it (docs/handoff.md).

What a request means, and most of its answer, is kept from one time to the next. It is used only
as long as the very same content is here.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Final

from pantala.core.ledger import Account, Ledger
from pantala.core.policy import policy_of
from pantala.daemon.downloading.comparing import revalidates
from pantala.daemon.downloading.download import asks_for_range
from pantala.daemon.downloading.engine import Engine
from pantala.daemon.metrics import Hits, TaskLabels
from pantala.daemon.node import Node
from pantala.errors import DragonflyError
from pantala.model.task import Delivery, DownloadRequest
from pantala.storage.holding import Holding
from pantala.storage.medium import Lying
from pantala.wire.handoff import MAX_CONTENT, parse

from .handoff_request import parse_download

#: Bytes that what is remembered may take, about; and one request. 16 MiB are some ten thousand.
_MEMORY: Final = 16 << 20
_LARGEST: Final = 4096
_OVERHEAD: Final = 500

#: Seconds that content may have been used without its record saying so.
_STALE: Final = 10.0


@dataclass(slots=True)
class _Known:
    """What is remembered of a request.

    Attributes:
        holding: That it is for.
        answer: The answer's object, from the word after its id on.
        total: Bytes of the content.
        account: Says whether it is here still.
        ledger: Of that.
        touched: When it was noted for the last time that it was used: unix time.
        hits: Counts that it was answered.
    """

    holding: weakref.ref[Holding]
    answer: bytes
    total: int
    account: Account
    ledger: Ledger
    touched: float
    hits: Hits


class Whole:
    """See the module.

    Args:
        node: What it holds, and where that is counted.
        engine: For what a request means.
        memory: Bytes that what is remembered may take, about.
    """

    def __init__(self, node: Node, engine: Engine, *, memory: int = _MEMORY) -> None:
        self._node = node
        self._engine = engine
        self._room = memory
        self._known: dict[bytes, _Known] = {}
        #: On none of these is what is known.
        self._lists = node.gate.lists

    def find(self, text: bytes) -> tuple[bytes, Lying] | None:
        """The answer's object, from the word after its id on, and the content.

        None where there is more to it: it is not here, or not all of it is wanted, or it is large,
        or makes no sense. The content is to be sent before anything else is done.

        Args:
            text: The request's object, from the word after its id on, whatever that is.
        """
        if self._lists is not self._node.gate.lists:  # what was let in may be blocked now
            self._forget_all()
        known = self._known.get(text)
        holding = None if known is None else known.holding()
        if known is None or holding is None or known.account.doomed or not holding.pieces:
            self._forget(text)
            known = self._learn(text)
            if known is None or (holding := known.holding()) is None:
                return None
        known.hits.count += 1
        known.ledger.touch(known.account)
        if (now := self._node.stores.now()) - known.touched > _STALE:
            known.touched = now
            holding.touch()
        lying = holding.content.lying()
        return None if lying is None else (known.answer, lying)

    def at_hand(self, wanted: DownloadRequest, delivery: Delivery) -> Holding | None:
        """All that is wanted, if it is in memory, and there is no more to it.

        Raises:
            DragonflyError: The request makes no sense.
        """
        if self._node.gate.blocks(wanted):  # it is refused where all is
            return None
        if delivery.digest is not None or wanted.prefetch or asks_for_range(wanted):
            return None
        if delivery.refresh:  # whatever is here, its origin is asked first
            return None
        if policy_of(wanted.kind).imported or revalidates(wanted.kind, self._node.config.backend):
            return None
        task_id, fingerprint = self._engine.identify(wanted)
        store = self._node.stores[wanted.kind]
        holding = store.get(wanted.kind, task_id)
        if holding is None or not holding.complete or store.medium.decays:
            return None
        return holding if holding.record.identity == fingerprint else None

    def hits(self, wanted: DownloadRequest) -> Hits:
        """What counts that it was had."""
        tag, application = wanted.tag or "", wanted.application or ""
        labels = TaskLabels(wanted.kind, tag, application, wanted.priority)
        return self._node.metrics.hits(labels)

    def _learn(self, text: bytes) -> _Known | None:
        """What a request means, if it is to be answered here."""
        try:
            request = parse(b"{" + text)
            if request.pop("op", None) != "download":
                return None
            wanted, delivery = parse_download(request)
            holding = self.at_hand(wanted, delivery)
        except DragonflyError:  # it is said where all is
            return None
        # Content of one piece is here as a whole, or not at all.
        if holding is None or len(holding.pieces) != 1 or holding.total > MAX_CONTENT:
            return None
        words = holding.id.encode(), holding.total
        known = _Known(
            weakref.ref(holding),
            b'"event":"whole","task_id":"%b","inline":%d}' % words,
            holding.total,
            holding.account,
            self._node.stores[wanted.kind].ledger,
            0.0,
            self.hits(wanted),
        )
        self._remember(text, known)
        return known

    def _remember(self, text: bytes, known: _Known) -> None:
        cost = _cost(text)
        if cost > _LARGEST:
            return
        self._room -= cost
        self._known[text] = known
        while self._room < 0:  # the oldest go: of many that are asked for in turn, some stay known
            self._forget(next(iter(self._known)))

    def _forget_all(self) -> None:
        self._lists = self._node.gate.lists
        for text in list(self._known):
            self._forget(text)

    def _forget(self, text: bytes) -> None:
        if self._known.pop(text, None) is not None:
            self._room += _cost(text)


def _cost(text: bytes) -> int:
    return _OVERHEAD + len(text)
