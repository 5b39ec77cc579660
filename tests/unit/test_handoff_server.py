"""daemon/serving/handoff_server.py: a whole daemon, and clients that speak docs/handoff.md."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from pantala.core.places import Places
from pantala.daemon.app import Daemon
from pantala.daemon.serving import caller, handoff_client
from pantala.daemon.serving.handoff_request import parse_download
from pantala.errors import FeatureOff, InvalidRequest
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.segments import Segment
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
SIZE = 10 * MIB
WHOLE = Pattern(SIZE).read()


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack) -> Daemon:
    """Without a scheduler; every lease has ended in the end."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))

    async def check() -> None:
        await until(lambda: not daemon.handoff.busy and not daemon.engine.busy)
        # Descriptors are back a moment after the connection has ended.
        await until(lambda: daemon.stores[Kind.CACHE].ledger.leased == 0)

    stack.push_async_callback(check)
    return daemon


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a file of three pieces."""
    origin.put("/f", Pattern(SIZE))
    return origin.url("/f")


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


class Client:
    """A program on this machine; it waits in threads, so that the daemon can go on."""

    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(daemon.config.download.server.handoff_path))
        self.fds: list[int] = []
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        for fd in self.fds:
            os.close(fd)

    def send(self, message: object) -> None:
        """A request, or what claims to be one."""
        text = json.dumps(message).encode()
        self.sock.sendall(struct.pack("!I", len(text)) + text)

    async def event(self) -> dict[str, Any]:
        """The next one."""
        (size,) = struct.unpack("!I", await asyncio.to_thread(self._read, 4))
        event: dict[str, Any] = json.loads(await asyncio.to_thread(self._read, size))
        return event

    async def content(self, size: int) -> bytes:
        """What follows an event."""
        return await asyncio.to_thread(self._read, size)

    async def end(self) -> bytes:
        """What comes until the daemon closes."""
        with contextlib.suppress(ConnectionResetError):  # it had not read everything
            self._data += await asyncio.to_thread(self.sock.recv, 1000)
        return self._data

    def _read(self, size: int) -> bytes:
        while len(self._data) < size:
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            assert data, "the daemon closed"
            self.fds += fds
            self._data += data
        found, self._data = self._data[:size], self._data[size:]
        return found


async def events(client: Client) -> list[dict[str, Any]]:
    """All until the last."""
    found = [await client.event()]
    while found[-1]["event"] not in ("done", "error"):
        found.append(await client.event())
    return found


# -- requests ------------------------------------------------------------------------------------


def test_a_request_with_everything() -> None:
    """Every key of docs/handoff.md."""
    assert parse_download(
        {
            "kind": "CACHE",
            "url": "http://o/f",
            "digest": "crc32:1",
            "range": "5-9",
            "tag": "t",
            "application": "a",
            "priority": 6,
            "filtered_query_params": ["x", "y"],
            "request_header": {"A": "b", "RANGE": "bytes=0-1"},
            "piece_length": 4 * MIB,
            "timeout": 1.5,
            "disable_back_to_source": True,
            "prefetch": True,
            "content_for_calculating_task_id": "c",
            "again": True,
            "refresh": True,
        }
    ) == (
        DownloadRequest(
            kind=Kind.CACHE,
            url="http://o/f",
            request_header={"A": "b", "Range": "bytes=5-9"},
            tag="t",
            application="a",
            priority=6,
            filtered_query_params=("x", "y"),
            piece_length=4 * MIB,
            disable_back_to_source=True,
            prefetch=True,
            content_for_calculating_task_id="c",
        ),
        Delivery(digest="crc32:1", timeout=1.5, again=True, early=True, refresh=True),
    )


def test_absent_and_null_mean_the_same() -> None:
    """Only the URL is required."""
    keys = ("kind", "range", "tag", "timeout", "request_header", "priority", "prefetch")
    nothing = dict.fromkeys(keys)
    assert parse_download({"url": "u", **nothing}) == (
        DownloadRequest(kind=Kind.CACHE, url="u"),
        Delivery(early=True),
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "needs a 'url'"),
        ({"url": ""}, "needs a 'url'"),
        ({"url": 5}, "'url' must be str, not int"),
        ({"uri": "u"}, "unknown key 'uri'"),
        ({"priority": True}, "'priority' must be int, not bool"),
        ({"priority": 7}, "'priority' must be 0 to 6"),
        ({"priority": -1}, "'priority' must be 0 to 6"),
        ({"timeout": 0}, "'timeout' must be above 0"),
        ({"timeout": float("nan")}, "'timeout' must be above 0"),
        ({"timeout": float("inf")}, "at most 3.2e\\+09 seconds"),
        ({"timeout": 10**400}, "at most 3.2e\\+09 seconds"),
        ({"timeout": "5s"}, "'timeout' must be int or float, not str"),
        ({"prefetch": 1}, "'prefetch' must be bool, not int"),
        ({"request_header": {"a": 1}}, "'request_header' must be an object of strings"),
        ({"request_header": ["a"]}, "'request_header' must be dict, not list"),
        ({"url": "u", "range": "0-1,3-4"}, "several ranges: want one"),
        ({"url": "u", "request_header": {"RANGE": "bytes=0-1,3-4"}}, "several ranges: want one"),
        ({"filtered_query_params": [1]}, "'filtered_query_params' must be a list of strings"),
    ],
)
def test_requests_that_make_no_sense(given: dict[str, Any], expected: str) -> None:
    """The key is named, and what it must be."""
    with pytest.raises(InvalidRequest, match=expected):
        parse_download({"url": "u"} | given if given else {})


def test_other_kinds() -> None:
    """Those that are not served are refused as that; what is none is a mistake."""
    with pytest.raises(FeatureOff, match="PERSISTENT tasks are not served"):
        parse_download({"url": "u", "kind": "PERSISTENT"})
    for kind in ("cache", ""):
        with pytest.raises(InvalidRequest, match=f"unknown 'kind' '{kind}': want .*CACHE"):
            parse_download({"url": "u", "kind": kind})


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ({"op": "upload"}, "INVALID_ARGUMENT", "unknown op 'upload'"),
        ({}, "INVALID_ARGUMENT", "unknown op None"),
        ({"op": "download"}, "INVALID_ARGUMENT", "'url'"),
        ({"op": "download", "url": "u", "x": 1}, "INVALID_ARGUMENT", "'x'"),
        ({"op": "download", "url": "gopher://x"}, "INVALID_ARGUMENT", "gopher"),
        ({"op": "download", "url": "u", "kind": "PERSISTENT"}, "FAILED_PRECONDITION", "CACHE"),
    ],
)
async def test_a_refusal(daemon: Daemon, message: object, code: str, text: str) -> None:
    """In words; then the daemon closes."""
    with Client(daemon) as client:
        client.send(message)
        event = await client.event()
        assert (event["event"], event["code"]) == ("error", code)
        assert text in event["message"]
        assert await client.end() == b""


async def test_info(daemon: Daemon) -> None:
    """Whose socket it is."""
    with Client(daemon) as client:
        client.send({"op": "info"})
        event = await client.event()
        assert event.pop("version").startswith("pantala/")
        assert event == {
            "event": "info",
            "host_id": daemon.config.host_id,
            "pid": os.getpid(),
            "open_requests": 64,
        }
        assert await client.end() == b""


@pytest.mark.parametrize(
    ("junk", "words"),
    [
        pytest.param(b"\0\0\0\0", "a frame of 0 bytes, want 1 to 1048576", id="an empty frame"),
        pytest.param(b"\xff\xff\xff\xff{", "a frame of 4294967295 bytes", id="a frame of 4 GiB"),
        pytest.param(b"\0\x10\0\1{", "a frame of 1048577 bytes", id="a byte too long"),
        pytest.param(b"\0\0\0\2[]", "want a JSON object, not list", id="no object"),
        pytest.param(b"\0\0\0\3abc", "not JSON in UTF-8", id="no JSON"),
        pytest.param(b'\0\0\0\3"\xff"', "not JSON in UTF-8", id="no UTF-8"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "a frame of 119", id="another protocol"),
    ],
)
async def test_garbage(daemon: Daemon, junk: bytes, words: str) -> None:
    """It is refused in words, and hung up on; the next one is served."""
    with Client(daemon) as client:
        client.sock.sendall(junk)
        event = await client.event()
        assert (event["event"], event["code"]) == ("error", "INVALID_ARGUMENT")
        assert event["message"].startswith(f"cannot read the request: {words}")
        assert await client.end() == b""
    with Client(daemon) as client:
        client.send({"op": "info"})
        assert (await client.event())["event"] == "info"


@pytest.mark.parametrize(
    "begun", [pytest.param(b"\0\0", id="half a frame"), pytest.param(b"", id="nothing")]
)
async def test_no_request(daemon: Daemon, begun: bytes) -> None:
    """It is hung up on; the next one is served."""
    with Client(daemon) as client:
        client.sock.sendall(begun)
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.end() == b""
    with Client(daemon) as client:
        client.send({"op": "info"})
        assert (await client.event())["event"] == "info"


# -- downloads -----------------------------------------------------------------------------------


async def test_a_segment(daemon: Daemon, url: str) -> None:
    """The memory itself comes with the first event, and is filled as the others say."""
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        started, *pieces, done = await events(client)
        header = started.pop("response_header")
        task = started.pop("task_id")

        assert header["Content-Length"] == str(SIZE)
        assert len(task) == 64
        assert started.pop("peer_id").startswith(daemon.config.host_id)
        assert started == {
            "event": "started",
            "content_length": SIZE,
            "piece_length": MIB,
            "start": 0,
            "length": SIZE,
            "segment": True,
        }
        assert done == {"event": "done"}
        told = sorted(piece for event in pieces for piece in event["pieces"])
        assert told == [[n, n * MIB, MIB, "BACK_TO_SOURCE"] for n in range(10)]
        (fd,) = client.fds
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as seen:
            assert seen[:] == WHOLE
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 0)


async def test_the_connection_is_the_lease(daemon: Daemon, url: str) -> None:
    """While it is open the content stays; then it may go."""
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        assert (await events(client))[-1]["event"] == "done"
        (holding,) = daemon.stores[Kind.CACHE]
        assert holding.lease_count >= 1
        assert daemon.stores[Kind.CACHE].expire({Kind.CACHE: 0.0}) == 0
        daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
        with mmap.mmap(client.fds[0], 0, prot=mmap.PROT_READ) as seen:
            assert seen[:] == WHOLE
        assert daemon.stores[Kind.CACHE].ledger.used == SIZE
    await until(lambda: daemon.stores[Kind.CACHE].ledger.used == 0)


async def test_memory_of_another_task_comes_last(daemon: Daemon, origin: Origin) -> None:
    """Nobody sees what was in it: the descriptor comes when all of it is overwritten."""
    origin.put("/old", Pattern(60 * MIB, 7))
    origin.put("/new", Pattern(58 * MIB, 8))
    await fetch(daemon, origin.url("/old"))
    origin.fault("/new", Fault(rate=30 * MIB))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fetch(daemon, origin.url("/new")))
        await until(lambda: any(h.record.url == origin.url("/new") for h in daemon.stores))
        (holding,) = daemon.stores[Kind.CACHE]
        await until(lambda: bool(holding.pieces))
        assert holding.content.reused
        with Client(daemon) as client:
            client.send({"op": "download", "url": origin.url("/new")})
            started, *others, last, done = await events(client)
            assert (started["event"], started["segment"]) == ("started", False)
            assert {event["event"] for event in others} == {"pieces"}
            assert (last, done) == ({"event": "segment"}, {"event": "done"})
            (fd,) = client.fds
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as seen:
                assert seen[:] == Pattern(58 * MIB, 8).read()

    await until(lambda: not daemon.handoff.busy)  # its client has gone, and it knows
    # Nobody has it any more: it is used once more, for as much as there is room to read.
    file = inode(holding)
    await fetch(daemon, origin.url("/old"))
    (holding,) = daemon.stores[Kind.CACHE]
    assert holding.content.reused
    assert inode(holding) == file
    assert holding.view(ByteRange(0, 60 * MIB)) == Pattern(60 * MIB, 7).read()


@pytest.mark.parametrize(
    "case",
    [(0, "here", False), (0, "in a container", True), (0, "gone", True), (1234, "gone", False)],
)
async def test_what_a_reader_could_write_to_is_sealed(
    daemon: Daemon,
    url: str,
    proc: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[int, str, bool],
) -> None:
    """Others are kept from it by its mode; and who is beside us could do anything anyway."""
    user, where, sealed = case
    if where != "gone":
        (proc / "77/ns").mkdir(parents=True)
        (proc / "77/ns/pid").symlink_to("pid:[1]" if where == "here" else "pid:[2]")
    monkeypatch.setattr(caller, "_PEERCRED", _Said(77, user))
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        assert (await events(client))[-1] == {"event": "done"}
        (fd,) = client.fds
        assert bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK) == sealed
        assert os.fstat(fd).st_mode & 0o777 == 0o444
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What we see of processes: ourselves."""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to("pid:[1]")
    monkeypatch.setattr(caller, "_PROC", tmp_path)
    return tmp_path


