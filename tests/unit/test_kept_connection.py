"""daemon/serving/kept_connection.py and whole.py: many requests over one hand-off connection."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import mmap
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from pantala.core.places import Places
from pantala.daemon.app import Daemon
from pantala.daemon.serving import handoff_client, handoff_server, kept_connection
from pantala.daemon.serving.kept_connection import MAX_OPEN
from pantala.daemon.serving.whole import Whole
from pantala.model.task import Kind
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.kept_client import Event, KeptClient, framed
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
SMALL = Pattern(16384, 1).read()
LARGE = 5 * MIB


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack) -> Daemon:
    """Without a scheduler; every lease has ended in the end, and nobody is left."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))

    async def check() -> None:
        await until(lambda: not daemon.handoff.busy and not daemon.engine.busy)
        await until(lambda: daemon.stores[Kind.CACHE].ledger.leased == 0)

    stack.push_async_callback(check)
    return daemon


@pytest.fixture
def small(origin: Origin) -> str:
    """Of 16 KiB."""
    origin.put("/small", SMALL)
    return origin.url("/small")


@pytest.fixture
def large(origin: Origin) -> str:
    """Of two pieces, in a segment."""
    origin.put("/large", Pattern(LARGE))
    return origin.url("/large")


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


def connected(daemon: Daemon) -> KeptClient:
    """A program that has nothing asked yet."""
    return KeptClient(daemon.config.download.server.handoff_path)


async def events(client: KeptClient) -> list[dict[str, Any]]:
    """All until the last of a request."""
    return await asyncio.to_thread(client.events)


async def event(client: KeptClient) -> Event:
    """The next one."""
    return await asyncio.to_thread(client.event)


async def hung_up(client: KeptClient) -> None:
    """Wait until the daemon has closed."""
    with suppress(ConnectionError):
        while await event(client):
            pass


async def ask_often(client: KeptClient, times: int, url: str) -> list[int]:
    """Ask for the same, and do not wait for it; the ids."""
    return await asyncio.to_thread(lambda: [client.ask(url=url) for _ in range(times)])


def names(found: list[dict[str, Any]]) -> list[str]:
    """Of events."""
    return [each["event"] for each in found]


# -- one after another ---------------------------------------------------------------------------


async def test_one_after_another(daemon: Daemon, small: str, large: str) -> None:
    """Whatever the one before was; each event bears its request's id."""
    with connected(daemon) as client:
        client.ask(url=small)
        assert names(await events(client)) == ["started", "pieces", "content", "done"]
        client.ask(url=small)
        told, content = await event(client)
        assert told == {
            "id": 2,
            "event": "whole",
            "task_id": told["task_id"],
            "inline": len(SMALL),
        }
        assert content == SMALL
        client.ask("upload")
        (refused,) = await events(client)
        assert (refused["id"], refused["code"]) == (3, "INVALID_ARGUMENT")
        client.ask("info")
        (info,) = await events(client)
        assert (info["id"], info["pid"], info["open_requests"]) == (4, os.getpid(), MAX_OPEN)
        client.ask(url=large)
        found = await events(client)
        assert [names(found)[n] for n in (0, 1, -1)] == ["started", "pieces", "done"]
        assert {each["id"] for each in found} == {5}
        with mmap.mmap(client.fds[0], 0, prot=mmap.PROT_READ) as seen:
            assert seen[:] == Pattern(LARGE).read()
        assert await asyncio.to_thread(client.get, small) == SMALL


@pytest.mark.parametrize(
    "wishes",
    [
        {"tag": "t"},
        {"timeout": 5, "again": True},
        {"filtered_query_params": ["x"]},
        {"request_header": {"A": "b"}},
    ],
    ids=str,
)
async def test_what_is_whole_at_once(daemon: Daemon, small: str, wishes: dict[str, Any]) -> None:
    """It is asked for in many ways."""
    with connected(daemon) as client:
        client.ask(url=small, **wishes)
        assert (await events(client))[-1]["event"] == "done"
        for _ in range(2):
            client.ask(url=small, **wishes)
            assert (await event(client)).content == SMALL
        client.send({"op": "download", "url": small, **wishes, "id": 9})  # the id comes last
        found = await events(client)
        assert found[-1] == {"event": "done", "id": 9}


