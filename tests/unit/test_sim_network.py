"""Flows get what is fair, against cases worked out by hand and one algorithm against the other."""

from __future__ import annotations

from random import Random

import pytest

from pantala.sim.clock import Clock
from pantala.sim.network import Flow, Link, Network, connected, max_min

EITHER = pytest.mark.parametrize("exact", [True, False])


class Net:
    """A network whose flows note when they are through."""

    def __init__(self, *, exact: bool = True) -> None:
        self.clock = Clock()
        self.network = Network(self.clock, exact=exact)
        self.done: dict[str, float] = {}

    def start(self, name: str, size: float, *links: Link) -> Flow:
        """A flow of that name."""
        return self.network.start(links, size, self._note, name)

    def _note(self, name: str) -> None:
        self.done[name] = self.clock.now

    def until(self, time: float) -> None:
        """Let all happen that happens until then."""
        self.clock.at(time, lambda: None)
        while self.clock.now < time:
            self.clock.step()

    def run(self) -> dict[str, float]:
        """Let everything happen; when each flow was through."""
        while len(self.clock):
            self.clock.step()
        return self.done


@EITHER
def test_a_flow_has_the_rate_of_its_slowest_link(*, exact: bool) -> None:
    """Alone on both."""
    net = Net(exact=exact)
    net.start("a", 100, Link("up", 50), Link("down", 20))

    assert net.run() == {"a": pytest.approx(5)}


@EITHER
def test_what_one_leaves_is_for_the_others(*, exact: bool) -> None:
    """60 to share; one can take 10 only, so the other has 50."""
    net = Net(exact=exact)
    up = Link("up", 60)
    slow = net.start("slow", 100, up, Link("slow down", 10))
    fast = net.start("fast", 100, up, Link("fast down", 100))
    net.until(0.1)

    assert [slow.rate, fast.rate] == pytest.approx([10, 50])
    assert fast.received(1.0) == 50
    assert net.run() == {"slow": pytest.approx(10), "fast": pytest.approx(2)}


def test_three_on_two_links() -> None:
    """The textbook's: A over both, B over the first (10), C over the second (30)."""
    net = Net()
    first, second = Link("first", 10), Link("second", 30)
    flows = [
        net.start("a", 1e3, first, second),
        net.start("b", 1e3, first),
        net.start("c", 1e3, second),
    ]
    net.until(0.1)

    assert [flow.rate for flow in flows] == pytest.approx([5, 5, 25])


@EITHER
def test_rates_change_when_flows_come_and_go(*, exact: bool) -> None:
    """10 a second: a alone for 1 s, both for 2 s, then a alone again."""
    net = Net(exact=exact)
    up, down = Link("up", 10), Link("down", 100)
    net.start("a", 40, up, down)
    net.until(1)
    net.start("b", 10, up, down)

    assert net.run() == {"b": pytest.approx(3), "a": pytest.approx(5)}
    assert up.carried == pytest.approx(50, abs=1)
    assert up.load == 0


@EITHER
def test_who_is_given_up_makes_room(*, exact: bool) -> None:
    """And nobody is called for it."""
    net = Net(exact=exact)
    up = Link("up", 10)
    net.start("a", 20, up, Link("one", 100))
    gone = net.start("gone", 1000, up, Link("other", 100))
    net.until(2)
    net.network.cancel(gone)
    net.network.cancel(gone)

    assert net.run() == {"a": pytest.approx(3)}
    assert gone.over
    assert up.carried == pytest.approx(30, abs=1)


def test_flows_that_share_nothing_do_not_hang_together() -> None:
    """So a change concerns those alone that it can concern."""
    net = Net()
    one, two = Link("one", 1), Link("two", 1)
    flow = net.start("a", 1, one)
    net.start("b", 1, two)

    assert list(connected([one])) == [flow]


@pytest.mark.parametrize("seed", range(5))
def test_near_is_near(seed: int) -> None:
    """A random swarm that has settled: no link has too much, and nobody far less than is fair."""
    chance = Random(seed)
    net = Net(exact=False)
    ups = [Link(f"up {i}", chance.choice([50, 100, 200])) for i in range(20)]
    downs = [Link(f"down {i}", chance.choice([50, 100, 200])) for i in range(20)]
    flows = []
    for number in range(120):
        flows.append(net.start(str(number), 1e9, chance.choice(ups), chance.choice(downs)))
        net.until(net.clock.now + 1)
    fair = max_min(flows)

    for link in (*ups, *downs):
        assert link.load <= link.rate * 1.1
    total = sum(flow.rate for flow in flows)
    assert total == pytest.approx(sum(fair.values()), rel=0.06)
    assert all(flow.rate >= 0.7 * fair[flow] for flow in flows)