class _Said:
    """What the kernel says of who has connected."""

    size = struct.calcsize("3i")

    def __init__(self, pid: int, user: int) -> None:
        self._caller = pid, user, 0

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        """Instead of what it says."""
        assert len(raw) == self.size
        return self._caller


async def test_memory_of_another_task_that_is_read_early(daemon: Daemon, origin: Origin) -> None:
    """The descriptor comes as soon as nothing of the other is in it, in the middle."""
    origin.put("/old", Pattern(60 * MIB, 7))
    origin.put("/new", Pattern(58 * MIB, 8))
    await fetch(daemon, origin.url("/old"))
    origin.fault("/new", Fault(rate=30 * MIB))
    with Client(daemon) as client:
        client.send({"op": "download", "url": origin.url("/new")})
        said = await events(client)
        assert (said[0]["event"], said[0]["segment"]) == ("started", False)
        names = [event["event"] for event in said]
        assert (names.count("segment"), names[-1]) == (1, "done")
        assert "pieces" in names[names.index("segment") :], "it came before all was here"
        (holding,) = daemon.stores[Kind.CACHE]
        assert holding.content.reused
        (fd,) = client.fds
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as seen:
            assert seen[:] == Pattern(58 * MIB, 8).read()


def inode(holding: Holding) -> int:
    """Of the file in memory that its content is."""
    assert isinstance(holding.content, Segment)
    return os.fstat(holding.content.fileno()).st_ino