@pytest.mark.parametrize(
    "wishes",
    [{"digest": "crc32:1"}, {"range": "0-9"}, {"request_header": {"Range": "bytes=0-9"}}],
    ids=str,
)
async def test_what_is_not(daemon: Daemon, small: str, wishes: dict[str, Any]) -> None:
    """There is more to it, though all of the content is here."""
    with connected(daemon) as client:
        client.ask(url=small)
        await events(client)
        for _ in range(2):
            client.ask(url=small, **wishes)
            assert (await events(client))[0]["event"] == "started"


async def test_a_request_that_looks_like_one_that_made_sense(daemon: Daemon, small: str) -> None:
    """It is taken at its word: what Python takes for the same is not the same in JSON."""
    with connected(daemon) as client:
        for again, code in ((True, None), (1, "INVALID_ARGUMENT"), (True, None)):
            client.ask(url=small, again=again)
            assert (await events(client))[-1].get("code") == code


async def test_content_that_has_gone(daemon: Daemon, origin: Origin, small: str) -> None:
    """What is remembered of a request is of no use then."""
    with connected(daemon) as client:
        client.ask(url=small)
        await events(client)
        assert await asyncio.to_thread(client.get, small) == SMALL
        (holding,) = daemon.stores[Kind.CACHE]
        lease = holding.lease()  # somebody still reads it
        daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
        origin.put("/small", b"another")
        client.ask(url=small)
        assert (await events(client))[0]["content_length"] == len(b"another")
        assert await asyncio.to_thread(client.get, small) == b"another"
        lease.end()


async def test_it_counts_as_used(daemon: Daemon, origin: Origin, small: str) -> None:
    """It is not the next to go, and the metrics know."""
    origin.put("/other", SMALL)
    with connected(daemon) as client:
        for url in (small, origin.url("/other")):
            client.ask(url=url)
            await events(client)
        for _ in range(3):
            await asyncio.to_thread(client.get, small)
    store = daemon.stores[Kind.CACHE]
    assert store.free(1) == 1
    assert [holding.record.url for holding in store] == [small]
    text = daemon.metrics.render().decode()
    assert "dragonfly_client_cache_hits_total 3.0" in text
    line = 'download_task_total{app="",priority="0",tag="",type="3"} '
    assert f"dragonfly_client_{line}5.0" in text


async def test_what_is_remembered_has_a_limit(daemon: Daemon, small: str) -> None:
    """However many ways there are to ask; what is too long is answered all the same."""
    await inside.get(daemon, small)
    whole = Whole(daemon.node, daemon.engine, memory=10_000)
    for n in range(100):
        wishes = {"op": "download", "url": small, "request_header": {"A": str(n)}}
        assert whole.find(json.dumps(wishes).encode()[1:]) is not None
    assert len(whole._known) < 20
    wishes["request_header"] = {"A": "x" * 5000}
    text = json.dumps(wishes).encode()[1:]
    assert whole.find(text) is not None
    assert text not in whole._known


# -- leases --------------------------------------------------------------------------------------


async def test_a_descriptor_until_it_is_released(daemon: Daemon, large: str) -> None:
    """Its content is in use until then, whatever else is asked for."""
    store = daemon.stores[Kind.CACHE]
    with connected(daemon) as client:
        first = client.ask(url=large)
        await events(client)
        (holding,) = store
        os.close(client.fds.pop())
        store.recall()
        client.ask("info")
        await events(client)
        assert store.ledger.leased == LARGE
        for _ in range(2):  # a second time does no harm
            client.send({"id": first, "op": "release"})
            assert (await event(client)).told == {"id": first, "event": "released"}
            assert (holding.lease_count, store.ledger.leased) == (0, 0)


