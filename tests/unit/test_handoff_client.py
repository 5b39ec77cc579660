"""client/connection.py and client/saving.py: a client of the hand-off socket."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from errno import ENOMEM
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pantala.cli._progress import Progress
from pantala.client.connection import Connection, connect, connect_if_there, dial
from pantala.client.output import output_for
from pantala.client.saving import Saving
from pantala.errors import (
    Busy,
    DragonflyError,
    FeatureOff,
    OriginError,
    RemoteProtocolError,
    TimedOut,
    Unavailable,
)
from pantala.testing.handoff_daemon import Conversation, HandoffDaemon, Segment, serve, started
from pantala.wire.handoff import encode

CONTENT = random.Random(4).randbytes(23_456)
REQUEST = {"op": "download", "kind": "CACHE", "url": "http://me:pw@origin/file?token=secret"}

Script = Callable[[Conversation], None]


def _soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def _get(directory: Path, script: Script, *, words: io.StringIO | None = None) -> Saving:
    """Download to ``out`` from a daemon that plays *script*."""
    progress = Progress(words or io.StringIO(), shown=False)
    with (
        HandoffDaemon(directory, script) as daemon,
        output_for(str(directory / "out"), overwrite=False) as output,
        connect(daemon.endpoint) as connection,
    ):
        download = Saving(connection, output, progress)
        download.run(REQUEST, deadline=_soon())
        output.commit()
    return download


def _error(directory: Path, script: Script) -> str:
    """The message with which it fails; nothing must be left."""
    with pytest.raises(RemoteProtocolError) as caught:
        _get(directory, script)
    assert not (directory / "out").exists()
    return str(caught.value)


@contextlib.contextmanager
def _talk(directory: Path, script: Script) -> Iterator[Connection]:
    with HandoffDaemon(directory, script) as daemon, connect(daemon.endpoint) as connection:
        connection.send(REQUEST, deadline=_soon())
        yield connection


def test_pieces_in_any_order(tmp_path: Path) -> None:
    """Each goes to its own place, as does a last one that is shorter."""
    download = _get(tmp_path, serve(CONTENT, 5000, order=[4, 0, 3, 1, 2]))
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (download.arrival.task_id, download.arrival.content_length) == ("a" * 64, len(CONTENT))
    assert download.arrival.received == {"peers": len(CONTENT), "origin": 0, "cache": 0}


def test_a_range_is_cut_out_of_whole_pieces(tmp_path: Path) -> None:
    """Only the part is written, and only the part is counted."""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.start(segment, 4_000, 7_500)
            rows = [
                segment.fill(2, "BACK_TO_SOURCE"),
                segment.fill(0, "LOCAL_PEER"),
                segment.fill(1),
                segment.fill(1),  # said twice, counted once
                segment.fill(4),  # not asked for
            ]
            talk.send(event="pieces", pieces=rows)
            talk.send(event="done")
            talk.wait_closed()

    download = _get(tmp_path, script)
    assert (tmp_path / "out").read_bytes() == CONTENT[4_000:11_500]
    assert (download.arrival.start, download.arrival.length) == (4_000, 7_500)
    assert download.arrival.received == {"peers": 5_000, "origin": 1_500, "cache": 1_000}


def _without_segment(talk: Conversation, whole: int, start: int, length: int) -> None:
    event: dict[str, Any] = {"content_length": whole, "start": start, "length": length}
    talk.send(event="started", task_id="t", piece_length=4 << 20, segment=False, **event)


@pytest.mark.parametrize(("start", "length"), [(0, 23_456), (3, 20_000), (0, 0)])
def test_without_a_segment_the_content_comes_in_frames(
    tmp_path: Path, start: int, length: int
) -> None:
    """In order; the empty content in none."""

    def script(talk: Conversation) -> None:
        _without_segment(talk, len(CONTENT) if length else 0, start, length)
        if length:
            talk.send(event="pieces", pieces=[[0, 0, len(CONTENT), "BACK_TO_SOURCE"]])
        for at in range(start, start + length, 9_000):
            part = CONTENT[at : min(at + 9_000, start + length)]
            talk.send(event="content", offset=at, inline=len(part), content=part)
        talk.send(event="done")
        talk.wait_closed()

    download = _get(tmp_path, script)
    assert (tmp_path / "out").read_bytes() == CONTENT[start : start + length]
    assert download.arrival.received["origin"] == length


@pytest.mark.parametrize(("start", "length"), [(0, 23_456), (4_000, 7_500)])
@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_the_segment_may_come_later(tmp_path: Path, start: int, length: int, after: int) -> None:
    """In the middle, or at the end: pieces that were told of before are taken from it then."""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.send(**(started(segment, start, length) | {"segment": False}))
            for number in range(5):
                if number == after:
                    talk.send(segment.descriptor, event="segment")
                talk.send(event="pieces", pieces=[segment.fill(number)])
            if after == 5:
                talk.send(segment.descriptor, event="segment")
            talk.send(event="done")
            talk.wait_closed()

    download = _get(tmp_path, script)
    assert (tmp_path / "out").read_bytes() == CONTENT[start : start + length]
    assert download.arrival.received == {"peers": length, "origin": 0, "cache": 0}


def test_a_growing_file(tmp_path: Path) -> None:
    """Its descriptor comes late; warnings come any time."""

    def script(talk: Conversation) -> None:
        talk.send(event="waiting", bytes=4 << 20)
        talk.send(event="growing", bytes=100)
        talk.send(event="warning", message="the origin\nis slow")
        talk.send(event="growing", bytes=len(CONTENT))
        serve(CONTENT)(talk)

    words = io.StringIO()
    _get(tmp_path, script, words=words)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert words.getvalue() == "dfget: warning: the origin is slow\n"


def test_an_origins_refusal_is_named(tmp_path: Path) -> None:
    """With its status, and the URL without what is secret in it."""

    def script(talk: Conversation) -> None:
        talk.send(event="error", code="INTERNAL", message="404 Not Found", status_code=404)

    with pytest.raises(OriginError) as caught:
        _get(tmp_path, script)
    assert str(caught.value) == "origin answered 404 Not Found for http://origin/file"
    assert caught.value.status == 404


def test_other_errors_keep_their_code(tmp_path: Path) -> None:
    """And say what could not be got, also after it had begun."""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.start(segment)
            talk.send(event="pieces", pieces=[segment.fill(0)])
            talk.send(event="error", code="RESOURCE_EXHAUSTED", message="no room in memory")

    with pytest.raises(Busy, match="cannot get http://origin/file: no room in memory"):
        _get(tmp_path, script)
    assert not (tmp_path / "out").exists()


def test_codes_without_a_class_of_their_own(tmp_path: Path) -> None:
    """They are errors all the same; a status may come with other words."""

    def script(talk: Conversation) -> None:
        talk.send(event="error", code="UNIMPLEMENTED", message="no")

    with pytest.raises(DragonflyError, match="cannot get http://origin/file: no"):
        _get(tmp_path, script)
    (tmp_path / "dfdaemon.handoff.sock").unlink()

    def teapot(talk: Conversation) -> None:
        talk.send(event="error", code="ABORTED", message="it changed", status_code=418)

    with pytest.raises(OriginError, match=r"origin answered 418 \(it changed\) for"):
        _get(tmp_path, teapot)


def _with(**changes: Any) -> Script:
    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.send(segment.descriptor, **started(segment) | changes)
            talk.wait_closed()

    return script


def _then(*events: dict[str, Any]) -> Script:
    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.start(segment)
            for event in events:
                talk.send(**event)
            talk.wait_closed()

    return script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (_with(length=-1), "length=-1"),
        (_with(piece_length="5000"), "piece_length='5000'"),
        (_with(start=True), "start=True"),
        (_with(start=1), "bytes 1 to 23457 of a file of 23456"),
        (_with(task_id=None), "task_id=None"),
        (_with(content_length=100_000), "segment of 23456 bytes cannot be that of 100000"),
        (_with(event="dance"), "event 'dance'"),
        (_with(event=None), "event=None"),
        (_with(event="pieces", pieces=[]), "'pieces' before 'started'"),
        (_with(event="done"), "'done' before 'started'"),
        (_then({"event": "pieces", "pieces": 3}), "no list of pieces"),
        (_then({"event": "pieces", "pieces": [[0, 0, 5000]]}), "cannot be"),
        (_then({"event": "pieces", "pieces": [[0, 0, 5000, "MOON"]]}), "cannot be"),
        (_then({"event": "pieces", "pieces": [[-1, -5000, 5000, "LOCAL_PEER"]]}), "cannot be"),
        (_then({"event": "pieces", "pieces": [[1, 4000, 5000, "LOCAL_PEER"]]}), "cannot be"),
        (_then({"event": "pieces", "pieces": [[4, 20000, 5000, "LOCAL_PEER"]]}), "cannot be"),
        (_then({"event": "pieces", "pieces": [[5, 25000, -1544, "LOCAL_PEER"]]}), "cannot be"),
        (_then({"event": "done"}), "done after 0 of 23456 bytes"),
    ],
)
def test_nonsense_is_the_daemons_fault(tmp_path: Path, script: Script, message: str) -> None:
    """Nothing is written from a place that nobody vouched for."""
    assert message in _error(tmp_path, script)


def test_started_twice(tmp_path: Path) -> None:
    """Two lengths for one download cannot both be true."""
    with contextlib.closing(Segment(CONTENT, 5000)) as segment:
        again = started(segment) | {"segment": False}
    assert "twice" in _error(tmp_path, _then(again))


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (1, b"smal", "which were not next"),
        (0, b"smalls", "which were not next"),
        (0, b"smal", "done after 4 of 5 bytes"),
    ],
)
def test_content_in_the_wrong_place(
    tmp_path: Path, offset: int, content: bytes, message: str
) -> None:
    """A gap, too much, too little: none is the content."""

    def script(talk: Conversation) -> None:
        _without_segment(talk, 5, 0, 5)
        talk.send(event="content", offset=offset, inline=len(content), content=content)
        talk.send(event="done")
        talk.wait_closed()

    assert message in _error(tmp_path, script)


def test_content_beside_a_segment(tmp_path: Path) -> None:
    """It is one or the other."""
    event = {"event": "content", "offset": 0, "inline": 0}
    assert "which were not next" in _error(tmp_path, _then(event))


def test_two_segments(tmp_path: Path) -> None:
    """Which of them is it?"""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.start(segment)
            talk.send(segment.descriptor, event="segment")
        talk.wait_closed()

    assert "in two ways" in _error(tmp_path, script)


def test_a_segment_of_nothing_known(tmp_path: Path) -> None:
    """Before its length was told."""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.send(segment.descriptor, event="segment")
        talk.wait_closed()

    assert "'segment' before 'started'" in _error(tmp_path, script)


def test_a_descriptor_that_does_not_come(tmp_path: Path) -> None:
    """Promised is not passed."""

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 5000)) as segment:
            talk.send(**started(segment))
        talk.wait_closed()

    assert "passed no descriptor" in _error(tmp_path, script)


def test_too_many_descriptors(tmp_path: Path) -> None:
    """They are closed, not kept."""

    def script(talk: Conversation) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(3):
            with contextlib.suppress(BrokenPipeError):  # the second was one too many
                talk.send(null, event="growing", bytes=0)
        os.close(null)
        talk.wait_closed()

    gc.collect()  # what earlier tests left open must not be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  numbers, not paths
    assert "nobody asked for" in _error(tmp_path, script)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  numbers, not paths


def test_a_process_that_may_map_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not laid to the daemon."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(ENOMEM, os.strerror(ENOMEM))

    monkeypatch.setattr("pantala.client.output._COPIES", False)
    monkeypatch.setattr("pantala.client.saving.mmap", SimpleNamespace(mmap=refuse, PROT_READ=1))
    with pytest.raises(Unavailable, match="this process cannot map it: Cannot allocate memory"):
        _get(tmp_path, serve(CONTENT, 5000))
    assert not (tmp_path / "out").exists()


def test_a_daemon_that_dies(tmp_path: Path) -> None:
    """Whatever it was doing."""

    def after_the_request(talk: Conversation) -> None:
        talk.send(event="growing", bytes=0)

    def within_a_frame(talk: Conversation) -> None:
        talk.send_raw(encode({"event": "growing", "bytes": 0})[:-3])

    for script in (after_the_request, within_a_frame):
        with pytest.raises(Unavailable, match="closed the connection too early"):
            _get(tmp_path, script)
        (tmp_path / "dfdaemon.handoff.sock").unlink()
    assert not (tmp_path / "out").exists()


def test_a_daemon_that_says_nothing(tmp_path: Path) -> None:
    """Waiting pauses when asked to, and ends."""
    with _talk(tmp_path, Conversation.wait_closed) as connection:
        assert connection.receive(deadline=_soon(), pause=0.01) is None
        with pytest.raises(TimedOut, match="no answer in time"):
            connection.receive(deadline=_soon(0.01))
        with pytest.raises(TimedOut, match="no answer in time"):
            connection.receive(deadline=_soon(-1))
        with pytest.raises(TimedOut, match="no answer in time"):
            connection.receive_content(3, deadline=_soon(0.01))
        assert not connection.answered


def test_a_daemon_that_does_not_read() -> None:
    """A request larger than its buffer ends the wait, too."""
    ours, theirs = socket.socketpair()
    with (
        theirs,
        Connection(ours, "/run/x.sock") as connection,
        pytest.raises(TimedOut, match="does not read"),
    ):
        connection.send({"url": "x" * 900_000}, deadline=_soon(0.05))


def test_a_refusal_before_the_request_is_read(tmp_path: Path) -> None:
    """The daemon has closed; its reason is still there to be received."""
    ours, theirs = socket.socketpair()
    theirs.sendall(encode({"event": "error", "code": "PERMISSION_DENIED", "message": "you"}))
    theirs.close()
    with Connection(ours, str(tmp_path / "x.sock")) as connection:
        connection.send(REQUEST, deadline=_soon())
        event = connection.receive(deadline=_soon())
        assert event is not None
        assert event["code"] == "PERMISSION_DENIED"


def test_frames_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Byte by byte, with content at the end."""

    def script(talk: Conversation) -> None:
        for byte in encode({"event": "done", "inline": 3}) + b"abc":
            talk.send_raw(bytes([byte]))
        talk.wait_closed()

    with _talk(tmp_path, script) as connection:
        assert connection.receive(deadline=_soon()) == {"event": "done", "inline": 3}
        assert connection.receive_content(3, deadline=_soon()) == b"abc"


