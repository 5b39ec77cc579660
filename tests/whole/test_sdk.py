"""What programs do with pantala.Client and pantala.AsyncClient, at a daemon that runs."""

from __future__ import annotations

import asyncio
import copy
import gc
import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO, UnsupportedOperation
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pantala
from pantala.client.parts import Cut
from pantala.errors import (
    NoRoom,
    NotFound,
    OriginError,
    OutputExists,
    TimedOut,
    Unavailable,
)
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin
from pantala.testing.origin_server import Fault
from pantala.testing.program import Node

MIB = 1 << 20
CONTENT = random.Random(12).randbytes(9 * MIB + 77)
SMALL = CONTENT[:20_000]


@pytest.fixture
def node(cluster: Cluster, origin: Origin) -> Node:
    """A daemon of a machine's, with room for a few files."""
    cluster.capacity = "64MiB"
    origin.put("/model", CONTENT)
    origin.put("/small", SMALL)
    origin.put("/empty", b"")
    return cluster.daemon("a")


@pytest.fixture
def client(node: Node) -> Iterator[pantala.Client]:
    """Of that daemon."""
    with pantala.Client(str(node.socket), timeout=60) as client:
        yield client


@pytest.fixture
def url(origin: Origin) -> str:
    """Of what is too large to be sent in a frame."""
    return origin.url("/model")


def leases(client: pantala.Client, url: str) -> int:
    """How often a daemon counts content as used, beyond what the kernel may still have to say."""
    count: int = next(t.details["lease_count"] for t in client.list() if t.url == url)
    return count


def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that comes true."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.05)  # nothing tells when it does


def entries(directory: Path) -> list[Path]:
    """What lies in it."""
    return list(directory.iterdir())


def stall(origin: Origin) -> None:
    """Let the model's first pieces come, and no others until the origin is told so."""
    origin.fault("/model", Fault(), times=5)
    origin.fault("/model", Fault(stall_after=1000))


def test_views_outlive_everything(client: pantala.Client, origin: Origin, url: str) -> None:
    """The path is for the ``with``; what looks at the bytes keeps them, and the lease."""
    with client.open(url) as content:
        assert Path(content.path).read_bytes() == CONTENT
        assert (content.size, len(content)) == (len(CONTENT), len(CONTENT))
        assert content.sources == (0, 0, len(CONTENT))
        view = content.view
    with pytest.raises(ValueError, match="is closed"):
        _ = content.view
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    array = np.frombuffer(view, np.uint8)[3:]
    del view, content
    client.close()
    assert array.tobytes() == CONTENT[3:]
    assert leases(client, url) > 0
    # Room that only this could give is not to be had.
    for name in "bcdefgh":
        origin.put(f"/{name}", CONTENT)
        client.prefetch(origin.url(f"/{name}"))
    assert array.tobytes() == CONTENT[3:]
    del array
    until(lambda: leases(client, url) == 0)


def test_there_is_one_of_it(client: pantala.Client, origin: Origin, url: str) -> None:
    """A copy would close what the other still has; a client may be passed on."""
    for content in (client.open(url), client.open(origin.url("/small"))):
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="not copied or pickled"):
                take(content)
        assert Path(content.path).read_bytes() == bytes(content.view)
    other = pickle.loads(pickle.dumps(client))  # noqa: S301  our own
    assert other.get(url) == CONTENT


def test_content_that_is_closed_meanwhile(client: pantala.Client, url: str) -> None:
    """By another thread: nobody sees an end where there is none, or another file's bytes."""
    content = client.open(url)
    landing = content._landing
    assert landing is not None
    content.close()
    for read in (
        landing.map,
        lambda: landing.view(0, 9),
        lambda: landing.copy(0, 9),
        lambda: landing.copy_into(memoryview(bytearray(9)), 0),
    ):
        with pytest.raises(ValueError, match="is closed"):
            read()


def test_hot_content_is_not_copied(client: pantala.Client, url: str) -> None:
    """Two views are of the same memory: one process has it once."""
    first, second = client.open(url), client.open(url)
    assert second.sources == (len(CONTENT), 0, 0)
    assert Path(first.path).samefile(second.path)
    assert first.task_id == second.task_id == client.stat(url).id