async def test_a_large_one_that_is_whole(daemon: Daemon, large: str) -> None:
    """Its descriptor comes at once, and its lease lasts as long as any."""
    await inside.get(daemon, large)
    store = daemon.stores[Kind.CACHE]
    with connected(daemon) as client:
        for _ in range(2):
            number = client.ask(url=large)
            (told,) = await events(client)
            task = told.pop("task_id")
            wanted = {"id": number, "event": "whole", "segment": True, "content_length": LARGE}
            assert (told, len(task)) == (wanted, 64)
            with mmap.mmap(client.fds[0], 0, prot=mmap.PROT_READ) as seen:
                assert seen[:] == Pattern(LARGE).read()
            os.close(client.fds.pop())
            store.recall()
            assert store.ledger.leased == LARGE
            client.send({"id": number, "op": "release"})
            assert (await event(client)).told == {"id": number, "event": "released"}
            assert store.ledger.leased == 0
    assert "dragonfly_client_cache_hits_total 2.0" in daemon.metrics.render().decode()


async def test_closing_ends_all(daemon: Daemon, large: str) -> None:
    """As with one request a connection; the fixture looks."""
    with connected(daemon) as client:
        for _ in range(5):
            client.ask(url=large)
            await events(client)
        (holding,) = daemon.stores[Kind.CACHE]
        assert holding.account.leases == 6  # and that of what was handed off
    await until(lambda: not holding.account.leases)


async def test_small_ones_leave_nothing_behind(daemon: Daemon, small: str, large: str) -> None:
    """Nor do large ones that are released: no lease, no task, no descriptor."""
    for url in (small, large):
        await inside.get(daemon, url)
    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())  # noqa: PTH208  counts

        def ask() -> None:
            assert sum(map(len, client.get_all([small] * 2000, 50))) == 2000 * len(SMALL)
            for _ in range(100):
                number = client.ask(url=large)
                assert client.events()[-1]["event"] == "whole"
                os.close(client.fds.pop())
                client.send({"id": number, "op": "release"})
                assert client.event().told["event"] == "released"

        await asyncio.to_thread(ask)
        assert daemon.stores[Kind.CACHE].ledger.leased == 0
        await until(lambda: len(asyncio.all_tasks()) <= before[1])
        assert len(os.listdir("/proc/self/fd")) <= before[0]  # noqa: PTH208  pathlib would open one more


async def test_too_many_at_once(daemon: Daemon, origin: Origin, small: str) -> None:
    """More are refused one by one, and what is open goes on."""
    origin.put("/slow", SMALL)
    origin.fault("/slow", Fault(delay=60))
    await inside.get(daemon, small)
    with connected(daemon) as client:
        numbers = await ask_often(client, 2 * MAX_OPEN + 3, origin.url("/slow"))
        for number in numbers[-3:]:
            told = (await event(client)).told
            assert (told["id"], told["code"]) == (number, "RESOURCE_EXHAUSTED")
        assert await asyncio.to_thread(client.get, small) == SMALL  # which opens nothing
        origin.release()
        found: dict[int, str] = {}
        while len(found) < 2 * MAX_OPEN:
            told = (await event(client)).told
            if told["event"] in {"done", "whole"}:
                found[told["id"]] = told["event"]
        assert sorted(found) == numbers[:-3]


async def test_too_many_of_one_user(daemon: Daemon, small: str, large: str) -> None:
    """On all connections together: something is left for others, and what is released is free."""
    for url in (small, large):
        await inside.get(daemon, url)
    daemon.handoff._most_open = 10
    with connected(daemon) as one, connected(daemon) as other:
        for client in (one, other) * 4:
            client.ask(url=large)
            assert (await event(client)).told["event"] == "whole"
        other.ask(url=large)
        assert (await event(other)).told["code"] == "RESOURCE_EXHAUSTED"
        assert await asyncio.to_thread(other.get, small) == SMALL
        one.send({"id": 1, "op": "release"})
        assert (await event(one)).told["event"] == "released"
        other.ask(url=large)
        assert (await event(other)).told["event"] == "whole"


async def test_many_short_answers(daemon: Daemon) -> None:
    """More than the kernel takes in one call."""
    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        release = framed({"id": 1, "op": "release"})
        await asyncio.to_thread(client.sock.sendall, release * 5000)
        for _ in range(5000):
            assert (await event(client)).told["event"] == "released"


