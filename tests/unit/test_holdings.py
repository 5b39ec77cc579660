"""rpc/holdings.py and scheduler/holdings.py: what a host holds, as a scheduler takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.core.sched.states import PeerState
from pantala.model.announce import Registration
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, holdings_pb2, holdings_pb2_grpc
from pantala.rpc.holdings import MOST_TOLD, held_message, registration_of
from pantala.scheduler import holdings
from pantala.testing import stage
from pantala.testing.announce import Swarm, swarm
from pantala.testing.stage import MIB


def task_id(number: int) -> str:
    """The id of a task."""
    return stage.task_id(str(number))


TEXT = st.none() | st.text(max_size=9)


@given(
    *(TEXT, TEXT),
    st.none() | st.builds(ByteRange, st.integers(0, 99), st.integers(1, 99)),
    st.integers(0, 2**40),
    st.sampled_from([Kind.CACHE, Kind.STANDARD]),
)
def test_what_is_held_on_the_wire(
    tag: str | None, application: str | None, part: ByteRange | None, length: int, kind: Kind
) -> None:
    """What is told is what is heard."""
    request = DownloadRequest(
        kind, "http://o/f", tag=tag, application=application, need_back_to_source=True, range=part
    )
    told = Registration("h", "t", "p", request, length, 4 * MIB, 7, 8, version="v")
    message = holdings_pb2.Held.FromString(held_message(told).SerializeToString())
    assert registration_of("h", kind, message) == told


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Swarm, Any]]:
    """A scheduler that knows a host, and its stub."""
    async with swarm() as s:
        await s.hosts("a")
        yield s, holdings_pb2_grpc.HoldingsStub(s.channel)


def held(number: int, **other: Any) -> holdings_pb2.Held:
    """A task of three pieces."""
    words: dict[str, Any] = {
        "type": common_pb2.CACHE,
        "task_id": task_id(number),
        "peer_id": f"peer-{number}",
        "url": f"http://origin/{number}",
        "content_length": 12 * MIB,
        "piece_length": 4 * MIB,
        "piece_count": 3,
    }
    return holdings_pb2.Held(**(words | other))


async def tell(stub: Any, *messages: holdings_pb2.TellRequest) -> list[Any]:
    """What is answered."""
    return [answer async for answer in stub.Tell(iter(messages))]


async def refused(stub: Any, message: holdings_pb2.TellRequest) -> grpc.aio.AioRpcError:
    """With what a stream ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tell(stub, message)
    return caught.value


def known(s: Swarm) -> dict[tuple[Kind, str], PeerState]:
    """Whom the scheduler may give as a parent, by its task."""
    return {
        (peer.task.kind, peer.task.id): peer.state
        for peer in s.scheduler._world.peers.values()
        if peer in peer.task.holders
    }


async def test_what_is_held_is_given_to_others(scene: tuple[Swarm, Any]) -> None:
    """As if each task had been told on a stream of its own; and no more when it is dropped."""
    s, stub = scene
    host = "a"
    part = held(2)
    part.range.start, part.range.length = 4 * MIB, 4 * MIB
    empty = held(3, content_length=0, piece_count=0)
    disk = held(4, type=common_pb2.STANDARD)
    first = holdings_pb2.TellRequest(host_id=host, held=[held(1), part, empty, disk])
    gone = holdings_pb2.Dropped(type=common_pb2.CACHE, task_id=task_id(1))
    second = holdings_pb2.TellRequest(host_id=host, dropped=[gone], held=[held(5)])
    assert [list(answer.refused) for answer in await tell(stub, first, second)] == [[], []]
    tasks = {(Kind.CACHE, task_id(n)) for n in (2, 3, 5)} | {(Kind.STANDARD, task_id(4))}
    assert known(s) == dict.fromkeys(tasks, PeerState.SUCCEEDED)
    peer = s.scheduler._world.peers[Kind.CACHE, "peer-2"]
    assert peer.range == ByteRange(4 * MIB, 4 * MIB)


async def test_one_that_makes_no_sense(scene: tuple[Swarm, Any]) -> None:
    """It keeps no other from being known, and what is wrong with it is told."""
    s, stub = scene
    wrong = [
        held(1, task_id="no id"),
        held(2, url=""),
        held(3, type=common_pb2.PERSISTENT_CACHE),
        held(4, type=9),
        held(5, piece_length=1),
        held(6, version="x" * 5000),
    ]
    message = holdings_pb2.TellRequest(host_id="a", held=[*wrong, held(7)])
    (answer,) = await tell(stub, message)
    told = {each.index: each.description for each in answer.refused}
    assert sorted(told) == list(range(6))
    assert "PERSISTENT_CACHE tasks are not told of here" in told[2]
    assert known(s) == {(Kind.CACHE, task_id(7)): PeerState.SUCCEEDED}


async def test_who_may_tell(scene: tuple[Swarm, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is known, and not too much at once."""
    s, stub = scene
    unknown = await refused(stub, holdings_pb2.TellRequest(host_id="nobody", held=[held(1)]))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND
    many = holdings_pb2.TellRequest(host_id="a", held=[held(n) for n in range(MOST_TOLD + 1)])
    error = await refused(stub, many)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"want {MOST_TOLD} at most" in (error.details() or "")
    monkeypatch.setattr(holdings, "_GAP", 0.01)
    call = stub.Tell()
    assert await call.read() is grpc.aio.EOF  # who says nothing is not kept
    assert known(s) == {}


async def test_a_host_that_is_forgotten_meanwhile(
    scene: tuple[Swarm, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears that it is unknown, and announces itself."""
    s, stub = scene
    host = s.scheduler._world.hosts["a"]
    hold = holdings.HoldingService._hold

    def forget(self: Any, *args: Any) -> None:
        hold(self, *args)
        if s.scheduler._world.hosts.get(host.id) is host:
            s.scheduler._world.remove_host(host)

    monkeypatch.setattr(holdings, "_TURN", 2)
    monkeypatch.setattr(holdings.HoldingService, "_hold", forget)
    message = holdings_pb2.TellRequest(host_id=host.id, held=[held(n) for n in range(3)])
    error = await refused(stub, message)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert known(s) == {}
