"""core/sched/world.py: anything in any order, and the books stay true."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pantala.core.sched.entities import OVER, Peer
from pantala.core.sched.expire import sweep_hosts, sweep_peers, sweep_tasks
from pantala.core.sched.rules import RULES, Limits
from pantala.errors import (
    DragonflyError,
    InvalidTransition,
    NoProvider,
    OriginError,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.testing.stage import MIB, Stage


class Life(RuleBasedStateMachine):
    """Anything in any order: refused events change nothing, and the books stay true."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(Limits(uploads=2, accusers=2, start=3.0, partners=2, below=2), seed=1)
        self.peers: list[Peer] = []

    hosts = st.sampled_from(["a", "b", "c", "d", "e", "f"])
    tasks = st.sampled_from(["t", "u"])
    picks = st.integers(0, 100)

    def pick(self, number: int) -> Peer:
        """One of the peers, living or not."""
        return self.peers[number % len(self.peers)]

    @rule(
        name=hosts,
        selfish=st.booleans(),
        seed=st.booleans(),
        interval=st.sampled_from([0, 2]),
        idc=st.sampled_from(["", "i", "I", "k"]),
        version=st.sampled_from(["pantala/0", "2.3.4"]),
    )
    def announce(
        self, name: str, interval: int, idc: str, version: str, *, selfish: bool, seed: bool
    ) -> None:
        """A host comes, or changes."""
        facts: dict[str, Any] = {"disable_shared": selfish, "type": int(seed)}
        self.stage.host(name, interval=interval, idc=idc, version=version, **facts)

    @rule(
        host=hosts,
        task=tasks,
        length=st.sampled_from([0, MIB, 10 * MIB, None]),
        part=st.sampled_from([None, ByteRange(0, 5), ByteRange(3, 9)]),
        need=st.booleans(),
        kind=st.sampled_from([kind for kind, rules in RULES.items() if rules.from_source]),
    )
    def register(
        self,
        host: str,
        task: str,
        length: int | None,
        part: ByteRange | None,
        kind: Kind,
        *,
        need: bool,
    ) -> None:
        """A peer comes."""
        try:
            peer = self.stage.register(
                host,
                task,
                kind=kind,
                content_length=length,
                range=part,
                need_back_to_source=need,
            )
        except (NoProvider, OriginError):
            return
        self.peers.append(peer)

    @precondition(lambda self: self.peers)
    @rule(number=picks)
    def decide(self, number: int) -> None:
        """A living peer that is not over asks what to do."""
        peer = self.pick(number)
        if self.stage.world.peers.get(peer.key) is peer and peer.state not in OVER:
            try:
                self.stage.decide(peer)
            except DragonflyError:
                return

    @precondition(lambda self: self.peers)
    @rule(number=picks, what=st.sampled_from(["start", "start_back_to_source", "finish", "fail"]))
    def tell(self, number: int, what: str) -> None:
        """A living peer tells what it does."""
        peer = self.pick(number)
        if self.stage.world.peers.get(peer.key) is peer:
            try:
                getattr(self.stage.world, what)(peer, self.stage.now)
            except InvalidTransition:
                return

    @precondition(lambda self: self.peers)
    @rule(number=picks, other=picks, good=st.booleans())
    def piece(self, number: int, other: int, *, good: bool) -> None:
        """A piece came, or did not."""
        peer, parent = self.pick(number), self.pick(other)
        if self.stage.world.peers.get(peer.key) is peer:
            if good:
                self.stage.world.piece(peer, 1.0, parent.id, self.stage.now)
            else:
                self.stage.world.piece_failed(peer, parent.id, self.stage.now)

    @precondition(lambda self: self.peers)
    @rule(number=picks)
    def hear(self, number: int) -> None:
        """A peer is told of its new partners."""
        peer = self.pick(number)
        news = self.stage.world.partners.take_news(peer)
        assert peer.partners.keys() >= set(news)
        assert not self.stage.world.partners.take_news(peer)

    @precondition(lambda self: self.peers)
    @rule(number=picks)
    def remove(self, number: int) -> None:
        """A peer is deleted."""
        peer = self.pick(number)
        if self.stage.world.peers.get(peer.key) is peer:
            self.stage.world.remove_peer(peer)

    @rule(name=hosts)
    def leave(self, name: str) -> None:
        """A host goes."""
        if name in self.stage.world.hosts:
            self.stage.world.remove_host(self.stage.world.hosts[name])

    @rule(by=st.sampled_from([0.5, 5.0, 4000.0]))
    def sweep(self, by: float) -> None:
        """Time passes."""
        self.stage.now += by
        sweep_peers(self.stage.world, self.stage.now)
        sweep_hosts(self.stage.world, self.stage.now)
        sweep_tasks(self.stage.world, self.stage.now)

    @invariant()
    def books(self) -> None:
        """All collections are what they say."""
        self.stage.check()


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