@pytest.mark.parametrize("name", ["/small", "/empty"])
def test_what_is_small(client: pantala.Client, origin: Origin, name: str) -> None:
    """It is sent, and has a path all the same."""
    want = SMALL if name == "/small" else b""
    for _ in range(3):
        with client.open(origin.url(name)) as content:
            assert Path(content.path).read_bytes() == bytes(content.view) == want
        assert client.get(origin.url(name)) == want
    assert list(client.stream(origin.url(name))) == ([want] if want else [])
    assert client.get_into(origin.url(name), bytearray(MIB)) == len(want)
    with client.open_file(origin.url(name)) as file:
        assert file.read() == want


def test_ranges(client: pantala.Client, url: str) -> None:
    """Of content that is not here, and that is: the same bytes."""
    wanted: list[pantala.Range] = [(0, 8), (9 * MIB, None), (-5, None), (7, 7), (5 * MIB, 6 * MIB)]
    want = [CONTENT[:8], CONTENT[9 * MIB :], CONTENT[-5:], b"", CONTENT[5 * MIB : 6 * MIB]]
    for _ in range(2):
        assert client.get_ranges(url, wanted) == want
        assert client.get(url, range=(3, 5)) == CONTENT[3:5]
        with client.open(url, range=(MIB - 1, 2 * MIB)) as part:
            assert Path(part.path).read_bytes() == bytes(part.view) == CONTENT[MIB - 1 : 2 * MIB]
            assert (part.start, part.whole_size) == (MIB - 1, len(CONTENT))
        client.prefetch(url)


def test_into_my_memory(client: pantala.Client, url: str) -> None:
    """As much as there is, and no byte more; memory that will not do is left as it was."""
    room = np.zeros(len(CONTENT) + 3, np.uint8)
    assert client.get_into(url, room) == len(CONTENT)
    assert room.tobytes() == CONTENT + bytes(3)
    assert client.get_into(url, room, range=(5, 15)) == 10
    assert room[:10].tobytes() == CONTENT[5:15]
    for bad, words in (
        (bytearray(5), "it has 5 bytes, the content "),
        (bytes(len(CONTENT)), "may not be written"),
        (np.zeros((9, 9))[:, 1], "contiguous"),
        (np.zeros(len(CONTENT), "M8[s]"), "contiguous"),
        ("text", "contiguous"),
    ):
        with pytest.raises(pantala.InvalidRequest, match=words):
            client.get_into(url, bad)


def test_arrays(client: pantala.Client, url: str) -> None:
    """In the shape that is asked for; else it says why not."""
    array = client.array(url, "float32", (-1, 4), range=(16, 16 + 64))
    assert array.shape == (4, 4)
    assert array.tobytes() == CONTENT[16:80]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="reshape"):
        client.array(url, "uint8", (3, 3), range=(0, 10))


def test_a_stream_begins_before_the_end(client: pantala.Client, origin: Origin, url: str) -> None:
    """Its parts come in order, while the rest is on its way; leaving off early ends the wait."""
    origin.fault("/model", Fault(rate=4 * MIB))
    begun = time.monotonic()
    parts, first = [], 0.0
    for part in client.stream(url):
        first = first or time.monotonic() - begun
        parts.append(part)
    assert b"".join(parts) == CONTENT
    assert first < (time.monotonic() - begun) * 0.7
    begun = time.monotonic()
    for _ in client.stream(url, tag="another"):
        break
    assert time.monotonic() - begun < 1.5