async def test_several_at_once(daemon: Daemon, origin: Origin, small: str, large: str) -> None:
    """What is at hand does not wait for what is not; frames come whole, in any order."""
    await inside.get(daemon, small)
    origin.fault("/large", Fault(stall_after=1000))
    with connected(daemon) as client:
        client.ask(url=large)
        assert (await event(client)).told["event"] == "started"
        for _ in range(50):
            client.ask(url=small)
            told, content = await event(client)
            while told["id"] == 1:
                told, content = await event(client)
            assert content == SMALL
        origin.release()
        assert (await events(client))[-1] == {"id": 1, "event": "done"}


async def test_withdrawing(daemon: Daemon, origin: Origin, small: str) -> None:
    """What is under way is let go of, in whatever state it is; what comes after is whole."""
    origin.put("/cold", SMALL)
    origin.fault("/cold", Fault(delay=60))
    origin.put("/part", Pattern(12 * MIB))
    await inside.get(daemon, small)
    with connected(daemon) as client:
        waits = client.ask(url=origin.url("/cold"))
        client.send({"id": waits, "op": "release"})
        assert (await event(client)).told == {"id": waits, "event": "released"}
        # A part of it comes in frames, as the rest is not wanted here.
        sent = client.ask(url=origin.url("/part"), range=f"0-{8 * MIB - 1}")
        while (await event(client)).told["event"] != "content":
            pass
        client.send({"id": sent, "op": "release"})
        said = [e for e in await events(client) if e["event"] != "content"]
        assert said == [{"id": sent, "event": "released"}]
        assert await asyncio.to_thread(client.get, small) == SMALL
    origin.release()


async def test_descriptors_that_wait(daemon: Daemon, origin: Origin, large: str) -> None:
    """There are none: what waits to be sent takes one in the moment in which it is."""
    origin.put("/mid", Pattern(MIB))
    for url in (large, origin.url("/mid")):
        await inside.get(daemon, url)
    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  counts
        count = MAX_OPEN - 1
        wanted = [*[large] * count, origin.url("/mid")]  # which is more than a socket takes
        asked = [{"id": n, "op": "download", "url": u} for n, u in enumerate(wanted, 2)]
        client.sock.sendall(b"".join(map(framed, asked)))
        await until(lambda: daemon.handoff._open.total() == count)
        await until(lambda: any(len(k._turn._waiters or ()) >= count for k in _kept()))
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208  pathlib would open one more
        told = [(await event(client)).told for _ in wanted]
        assert {each["event"] for each in told} == {"whole"}
        assert len(client.fds) == count
        for fd in client.fds:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as seen:
                assert seen[:] == Pattern(LARGE).read()