async def fetch(daemon: Daemon, url: str) -> None:
    """For a caller who does not read in place."""
    async with daemon.engine.open(DownloadRequest(Kind.CACHE, url)) as download:
        async for _ in download:
            pass


async def test_a_client_that_is_killed(daemon: Daemon, url: str) -> None:
    """The kernel ends its lease, whatever it was doing."""
    path = daemon.config.download.server.handoff_path
    text = json.dumps({"op": "download", "url": url})
    program = (
        "import mmap, signal, socket, struct\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        f"sock.connect({str(path)!r})\n"
        f"sock.sendall(struct.pack('!I', {len(text)}) + {text.encode()!r})\n"
        "data, fds, _, _ = socket.recv_fds(sock, 65536, 1)\n"
        "while not data.endswith(b'\"done\"}'): data += sock.recv(65536)\n"
        "seen = mmap.mmap(fds[0], 0, prot=mmap.PROT_READ); seen[:]\n"
        "print(flush=True); signal.pause()"
    )
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert await reader.stdout.readline()
    (holding,) = daemon.stores[Kind.CACHE]
    assert holding.lease_count >= 1
    reader.send_signal(signal.SIGKILL)
    await reader.wait()
    await until(lambda: holding.lease_count == 0)
    assert daemon.stores[Kind.CACHE].expire({Kind.CACHE: 0.0}) == 1
    assert daemon.stores[Kind.CACHE].ledger.used == 0


