"""Who has what: the parents that a flight follows, and what it tells those that exchange.

Two ways lead to a parent's pieces. One that exchanges chooses what it offers to whom next, and is
told for that what is lacking here (:mod:`.wants`); one that does not, such as Dragonfly's own
daemons, is asked once what it has, and offers every piece as it gets it.

All must hold the same version of the content: what the origin says counts, else what most say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

import structlog

from pantala.core.pace import Pace
from pantala.core.transfer import Closed, Event, Offered
from pantala.daemon.node import Node
from pantala.errors import Busy, DragonflyError, RemoteProtocolError
from pantala.model.announce import Candidate
from pantala.model.exchange import Copy, Exchanged, Offer, Offering
from pantala.model.numbers import bits_of_numbers, runs_of
from pantala.model.task import READING
from pantala.storage.holding import Holding

from .means import Means
from .wants import Wants

logger = structlog.get_logger(__name__)

#: How often a parent is asked what it has that has too many children; a second apart, more or less.
_BUSY_TRIES: Final = 5


class Listener(Protocol):
    """The flight, as it hears of its parents."""

    @property
    def room(self) -> int:
        """So many more pieces it would fetch of parents at once."""

    @property
    def leisure(self) -> float:
        """Seconds in which a piece comes at best: parents need not hear of each sooner."""

    @property
    def spared(self) -> int:
        """Pieces that need not come from afar, as bits."""

    def on(self, event: Event) -> None:
        """Something happened that the transfer must decide upon."""

    def on_plain(self, name: str) -> None:
        """A parent does not exchange, so that it says nothing of its host besides."""

    def on_outvoted(self) -> None:
        """More hosts hold another version of the content than the one that is fetched."""


class Following:
    """See the module.

    Args:
        node: What all rooms share.
        means: What all downloads share.
        listener: The flight.
        holding: Where the pieces go.
        pace: Hears who says something.
        certain: The origin has said which version the content has.
        avoid: Versions that are known to lead nowhere.

    Attributes:
        name: By which the scheduler knows the download; ``""`` if it does not.
        candidates: Everybody the scheduler ever proposed.
        offers: What parents have offered, by parent and piece.
        others: By host, the version that it holds, if that is another than ours.
        under_way: Pieces that are being fetched.
    """

    def __init__(
        self,
        node: Node,
        means: Means,
        listener: Listener,
        holding: Holding,
        pace: Pace,
        *,
        certain: bool = False,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self._node = node
        self._means = means
        self.name = ""
        self._listener = listener
        self._holding = holding
        self.pace = pace
        self.candidates: dict[str, Candidate] = {}
        self.offers: dict[tuple[str, int], Offer] = {}
        self.under_way: set[int] = set()
        self.certain = certain
        self._avoid = avoid
        self.others: dict[str, str] = {}
        #: Where those who exchange serve pieces.
        self._places: dict[str, tuple[str, int]] = {}
        #: What they are told of what is wanted here.
        self._wants: dict[str, Wants] = {}
        #: Hosts that hold ours, we included if some of it is here.
        self._same = {node.config.host_id} if holding.pieces else set()
        #: What those of ours hash to who have all of it.
        self._digests: set[str] = set()

    async def follow(self, name: str, numbers: frozenset[int]) -> None:
        """Collect what a parent offers until it offers no more."""
        holding, host = self._holding, self.candidates[name].host.id
        now = self._node.stores.now()
        bad = self._means.suspects.is_suspect((holding.kind, holding.id), host, now)
        if bad:
            logger.info("parent left out", parent=name, why="what it gave was not as it should be")
            self._listener.on(Closed(name, bad=True))
            return
        try:
            for _ in range(_BUSY_TRIES):
                with contextlib.suppress(Busy):
                    found = await self._exchange(self.candidates[name], numbers)
                    if found is None:
                        self._listener.on_plain(name)
                        found = await self._collect(self.candidates[name], numbers)
                    bad = found
                    break
                await asyncio.sleep(self._means.rng.uniform(0.5, 1.5))
        except DragonflyError as error:
            logger.info("parent offers no more", task=self._holding.id, parent=name, why=str(error))
        self._listener.on(Closed(name, bad=bad))

    async def _exchange(self, parent: Candidate, numbers: frozenset[int]) -> bool | None:
        """Report what a parent would have us fetch; whether it is no use at all.

        Returns:
            None if it does not exchange.
        """
        under_way = bits_of_numbers(self.under_way)
        lacks = bits_of_numbers(numbers) & ~under_way
        wants = self._wants[parent.peer_id] = Wants(
            lacks,
            self._listener.room,
            has=(under_way | bits_of_numbers(self._holding.pieces)) & ~lacks,
            later=lacks & self._listener.spared if self._is_far(parent) else 0,
            name=self.name,
        )
        gap = self._node.config.download.collected_piece_timeout
        link = self._means.parents
        said: bool | None = None
        try:
            stream = cast(
                "Any", link.exchange(parent, self._holding.kind, self._holding.id, wants, gap=gap)
            )
            async with aclosing(stream) as offers:
                async for offer in offers:
                    said = False
                    if self._is_of_no_use(parent, offer):
                        return True
        finally:
            if self._wants.get(parent.peer_id) is wants:
                del self._wants[parent.peer_id]
        return said

    def _is_of_no_use(self, parent: Candidate, said: Copy | Exchanged | Offering) -> bool:
        """Take what a parent says; whether it shows that nothing of it can be used."""
        now = asyncio.get_running_loop().time()
        self.pace.host_heard(parent.peer_id, now)
        match said:
            case Copy():
                if not self._may_give(parent, said):
                    why = "it holds another version of the content"
                    logger.info("parent left out", parent=parent.peer_id, why=why)
                    return True
            case Exchanged(total, length):
                record = self._holding.record
                # How long a piece may be does not matter where there is but one.
                if total != record.content_length or (
                    length != record.piece_length and min(length, record.piece_length or 0) < total
                ):
                    why = f"it cuts the content otherwise: {total} bytes into pieces of {length}"
                    logger.warning("parent left out", parent=parent.peer_id, why=why)
                    return True
                self._places[parent.peer_id] = said.ip, said.port
            case Offering(pieces, at):  # pragma: no branch  there is no other
                news = self._wants[parent.peer_id].take_offers(pieces)
                if news:
                    self.pace.heard(parent.peer_id, now)
                self._note_offers(parent.peer_id, news, at)
        return False

    def _note_offers(self, name: str, pieces: int, at: float | None) -> None:
        ip, port = self._places[name]
        here = self._holding.pieces
        for first, count in runs_of(pieces):
            for number in range(first, first + count):
                if number not in here:
                    piece = self._holding.piece(number)
                    offer = Offer(number, piece.offset, piece.length, ip, port, at)
                    self.offers[name, number] = offer
                    self._listener.on(Offered(name, number))

    def tell_begun(self, number: int, parent: str | None) -> None:
        """A piece is fetched now: those who exchange need not offer it, but for *parent*."""
        self.under_way.add(number)
        for name, wants in self._wants.items():
            if name != parent:
                wants.has(number)

    def tell_lacking(self, number: int, but: str | None = None) -> None:
        """A fetch has failed, or brings nothing: whoever has the piece may offer it, but *but*."""
        self.under_way.discard(number)
        for name, wants in self._wants.items():
            if name != but:
                wants.lacks(number)

    def far(self, candidates: Iterable[Candidate]) -> frozenset[str]:
        """Those of the *candidates* that are in another data centre than this host, by name."""
        return frozenset(each.peer_id for each in candidates if self._is_far(each))

    def _is_far(self, parent: Candidate) -> bool:
        own = (self._node.config.host.idc or "").lower()
        return bool(own) and parent.host.idc.lower() != own

    def tell_spared(self, pieces: int, lacking: int) -> None:
        """Who is far need not offer these pieces now; what is *lacking* of the others, it may."""
        for name, wants in self._wants.items():
            if self._is_far(self.candidates[name]):
                wants.spare(pieces, lacking)

    def tell_room(self) -> None:
        """Those who exchange shall know how much would be fetched at once now."""
        room = self._listener.room
        for wants in self._wants.values():
            wants.leisure = self._listener.leisure
            wants.has_room(room)

    async def _collect(self, parent: Candidate, numbers: frozenset[int]) -> bool:
        """Report offers; whether the parent is no use at all."""
        gap = self._node.config.download.collected_piece_timeout
        waiting = set(numbers)
        stream = cast(
            "Any",
            self._means.parents.offers(
                parent, self._holding.kind, self._holding.id, numbers, gap=gap
            ),
        )
        async with aclosing(stream) as offers:
            async for offer in offers:
                self.pace.heard(parent.peer_id, asyncio.get_running_loop().time())
                if isinstance(offer, Copy):
                    if not self._may_give(parent, offer):
                        why = "it holds another version of the content"
                        logger.info("parent left out", parent=parent.peer_id, why=why)
                        return True
                    continue
                if offer.number not in waiting:  # without end, it would keep us waiting so
                    raise RemoteProtocolError(f"offered unasked, or twice: {offer}")
                waiting.discard(offer.number)
                piece = self._holding.piece(offer.number)
                if (offer.offset, offer.length) != (piece.offset, piece.length):
                    why = f"it cuts the content otherwise: {offer}, not {piece}"
                    logger.warning("parent left out", parent=parent.peer_id, why=why)
                    return True
                self.offers[parent.peer_id, offer.number] = offer
                self._listener.on(Offered(parent.peer_id, offer.number))
        return False

    def _may_give(self, parent: Candidate, copy: Copy) -> bool:
        """Whether what a parent has may be joined with what we have.

        The first to name a version decides which it is, until the origin or most hosts say
        otherwise. A daemon that is none of ours names none, and is taken at its task's id; but
        never where the origin names none, either.
        """
        if copy.version in self._avoid:
            return False
        holding = self._holding
        if not copy.version:
            holding.learn_version("")
            return not holding.record.version.startswith(READING)
        if self.is_same_version(copy.version) or copy.digests in self._digests - {""}:
            self._same.add(parent.host.id)
            self._digests.add(copy.digests)
            return True
        self.others[parent.host.id] = copy.version
        votes = sum(1 for version in self.others.values() if version == copy.version)
        if votes > len(self._same) and not self.certain:
            self._listener.on_outvoted()
        return False

    def may_be(self, version: str) -> bool:
        """Whether what is here has *version*, which somebody has read at the origin, or now has."""
        if version in self._avoid or not self.is_same_version(version):
            return False
        self.certain = True
        return True

    def is_same_version(self, version: str) -> bool:
        """Whether what has *version* may be joined with what is here, which may have none yet."""
        holding = self._holding
        if version.startswith(READING) and holding.pieces and not holding.record.version:
            return False
        holding.learn_version(version)
        return version == holding.record.version