def test_leaving_ends_the_lease(tmp_path: Path) -> None:
    """The daemon sees it at once."""
    gone = threading.Event()

    def script(talk: Conversation) -> None:
        talk.wait_closed()
        gone.set()

    with _talk(tmp_path, script):
        assert not gone.is_set()
    assert gone.wait(20)


def test_where_nobody_is(tmp_path: Path) -> None:
    """A missing socket and one that was left behind read differently."""
    endpoint = tmp_path / "dfdaemon.sock"
    assert connect_if_there(str(endpoint)) is None
    with pytest.raises(Unavailable, match="no such socket; start dfdaemon"):
        connect(str(endpoint))
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(endpoint))
    left.close()
    with pytest.raises(Unavailable, match="left from one that has ended"):
        connect(str(endpoint))
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(Unavailable, match=f"no daemon at {place}: {place} is no socket; "):
            connect(str(place))


def test_a_socket_of_another_program(tmp_path: Path) -> None:
    """Which one, and what to do; not only that its frames are odd."""

    def script(talk: Conversation) -> None:
        talk.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        talk.wait_closed()

    message = _error(tmp_path, script)
    assert message.startswith(f"no pantala daemon talks at {tmp_path}/dfdaemon.handoff.sock (")
    assert message.endswith("): name the socket of one with --endpoint")