@pytest.mark.parametrize("size", [0, 1000, 256 * 1024])
async def test_small_content_comes_inside_the_frames(
    daemon: Daemon, origin: Origin, size: int
) -> None:
    """It has no segment."""
    origin.put("/s", Pattern(size))
    with Client(daemon) as client:
        client.send({"op": "download", "url": origin.url("/s")})
        started = await client.event()
        assert (started["segment"], started["content_length"]) == (False, size)
        if size:
            assert (await client.event())["event"] == "pieces"
            assert await client.event() == {"event": "content", "offset": 0, "inline": size}
            assert await client.content(size) == Pattern(size).read()
        assert await client.event() == {"event": "done"}
        assert client.fds == []


async def test_a_part_comes_inside_the_frames(daemon: Daemon, url: str) -> None:
    """Elsewhere in its segment are holes that nobody has accounted for."""
    start, length = 5 * MIB, 2 * MIB + 10
    with Client(daemon) as client:
        client.send({"op": "download", "url": url, "range": f"{start}-{start + length - 1}"})
        started = await client.event()
        assert (started["segment"], started["start"], started["length"]) == (False, start, length)
        found, at = b"", start
        while (event := await client.event())["event"] != "done":
            if event["event"] == "content":
                assert event["offset"] == at
                found += await client.content(event["inline"])
                at += event["inline"]
        assert found == WHOLE[start : start + length]