async def test_too_many_descriptors_on_their_way(
    daemon: Daemon, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all programs together, so it may be nobody's fault here: the content comes instead."""
    await inside.get(daemon, large)

    def send_fds(*_: object) -> int:
        raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    monkeypatch.setattr(socket, "send_fds", send_fds)
    with connected(daemon) as client:
        client.ask(url=large)
        found = await events(client)
        assert (found[0]["segment"], found[-1]["event"]) == (False, "done")
        assert sum(each.get("inline", 0) for each in found) == LARGE


# -- attacks -------------------------------------------------------------------------------------


def _with(**fields: object) -> bytes:
    return framed({"op": "info", **fields})


@pytest.mark.parametrize(
    ("junk", "words"),
    [
        pytest.param(b"\0\0\0\0", "a frame of 0 bytes", id="an empty frame"),
        pytest.param(b"\xff\xff\xff\xff{", "a frame of 4294967295 bytes", id="a frame of 4 GiB"),
        pytest.param(b"\0\0\0\2[]", "want a JSON object, not list", id="no object"),
        pytest.param(b'\0\0\0\x09{"id":7,"', "not JSON", id="half an object"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "a frame of 119", id="another protocol"),
        pytest.param(framed({"op": "info"}), "'id' must be a whole number", id="no id"),
        pytest.param(_with(id=-1), "'id' must be a whole number", id="negative"),
        pytest.param(_with(id=2**53), "'id' must be a whole number", id="too large"),
        pytest.param(_with(id=True), "'id' must be a whole number", id="true"),
        pytest.param(_with(id="2"), "'id' must be a whole number", id="a text"),
        pytest.param(_with(id=1), "'id' 1 is not above the one before, 1", id="the same"),
        pytest.param(_with(id=0), "'id' 0 is not above the one before, 1", id="one before"),
        pytest.param(_with(id=1, op="release", x=1), "nothing else", id="a release of more"),
    ],
)
async def test_garbage_between_requests(daemon: Daemon, junk: bytes, words: str) -> None:
    """Whose answer it would be is not known: it is refused in words, and hung up on."""
    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        client.sock.sendall(junk)
        told = (await event(client)).told
        assert (told["code"], "id" in told) == ("INVALID_ARGUMENT", False)
        assert words in told["message"]
        await hung_up(client)


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param(b'"op":"info","x":NaN}', None, id="what JSON does not have"),
        pytest.param(
            b'"op":"download","x":[%b]}' % b",".join([b"1E9"] * 200_000),
            "INVALID_ARGUMENT",
            id="numbers that are longer in other words",
        ),
    ],
)
async def test_the_first_and_others_are_alike(
    daemon: Daemon, rest: bytes, code: str | None
) -> None:
    """Of all it counts how it was written."""
    with connected(daemon) as client:
        for number in (1, 2):
            text = b'{"id":%d,%b' % (number, rest)
            await asyncio.to_thread(client.sock.sendall, len(text).to_bytes(4, "big") + text)
            told = (await event(client)).told
            assert (told["id"], told.get("code")) == (number, code)


@pytest.mark.parametrize("number", [-1, 2**53, 1.5, "1", None, [1]], ids=repr)
async def test_the_first_has_no_good_id(daemon: Daemon, number: object) -> None:
    """It is refused in words, as any other."""
    with connected(daemon) as client:
        client.send({"id": number, "op": "info"})
        told = (await event(client)).told
        assert (told["code"], "id" in told) == ("INVALID_ARGUMENT", False)
        assert "'id' must be a whole number" in told["message"]
        await hung_up(client)