def test_a_daemon_that_is_not_ours(tmp_path: Path) -> None:
    """Somebody listens, but there is no hand-off socket."""
    endpoint = tmp_path / "dfdaemon.sock"
    with socket.socket(socket.AF_UNIX) as stock:
        stock.bind(str(endpoint))
        stock.listen()
        with pytest.raises(FeatureOff, match="is not a pantala daemon"):
            connect(str(endpoint))


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    """Said with the path."""
    with pytest.raises(Unavailable, match=r"cannot connect to the daemon at .*too long"):
        dial(str(tmp_path / ("x" * 120)))


def test_a_socket_behind_a_closed_door(tmp_path: Path) -> None:
    """In words, with what to do about it: what is named there works."""
    program = (
        "import os, sys\n"
        "from pantala.client.connection import dial\n"
        "from pantala.errors import Forbidden\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"  # no door is closed to root
        "try:\n"
        "    dial(sys.argv[1])\n"
        "except Forbidden as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "x.sock"
    tmp_path.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"},
    )
    tmp_path.chmod(0o700)
    assert done.stdout.startswith(f"no permission to use {path}: "), done.stderr
    assert "start 'dfdaemon --personal', and use that with --endpoint " in done.stdout
    uid = os.geteuid() or 65534
    assert done.stdout.endswith(f"/tmp/pantala-{uid}/dfdaemon.sock\n")  # noqa: S108  the documented place