async def test_a_part_of_what_is_all_here(daemon: Daemon, url: str) -> None:
    """Then the segment can be given after all."""
    await inside.get(daemon, url)
    with Client(daemon) as client:
        client.send({"op": "download", "url": url, "range": "-5"})
        started, pieces, _ = await events(client)
        assert (started["segment"], started["start"]) == (True, SIZE - 5)
        assert [piece[3] for piece in pieces["pieces"]] == ["LOCAL_PEER"]
        assert os.pread(client.fds[0], 5, SIZE - 5) == WHOLE[-5:]


async def test_a_file_of_unknown_length(daemon: Daemon, origin: Origin) -> None:
    """How much is here is told, until the end is known."""
    origin.put("/c", Pattern(SIZE))
    origin.fault("/c", Fault(chunked=True, no_range=True))
    with Client(daemon) as client:
        client.send({"op": "download", "url": origin.url("/c")})
        found = await events(client)
        names = [event["event"] for event in found]
        assert names == ["growing"] * 3 + ["started", "pieces", "done"]
        assert found[2]["bytes"] == SIZE
        assert os.pread(client.fds[0], SIZE, 0) == WHOLE


@pytest.mark.parametrize("kind", ["CACHE", "STANDARD"])
async def test_how_far_pieces_are(daemon: Daemon, origin: Origin, url: str, kind: str) -> None:
    """Told to whoever asks for it, where a piece takes a while; pieces are told of as before."""
    origin.fault("/f", Fault(stall_after=MIB + 300_000))
    with Client(daemon) as client, Client(daemon) as other:
        request = {"op": "download", "url": url, "kind": kind, "piece_length": 4 * MIB}
        client.send({**request, "progress": True})
        other.send(request)
        told = await client.event()
        while told["event"] != "progress" or told["bytes"] < MIB:
            assert told["event"] in ("started", "progress")
            told = await client.event()
        assert told["bytes"] < 3 * (MIB + 300_000)
        origin.heal("/f")
        origin.release()
        while told["event"] != "done":
            told = await client.event()
        names = set()
        while "done" not in names:
            names.add((await other.event())["event"])
        assert names <= {"started", "pieces", "segment", "done"}


async def test_an_origin_that_refuses(daemon: Daemon, origin: Origin, url: str) -> None:
    """Its answer is passed on."""
    origin.fault("/f", Fault(status=404, headers={"X-Why": "gone"}))
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        (event,) = await events(client)
        assert (event["event"], event["code"]) == ("error", "INTERNAL")
        assert (event["status_code"], event["header"]["X-Why"]) == (404, "gone")
        assert "404" in event["message"]
        assert await client.end() == b""


async def test_a_failure_at_the_end(daemon: Daemon, url: str) -> None:
    """After what has come; a digest is looked at before the end."""
    with Client(daemon) as client:
        client.send({"op": "download", "url": url, "digest": f"sha256:{'0' * 64}"})
        found = await events(client)
        assert found[0]["event"] == "started"
        assert (found[-1]["event"], found[-1]["code"]) == ("error", "DATA_LOSS")


async def test_a_client_in_a_hurry(daemon: Daemon, origin: Origin, url: str) -> None:
    """It is told when its time is over."""
    origin.fault("/f", Fault(delay=60))
    with Client(daemon) as client:
        client.send({"op": "download", "url": url, "timeout": 0.1})
        (event,) = await events(client)
        assert event["code"] == "DEADLINE_EXCEEDED"
    origin.release()


async def test_a_client_that_leaves(daemon: Daemon, origin: Origin, url: str) -> None:
    """The download goes on, and the next one finds it."""
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(stall_after=1000))
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        assert (await client.event())["event"] == "started"
    await until(lambda: not daemon.handoff.busy)
    origin.release()
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        assert (await events(client))[-1]["event"] == "done"
        assert os.pread(client.fds[0], SIZE, 0) == WHOLE


async def test_a_client_that_says_more_than_it_may(
    daemon: Daemon, origin: Origin, url: str
) -> None:
    """One request a connection."""
    origin.fault("/f", Fault(delay=60))
    with Client(daemon) as client:
        client.send({"op": "download", "url": url})
        await until(lambda: origin.count() == 1)
        client.send({"op": "info"})
        assert await client.end() == b""
    origin.release()