def test_a_file_waits_for_what_it_reads(client: pantala.Client, origin: Origin, url: str) -> None:
    """And for no more: its beginning can be read while its end is on its way."""
    stall(origin)
    with client.open_file(url) as file:
        assert (file.size, file.readable(), file.seekable(), file.writable()) == (
            *(len(CONTENT), True, True),
            False,
        )
        assert file.read(100) == CONTENT[:100]
        assert file.pread(5, 1000) == CONTENT[1000:1005]
        assert file.tell() == 100
        origin.release()
        assert file.seek(-7, os.SEEK_END) == len(CONTENT) - 7
        assert file.read() == CONTENT[-7:]
        assert file.read(5) == b""
        file.seek(0)
        assert file.readall() == CONTENT
        for bad in (lambda: file.seek(-1), lambda: file.pread(3, -1), lambda: file.view(-1, 3)):
            with pytest.raises(ValueError, match="negative place -1"):
                bad()
        no_place: Any = 1.5
        with pytest.raises(TypeError):
            file.seek(no_place)
        with pytest.raises(UnsupportedOperation):
            file.write(b"x")
        assert file.tell() == len(CONTENT)
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_a_file_for_those_who_read_files(client: pantala.Client, origin: Origin) -> None:
    """Such as an archive's."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x", CONTENT)
    origin.put("/zip", packed.getvalue())
    with client.open_file(origin.url("/zip")) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("x") == CONTENT


def test_closing_a_file_wakes_who_reads_it(
    client: pantala.Client, origin: Origin, url: str
) -> None:
    """In another thread, which is told that it is closed, or that nothing more is wanted."""
    stall(origin)
    file = client.open_file(url)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            file.read()
        except (ValueError, Unavailable) as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)  # it waits by then; if it does not yet, the test is easier to pass
    begun = time.monotonic()
    file.close()
    reader.join(20)
    assert time.monotonic() - begun < 2
    assert len(failed) == 1


def test_a_download_appears_whole(
    client: pantala.Client, origin: Origin, url: str, tmp_path: Path
) -> None:
    """And what is said meanwhile ends with all of it."""
    origin.fault("/model", Fault(rate=6 * MIB))
    said: list[pantala.Progress] = []
    task = client.download(url, tmp_path / "out", progress=said.append)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert task.size == said[-1].done == said[-1].total == said[-1].origin == len(CONTENT)
    assert any(p.eta and 0 < p.rate < 60 * MIB for p in said)
    with pytest.raises(OutputExists, match="exists already: overwrite=True replaces it"):
        client.download(url, tmp_path / "out")
    client.download(url, str(tmp_path / "out"), overwrite=True, range=(0, 3))
    assert (tmp_path / "out").read_bytes() == CONTENT[:3]


def test_what_fails_says_why(client: pantala.Client, origin: Origin, node: Node) -> None:
    """In classes of one tree, with what a program can act upon."""
    with pytest.raises(OriginError, match="404 Not Found") as refused:
        client.get(origin.url("/nowhere"))
    assert (refused.value.status, refused.value.transient) == (404, False)
    with pytest.raises(OriginError, match="connection refused") as gone:
        client.get("http://127.0.0.1:1/x")
    assert (gone.value.status, gone.value.transient) == (None, True)
    origin.put("/large", Pattern(65 * MIB))
    with pytest.raises(NoRoom, match="no room in memory") as full:
        client.get(origin.url("/large"))
    assert (full.value.needed, full.value.capacity) == (65 * MIB, 64 * MIB)
    with pytest.raises(pantala.DragonflyError, match="digest mismatch"):
        client.get(origin.url("/small"), digest="crc32:1")
    with pytest.raises(Unavailable, match="no daemon at "):
        pantala.Client(str(node.socket) + "x").get(origin.url("/small"))
    assert client.get(origin.url("/small")) == SMALL


def test_a_wait_has_an_end(client: pantala.Client, origin: Origin, url: str) -> None:
    """The caller's own."""
    stall(origin)
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        client.get(url, timeout=1)
    assert client.get(origin.url("/small"), timeout=float("inf")) == SMALL
    assert 0.9 < time.monotonic() - begun < 3.5


def test_ranges_beyond_the_end(client: pantala.Client, url: str) -> None:
    """They are the caller's mistake; what begins before the end, ends there."""
    with pytest.raises(pantala.InvalidRequest, match="range"):
        client.get(url, range=(len(CONTENT), None))
    assert client.get(url, range=(len(CONTENT) - 2, len(CONTENT) + 5)) == CONTENT[-2:]