@pytest.mark.parametrize(
    "wishes",
    [
        {"op": "\x80" * 300_000},
        {"op": "download", "\x80" * 300_000: 1},
        {"op": "list", "kind": "\x80" * 300_000},
        {"op": "download", "url": "http://x/", "digest": "\x80" * 300_000},
    ],
    ids=["op", "key", "kind", "digest"],
)
async def test_what_is_wrong_is_long(daemon: Daemon, wishes: dict[str, Any]) -> None:
    """As long as a frame may be, and longer where it is written so that it can be read."""
    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        text = json.dumps({"id": 2, **wishes}, ensure_ascii=False).encode()
        await asyncio.to_thread(client.sock.sendall, len(text).to_bytes(4, "big") + text)
        told = (await event(client)).told
        assert (told["id"], told["code"]) == (2, "INVALID_ARGUMENT")
        assert len(told["message"]) <= 4096
        client.asked = 2
        client.ask("info")
        assert names(await events(client)) == ["info"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), TimeoutError(), ConnectionResetError()], ids=repr
)
async def test_the_system_fails_a_request(
    daemon: Daemon, small: str, large: str, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """That is not its client's end: it is told, and what else is open goes on."""

    def fails(*_: object) -> None:
        raise error

    with connected(daemon) as client:
        client.ask(url=large)
        await events(client)
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(daemon.engine, "open", fails)
            client.ask(url=small)
            told = (await event(client)).told
        assert (told["id"], told["code"]) == (2, "INTERNAL")
        (line,) = (each for each in logs if each["log_level"] == "error")
        assert line["exc_info"]
        client.send({"id": 1, "op": "release"})
        assert (await event(client)).told == {"id": 1, "event": "released"}


async def test_what_cannot_be_told(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in how an error is told, too, leaves nobody waiting."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(handoff_server, "failure", broken)
    with connected(daemon) as client:
        client.ask("upload")
        await hung_up(client)


async def test_the_same_id_for_what_is_at_hand(daemon: Daemon, small: str) -> None:
    """It is looked at there, too."""
    await inside.get(daemon, small)
    with connected(daemon) as client:
        await asyncio.to_thread(client.get, small)
        client.send({"id": 1, "op": "download", "url": small})
        assert "not above" in (await event(client)).told["message"]
        await hung_up(client)


async def test_half_a_frame(daemon: Daemon, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some seconds to become whole; between frames there is any time."""
    monkeypatch.setattr(kept_connection, "REQUEST_LIMIT", 0.2)
    await inside.get(daemon, small)
    with connected(daemon) as client, connected(daemon) as idle:
        await asyncio.to_thread(idle.get, small)
        for _ in range(3):
            client.ask(url=small)
            await event(client)
            client.sock.sendall(framed({"id": 0})[:5])
            told = (await event(client)).told
            assert (told["code"], told["message"]) == (
                "DEADLINE_EXCEEDED",
                "no request within 0.2 s",
            )
            await hung_up(client)
            client.close()
            client.__init__(daemon.config.download.server.handoff_path)  # type: ignore[misc]  # the next one
        assert await asyncio.to_thread(idle.get, small) == SMALL


async def test_a_frame_in_bits(daemon: Daemon, small: str) -> None:
    """It is as good as any."""
    await inside.get(daemon, small)
    with connected(daemon) as client:
        for number in (1, 2):
            for byte in framed({"id": number, "op": "download", "url": small}):
                client.sock.sendall(bytes([byte]))
                await asyncio.sleep(0)
            assert (await event(client)).content == SMALL


async def test_a_client_that_does_not_read(daemon: Daemon, small: str) -> None:
    """It is read from no more, so nothing piles up here; others are served, and it may go on."""
    await inside.get(daemon, small)
    with connected(daemon) as deaf, connected(daemon) as other:
        deaf.sock.settimeout(1)
        with suppress(TimeoutError):
            await ask_often(deaf, 100_000, small)
        asked = deaf.asked
        assert 10 < asked < 1000
        assert await asyncio.to_thread(other.get, small) == SMALL
        (kept,) = [k for k in _kept() if k._is_stuck]
        assert len(kept._rest) < 64 * 1024 + 2 * len(SMALL)
        assert len(kept._decoder._buffer) < 64 * 1024
        deaf.sock.settimeout(20)
        for number in range(1, asked):
            told, content = await event(deaf)
            assert (told["id"], content) == (number, SMALL)


def _kept() -> list[kept_connection.KeptConnection]:
    """Those that there are."""
    return [o for o in gc.get_objects() if isinstance(o, kept_connection.KeptConnection)]


async def test_a_client_that_closes_midway(daemon: Daemon, small: str, large: str) -> None:
    """In the midst of what is being sent, and of its own frame; the fixture looks."""
    for url in (small, large):
        await inside.get(daemon, url)
    for cut in (3, 50):
        with connected(daemon) as client:
            # No more than a socket takes that nobody reads: it is writable to a quarter.
            await asyncio.gather(ask_often(client, 50, small), event(client))
            client.ask(url=large)
            client.sock.sendall(framed({"id": 1000, "op": "download", "url": small})[:cut])
            await event(client)
    await until(lambda: not daemon.handoff.busy)
    with connected(daemon) as client:
        assert await asyncio.to_thread(client.get, small) == SMALL


async def test_one_that_does_not_take_what_it_asked_for(
    daemon: Daemon, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a frame has had its time, the connection ends."""
    monkeypatch.setattr(kept_connection, "PAUSE_LIMIT", 1)
    origin.put("/part", Pattern(12 * MIB))
    with connected(daemon) as client:
        client.ask(url=origin.url("/part"), range=f"0-{8 * MIB - 1}")
        await until(lambda: daemon.handoff.busy == 1)
        await until(lambda: not daemon.handoff.busy)


async def stays(daemon: Daemon, seconds: float) -> None:
    """Nobody is hung up on for some time."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await until(lambda: not daemon.handoff.busy)


async def test_waiting_for_others_frames(
    daemon: Daemon, origin: Origin, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that pauses may; a request's own time ends nothing but that request."""
    monkeypatch.setattr(handoff_client, "ANSWER_LIMIT", 0.2)
    origin.put("/mid", Pattern(MIB))
    url = origin.url("/mid")
    await inside.get(daemon, url)
    with connected(daemon) as client:
        client.ask(url=url)
        await events(client)
        info = {"id": 2, "op": "info"}
        late = {"id": 3, "op": "download", "url": small, "timeout": 0.5}
        wholes = [{"id": n, "op": "download", "url": url} for n in (4, 5, 6)]
        client.sock.sendall(b"".join(map(framed, [info, late, *wholes])))
        await stays(daemon, 1.5)
        found: dict[int, str] = {}
        while len(found) < 5:
            told, content = await event(client)
            found[told["id"]] = told.get("code", told["event"])
            assert len(content) == told.get("inline", 0)
        whole = dict.fromkeys((4, 5, 6), "whole")
        assert found == {2: "info", 3: "DEADLINE_EXCEEDED", **whole}
        client.asked = 6
        client.ask("info")
        assert names(await events(client)) == ["info"]


async def test_several_streams_and_a_release(daemon: Daemon, origin: Origin) -> None:
    """What the client says is heard between any two frames, however many wait to be sent."""
    origin.put("/part", Pattern(36 * MIB))
    with connected(daemon) as client:
        for _ in range(3):
            client.ask(url=origin.url("/part"), range=f"0-{32 * MIB - 1}")
        ended: dict[int, str] = {}
        sizes = dict.fromkeys((1, 2, 3), 0)
        while len(ended) < 3:
            told, content = await event(client)
            number = told["id"]
            assert number not in ended
            if told["event"] == "content":
                assert told["offset"] == sizes[number]
                assert content == Pattern(36 * MIB).read(told["offset"], len(content))
                sizes[number] += len(content)
                if number == 2 and sizes[2] == 4 * MIB:
                    client.send({"id": 2, "op": "release"})
            elif told["event"] in {"done", "released"}:
                ended[number] = told["event"]
        assert ended == {1: "done", 2: "released", 3: "done"}
        assert next(iter(ended)) == 2
        assert sizes[1] == sizes[3] == 32 * MIB > 2 * sizes[2]


async def test_idle_ones_make_room(daemon: Daemon, small: str, large: str) -> None:
    """Those that hold something stay; of the others the one goes that asked last of all."""
    for url in (small, large):
        await inside.get(daemon, url)
    daemon.handoff._places = Places(10)
    with connected(daemon) as holds, connected(daemon) as old, connected(daemon) as new:
        holds.ask(url=large)
        await events(holds)
        for client in (new, old, new):
            await asyncio.to_thread(client.get, small)
        others = [connected(daemon) for _ in range(6)]
        for client in others:
            await asyncio.to_thread(client.get, small)
        await hung_up(old)
        holds.ask("info")
        await events(holds)
        await asyncio.to_thread(new.get, small)
        for client in others:
            client.close()


async def test_a_bug(daemon: Daemon, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is told, or at least hung up on; nobody else notices."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with connected(daemon) as client:
        client.ask("info")
        await events(client)
        with monkeypatch.context() as patch:
            patch.setattr(daemon.engine, "open", broken)
            client.ask(url=small)
            (told,) = await events(client)
            assert "internal error" in told["message"]
            patch.setattr(Whole, "find", broken)
            client.ask(url=small)
            await hung_up(client)
    with connected(daemon) as client:
        client.ask(url=small)
        assert (await events(client))[-1]["event"] == "done"


async def test_stopping(tmp_path: Path, origin: Origin, small: str, large: str) -> None:
    """Everybody is hung up on, whatever he does."""
    async with inside.daemon(tmp_path, "b") as daemon:
        for url in (small, large):
            await inside.get(daemon, url)
        origin.put("/slow", SMALL)
        origin.fault("/slow", Fault(delay=60))
        with connected(daemon) as deaf, connected(daemon) as client:
            client.ask(url=large)
            await events(client)
            client.ask(url=origin.url("/slow"))
            await ask_often(deaf, 50, small)
            await until(lambda: daemon.engine.busy > 1)
            origin.release()
            await daemon.handoff.stop()
            await hung_up(client)