async def test_no_descriptors_are_left_behind(daemon: Daemon, url: str) -> None:
    """Each client had one of its own."""
    await inside.get(daemon, url)
    before = _descriptors()
    for _ in range(50):
        with Client(daemon) as client:
            client.send({"op": "download", "url": url})
            await events(client)
    await until(lambda: not daemon.handoff.busy)
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_only_some_users(tmp_path: Path, stack: AsyncExitStack) -> None:
    """Whom the operator names; the kernel says who asks."""
    other = os.geteuid() + 1
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, "b", download__server__allowUsers=[other])
    )
    with Client(daemon) as client:
        event = await client.event()
        assert (event["code"], str(os.geteuid()) in event["message"]) == ("PERMISSION_DENIED", True)


#: Does what a program of another user would: asks who is there, and prints the answer.
_STRANGER = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[2])
text = b'{"op": "info"}'
sock.sendall(len(text).to_bytes(4, "big") + text)
print(sock.recv(1000)[4:].decode())
"""


async def test_idle_clients_are_in_nobodys_way(daemon: Daemon, stack: AsyncExitStack) -> None:
    """Whoever has something to ask takes the place of the one that has said nothing for longest."""
    daemon.handoff._places = Places(20)
    for _ in range(3):
        for _ in range(30):
            stack.enter_context(Client(daemon))
        with Client(daemon) as client:
            client.send({"op": "info"})
            assert (await client.event())["event"] == "info"
    await until(lambda: daemon.handoff.busy <= 20)


async def test_a_client_that_asks_nothing_is_told_so(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing to wait for."""
    monkeypatch.setattr(handoff_client, "REQUEST_LIMIT", 0.1)
    with Client(daemon) as client:
        event = await client.event()
        assert (event["code"], event["message"]) == ("DEADLINE_EXCEEDED", "no request within 0.1 s")
        assert await client.end() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_no_user_can_have_all(tmp_path: Path, stack: AsyncExitStack, url: str) -> None:
    """Not even with connections that hold something: there is room for another user."""
    await asyncio.to_thread(tmp_path.chmod, 0o711)
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, "b", download__server__socketMode="0666")
    )
    daemon.handoff._places = Places(10)
    for _ in range(8):
        client = stack.enter_context(Client(daemon))
        client.send({"op": "download", "url": url})
        assert (await events(client))[-1]["event"] == "done"
    with Client(daemon) as client:
        assert await client.end() == b""
    path = daemon.config.download.server.handoff_path
    stranger = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STRANGER, str(path.parent), path.name),
        stdout=subprocess.PIPE,
    )
    output, _ = await stranger.communicate()
    assert json.loads(output)["event"] == "info"


async def _begin_to_send(client: Client, url: str, **wishes: Any) -> int:
    """Ask for a part that is sent, because its content is not here as a whole; how long it is."""
    client.send({"op": "download", "url": url, "range": f"0-{8 * MIB - 1}", **wishes})
    started = await client.event()
    assert (started["event"], started["segment"]) == ("started", False)
    while (event := await client.event())["event"] == "pieces":
        pass
    assert event["event"] == "content"
    return 8 * MIB


async def test_a_client_that_pauses(
    daemon: Daemon, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``dfget`` does whose output is a pipe to a pager: it goes on where it was."""
    monkeypatch.setattr(handoff_client, "ANSWER_LIMIT", 0.2)
    with Client(daemon) as client:
        size = await _begin_to_send(client, url)
        got = await client.content(MIB)
        with pytest.raises(TimeoutError):  # nothing ends it meanwhile
            async with asyncio.timeout(1):
                await until(lambda: not daemon.handoff.busy)
        while len(got) < size:
            event = await client.event()
            assert event["offset"] == len(got)
            got += await client.content(event["inline"])
        assert got == WHOLE[:size]
        assert await client.event() == {"event": "done"}


async def test_a_client_that_pauses_longer_than_it_said(daemon: Daemon, url: str) -> None:
    """It keeps the content from others no longer."""
    with Client(daemon) as client:
        await _begin_to_send(client, url, timeout=3)
        await until(lambda: not daemon.handoff.busy)
        assert daemon.stores[Kind.CACHE].ledger.leased == 0


async def test_stopping(tmp_path: Path, stack: AsyncExitStack, origin: Origin, url: str) -> None:
    """Everybody is hung up on, and the socket goes."""
    origin.fault("/f", Fault(delay=60))
    async with inside.daemon(tmp_path, "b") as daemon:
        path = daemon.config.download.server.handoff_path
        client = stack.enter_context(Client(daemon))
        idle = stack.enter_context(Client(daemon))
        client.send({"op": "download", "url": url})
        await until(lambda: daemon.engine.busy > 0)
        origin.release()
        await daemon.handoff.stop()
        assert await idle.end() == b""
    assert not path.exists()