def test_a_file_that_is_called_like_a_stream(
    client: pantala.Client, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a file to a program."""
    monkeypatch.chdir(tmp_path)
    client.download(origin.url("/small"), "-")
    assert (tmp_path / "-").read_bytes() == SMALL


def test_tasks(client: pantala.Client, origin: Origin, url: str) -> None:
    """They are named by URLs, and by what else makes them."""
    with pytest.raises(NotFound):
        client.stat(url)
    (one, two) = client.prefetch([url, origin.url("/small")])
    assert (one.size, two.size) == (len(CONTENT), len(SMALL))
    tagged = client.prefetch(url, tag="mine")[0]
    assert client.stat(url, tag="mine").id == tagged.id != one.id
    assert {t.id for t in client.list()} == {one.id, two.id, tagged.id}
    view = client.open(url).view
    client.evict(url)
    with pytest.raises(NotFound, match=f"^{url}: task {one.id} not found"):
        client.evict(url)
    assert client.stat(url, tag="mine").id == tagged.id
    assert bytes(view) == CONTENT
    assert client.list("standard") == []


async def test_what_the_origin_has_now(
    node: Node, client: pantala.Client, origin: Origin, url: str
) -> None:
    """Whoever asks for it gets it; whoever looks at what was there keeps that."""
    view = client.open(url).view
    unchanged = client.refresh(url)
    assert unchanged.details["bytes_from_cache"] == len(CONTENT)
    origin.put("/model", CONTENT[::-1])
    assert client.get(url) == CONTENT
    async with pantala.AsyncClient(str(node.socket)) as other:
        assert (await other.refresh(url)).details["bytes_from_origin"] == len(CONTENT)
    assert client.get(url, refresh=True) == client.get(url) == CONTENT[::-1]
    assert bytes(view) == CONTENT
    origin.pause()
    with pytest.raises(OriginError, match="cannot be compared with what is here") as silent:
        client.refresh(url)
    assert silent.value.transient
    assert client.get(url) == CONTENT[::-1]
    with pytest.raises(pantala.InvalidRequest, match="disable_back_to_source"):
        client.refresh(url, disable_back_to_source=True)


async def test_large_ranges_are_copied_beside_the_loop(
    node: Node, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which goes on meanwhile; small ones are not worth a thread."""
    take, on_the_loop = Cut.take, {}

    def spy(cut: Cut, span: pantala.Range, content: pantala.Content) -> None:
        on_the_loop[content.size] = threading.current_thread() is threading.main_thread()
        take(cut, span, content)

    monkeypatch.setattr(Cut, "take", spy)
    async with pantala.AsyncClient(str(node.socket)) as client:
        found = await client.get_ranges(url, [(0, 5), (MIB, 6 * MIB)])
    assert found == [CONTENT[:5], CONTENT[MIB : 6 * MIB]]
    assert on_the_loop == {5: True, 5 * MIB: False}


async def test_the_origin_is_asked_once_for_several_ranges(
    node: Node, client: pantala.Client, origin: Origin, url: str
) -> None:
    """Also where it is the client that always asks it."""
    client.get(url)
    wanted: list[pantala.Range] = [(0, 3), (4 * MIB, 4 * MIB + 3), (8 * MIB, None)]
    want = [CONTENT[:3], CONTENT[4 * MIB :][:3], CONTENT[8 * MIB :]]
    before = origin.count("/model")
    with pantala.Client(str(node.socket), refresh=True) as always:
        assert always.get_ranges(url, wanted) == want
        once = origin.count("/model") - before
        always.get(url)
        assert origin.count("/model") - before == 2 * once > 0
    async with pantala.AsyncClient(str(node.socket), refresh=True) as other:
        assert await other.get_ranges(url, wanted) == want
    assert origin.count("/model") - before == 3 * once


def test_a_daemon_that_is_started_anew(
    cluster: Cluster, client: pantala.Client, node: Node, url: str, origin: Origin
) -> None:
    """Connections that were kept are of no use then, which nobody notices; nor do views."""
    view = client.open(url).view
    client.get(origin.url("/small"))
    node.stop()
    with pytest.raises(Unavailable):
        client.get(url)
    node = cluster.daemon("a")
    assert client.get(origin.url("/small")) == SMALL
    assert client.list()
    for _ in range(2):  # what the daemon still had to say is there to be read, and then nothing
        client.get(url)
        node.stop()
        node = cluster.daemon("a")
    assert bytes(view) == CONTENT


_HOLD = """
import sys, time, pantala
client = pantala.Client(sys.argv[1])
views = [client.open(url).view for url in sys.argv[2:]]
print(len(views), flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed(client: pantala.Client, node: Node, url: str) -> None:
    """Whatever it held is free."""
    command = [sys.executable, "-c", _HOLD, str(node.socket), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert leases(client, url) > 0
        process.send_signal(signal.SIGKILL)
    until(lambda: leases(client, url) == 0)


_LEAVE = """
import builtins, sys, types, pantala
client = pantala.Client(sys.argv[1])
content = client.open(sys.argv[2])
file = client.open_file(sys.argv[2], tag="file")
kept = types.SimpleNamespace(view=content.view, content=content, file=file, client=client)
kept.itself = kept
builtins.kept = kept
"""


def test_leaving_with_all_of_it_held(client: pantala.Client, node: Node, url: str) -> None:
    """Nobody has to close anything before a program ends, nor hears of it."""
    command = [sys.executable, "-X", "dev", "-c", _LEAVE, str(node.socket), url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    until(lambda: leases(client, url) == 0)


_FORK = """
import gc, hashlib, os, sys, traceback, pantala

def digest(data):
    return hashlib.sha256(data).hexdigest()

endpoint, url, small, whole, little = sys.argv[1:]
client = pantala.Client(endpoint, timeout=30)
content = client.open(url)
view, file = content.view, client.open_file(url, tag="file")
client.get(small)
child = os.fork()
if not child:
    try:
        assert digest(view) == whole
        assert digest(client.get(small)) == little
        assert digest(client.open(url).view) == whole
        content.close()
        del content, view
        file.close()
        gc.collect()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
for _ in range(20):
    assert digest(client.get(small)) == little
assert os.waitpid(child, 0)[1] == 0
assert next(t for t in client.list() if t.id == content.task_id).details["lease_count"] > 0
assert digest(file.read()) == digest(view) == whole
print("done")
"""


def test_both_sides_of_a_fork(client: pantala.Client, node: Node, origin: Origin, url: str) -> None:
    """Views are there on both; neither uses the other's connections, nor ends its leases."""
    del client
    digests = [hashlib.sha256(data).hexdigest() for data in (CONTENT, SMALL)]
    command = [sys.executable, "-c", _FORK, str(node.socket), url, origin.url("/small"), *digests]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ran.stdout, ran.stderr) == ("done\n", "")


def test_many_threads_in_any_order(client: pantala.Client, origin: Origin, url: str) -> None:
    """Content opened, sliced and dropped wherever: it stays right, and no lease is left."""
    urls = [url, origin.url("/small"), origin.url("/other")]
    wants = [CONTENT, SMALL, CONTENT[::-1]]
    origin.put("/other", wants[2])
    shared: list[tuple[memoryview, bytes]] = []
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(40):
                which = rng.randrange(3)
                content = client.open(urls[which])
                first = rng.randrange(len(wants[which]))
                end = min(first + rng.randrange(50_000), len(wants[which]))
                shared.append((content.view[first:end], wants[which][first:end]))
                if rng.random() < 0.3:
                    content.close()
                if rng.random() < 0.2:
                    gc.collect()
                if len(shared) > 20:
                    view, want = shared.pop(rng.randrange(20))
                    assert bytes(view) == want
        except BaseException as error:  # noqa: BLE001  of a thread, to be seen by the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not failed
    assert all(bytes(view) == want for view, want in shared)
    shared.clear()
    gc.collect()
    until(lambda: all(task.details["lease_count"] == 0 for task in client.list()))


# -- the other client ---------------------------------------------------------------------------


async def test_on_an_event_loop(node: Node, origin: Origin, url: str, tmp_path: Path) -> None:
    """All of it, as for those who block."""
    async with pantala.AsyncClient(str(node.socket), timeout=60) as client:
        small = origin.url("/small")
        with await client.open(url) as content:
            assert bytes(content.view) == CONTENT
        assert await client.get_many([small, url, small], concurrency=2) == [SMALL, CONTENT, SMALL]
        with pytest.raises(pantala.InvalidRequest, match="concurrency: want 1 or more"):
            await client.get_many([small], concurrency=0)
        room = bytearray(len(CONTENT))
        assert await client.get_into(url, room) == len(CONTENT)
        assert room == CONTENT
        assert await client.get_ranges(url, [(3, 9), (8 * MIB, None)]) == [
            CONTENT[3:9],
            CONTENT[8 * MIB :],
        ]
        assert (await client.array(url, range=(0, 9))).tobytes() == CONTENT[:9]
        assert b"".join([part async for part in client.stream(url)]) == CONTENT
        said: list[pantala.Progress] = []
        task = await client.download(url, tmp_path / "out", progress=said.append)
        assert (tmp_path / "out").read_bytes() == CONTENT
        assert said[-1].done == task.size == len(CONTENT)
        assert {t.id for t in await client.list()} >= {task.id, (await client.stat(small)).id}
        await client.prefetch([url])
        await client.evict(url)
        with pytest.raises(NotFound):
            await client.stat(url)
        with pytest.raises(OriginError, match="404"):
            await client.get_many([small, origin.url("/nowhere")])


@pytest.mark.parametrize("how", ["get", "stream", "download", "get_into", "get_many"])
async def test_cancelling_ends_a_wait(
    node: Node, origin: Origin, url: str, tmp_path: Path, how: str
) -> None:
    """At once, and the client goes on."""
    stall(origin)
    async with pantala.AsyncClient(str(node.socket), timeout=60) as client:

        async def wait() -> Any:
            if how == "stream":
                return [part async for part in client.stream(url)]
            arguments: dict[str, Any] = {
                "get": (url,),
                "download": (url, tmp_path / "out"),
                "get_into": (url, bytearray(len(CONTENT))),
                "get_many": ([url, url],),
            }
            return await getattr(client, how)(*arguments[how])

        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await wait()
        assert time.monotonic() - begun < 2.5
        assert not entries(tmp_path)
        assert await client.get(origin.url("/small")) == SMALL


def test_what_importing_costs() -> None:
    """Neither gRPC nor, until somebody needs it, an event loop."""
    program = (
        "import sys, pantala; pantala.Client('/x'); pantala.open; pantala.errors.NoRoom;"
        "heavy = {'grpc', 'asyncio', 'pydantic', 'numpy', 'google.protobuf'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"[]\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_opens_the_path(client: pantala.Client, url: str) -> None:
    """Than the daemon's: the mode of its memory lets him who has it open it, to read alone."""
    with client.open(url) as content:
        for command, want in (["cat", content.path], CONTENT), (["tee", content.path], None):
            ran = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                user=65534,
                pass_fds=[int(Path(content.path).name)],
            )
            assert (ran.returncode == 0) == (want is not None)
            assert ran.stdout == (want or b"")


_SCARCE = """
import os, resource, sys, pantala
client = pantala.Client(sys.argv[1])
client.get(sys.argv[2])
limit = len(os.listdir("/proc/self/fd")) + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
kept, failed = [], 0
for _ in range(30):
    try:
        kept.append(client.open(sys.argv[2]).view)
        client.stat(sys.argv[2])
    except pantala.Unavailable:
        failed += 1
print(failed > 0)
kept.clear()
print(len(client.get(sys.argv[2])))
"""


@pytest.mark.parametrize("spare", range(5))
def test_no_more_files(node: Node, url: str, spare: int) -> None:
    """Whichever of them it is that this process cannot open: it is told so, and goes on."""
    command = [sys.executable, "-X", "dev", "-c", _SCARCE, str(node.socket), url, str(spare)]
    ran = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (b"True\n%d\n" % len(CONTENT), b"")


_STOPPED = """
import signal, sys, pantala
file = pantala.Client(sys.argv[1]).open_file(sys.argv[2])
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.5)
for _ in range(2):
    try:
        file.read()
    except BaseException as error:
        print(type(error).__name__)
"""


def test_an_interrupted_file(node: Node, origin: Origin, url: str) -> None:
    """Who reads on is told what has happened, and not interrupted again."""
    stall(origin)
    command = [sys.executable, "-X", "dev", "-c", _STOPPED, str(node.socket), url]
    ran = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (b"KeyboardInterrupt\nUnavailable\n", b"")


_WAIT = """
import sys, pantala
client = pantala.Client(sys.argv[1])
first, second = sys.argv[2:4]
calls = {
    "get": lambda: client.get(first),
    "prefetch": lambda: client.prefetch([first, second] * 20),
    "get_ranges": lambda: client.get_ranges(first, [(n << 20, (n << 20) + 5) for n in range(9)]),
}
print("begins", flush=True)
try:
    calls[sys.argv[4]]()
except KeyboardInterrupt:
    print(len(client.get(sys.argv[5])), flush=True)
"""


@pytest.mark.parametrize("how", ["get", "prefetch", "get_ranges"])
def test_whoever_interrupts_a_wait_ends_it(node: Node, origin: Origin, url: str, how: str) -> None:
    """At once, and so ends the program: no thread of it goes on waiting."""
    stall(origin)
    origin.put("/other", CONTENT)
    origin.fault("/other", Fault(stall_after=1000))
    urls = [url, origin.url("/other"), how, origin.url("/small")]
    command = [sys.executable, "-X", "dev", "-c", _WAIT, str(node.socket), *urls]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begins\n"
            time.sleep(1)  # it waits by then; if it does not yet, the test is easier to pass
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (output, errors) == (b"%d\n" % len(SMALL), b"")
