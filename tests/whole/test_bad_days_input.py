"""What users and strangers do wrong: they read one clear line, and nobody else notices."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pantala.testing.cluster import Cluster, Program, until
from pantala.testing.origin import Fault, Origin, Pattern
from pantala.wire.vortex import PieceRequest, Tag

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)
RIGHT = f"sha256:{CONTENT.digest()}"
WRONG = "sha256:" + "0" * 64


# Digests


@pytest.mark.parametrize(
    "digest", ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256", "sha256:xyz", "crc32:-1"]
)
def test_a_malformed_digest(cluster: Cluster, origin: Origin, digest: str) -> None:
    """Refused before anybody is asked for a byte."""
    origin.put("/f", CONTENT)
    got = cluster.get(cluster.daemon("a"), origin.url("/f"), "--digest", digest)
    assert got.code == 2
    assert f"'{digest}': want crc32:<decimal" in got.stderr.splitlines()[-1]
    assert not origin.count()
    assert not got.path.exists()


@pytest.mark.usefixtures("kind")
def test_a_wrong_digest_is_its_owners_trouble(cluster: Cluster, origin: Origin) -> None:
    """Those who expect something else fail; all others with the same task get it."""
    cluster.scheduler()
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=20 * MIB))
    url = origin.url("/f")
    begun = [
        cluster.begin(a, url, *args) for args in (["--digest", WRONG], [], ["--digest", RIGHT])
    ]
    wrong, plain, right = (cluster.finish(*each) for each in begun)
    assert f"expected {WRONG}, actual {RIGHT}" in wrong.refusal
    assert wrong.result["error"]["code"] == "DATA_LOSS"
    assert plain.bytes() == right.bytes() == CONTENT.read()
    assert right.result["digest_verified"]
    # The origin is read once more for it, and not again for some time.
    assert origin.sent("/f") <= 2 * CONTENT.size + 9  # a byte for each look at its length
    assert WRONG in cluster.get(a, url, "--digest", WRONG).refusal
    assert origin.sent("/f") <= 2 * CONTENT.size + 9  # a byte for each look at its length
    assert cluster.get(cluster.daemon("b"), url, "--digest", RIGHT).bytes() == CONTENT.read()


# Outputs


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("{dir}/missing/file", "{dir}/missing is not a directory"),
        ("{dir}/named", "is a directory"),  # by what the URL is named
        ("{dir}/taken", "exists already: use --overwrite to replace it"),
        ("/sys/kernel/file", "cannot write /sys/kernel/file: Permission denied"),
        ("/proc/self/file", "cannot write /proc/self/file: No such file or directory"),
    ],
)
def test_an_output_that_cannot_be(
    cluster: Cluster, origin: Origin, output: str, words: str
) -> None:
    """Refused before anybody is asked for a byte, and nothing there is touched."""
    taken = cluster.directory / "taken"
    taken.write_text("precious")
    (cluster.directory / "named" / "f").mkdir(parents=True)
    origin.put("/f", CONTENT)
    path = Path(output.format(dir=cluster.directory))
    got = cluster.get(cluster.daemon("a"), origin.url("/f"), output=path)
    assert got.code == 1
    (line,) = got.stderr.splitlines()
    assert words.format(dir=cluster.directory) in line
    assert taken.read_text() == "precious"
    assert not origin.count()


@pytest.mark.usefixtures("kind")
def test_a_full_disk(cluster: Cluster, origin: Origin) -> None:
    """The user reads so; the daemon has the content all the same."""
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    got = cluster.get(a, origin.url("/f"), output=Path("/dev/full"))
    assert got.code == 1
    assert got.stderr == "dfget: cannot write /dev/full: No space left on device\n"
    until(
        lambda: [t.HasField("finished_at") for t in a.tasks().values()] == [True],
        "all of it held",
    )


@pytest.mark.usefixtures("kind")
def test_an_output_that_appears_meanwhile(cluster: Cluster, origin: Origin) -> None:
    """Whoever came first keeps the name."""
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=8 * MIB))
    process, path = cluster.begin(a, origin.url("/f"))
    until(lambda: a.store()["leased"], "the download begun")
    path.write_text("precious")
    got = cluster.finish(process, path)
    assert got.code == 1
    assert got.stderr == f"dfget: {path} has come to exist meanwhile\n"
    assert path.read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_dfget_is_killed(cluster: Cluster, origin: Origin, number: signal.Signals) -> None:
    """However it ends, it leaves no file behind, and the daemon has its memory back."""
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=8 * MIB))
    process, path = cluster.begin(a, origin.url("/f"))
    until(lambda: origin.sent("/f") > MIB, "some of it sent")
    process.send_signal(number)
    got = cluster.finish(process, path)
    if number is signal.SIGKILL:
        assert got.code == -number
    else:
        assert got.code == 128 + number
        assert got.stderr.startswith(f"dfget: stopped by {number.name}; the daemon goes on with ")
        assert got.stderr.count("\n") == 1
    assert not [entry for entry in cluster.directory.iterdir() if path.name in entry.name]
    until(lambda: not a.store()["leased"], "the lease ended")


# Starting


def _refused(start: Program) -> str:
    """The one line of a daemon that would not start."""
    assert start.process.wait(30) == 1
    (line,) = start.log.splitlines()
    return line


def test_an_unknown_key(cluster: Cluster) -> None:
    """It is named, with the file and the key that was probably meant."""
    config = {"download": {"piceTimeout": "3s"}}
    line = _refused(cluster.daemon("a", "--strict", config=config, wait=False))
    assert "a.yaml" in line
    assert "download.piceTimeout" in line
    assert "pieceTimeout" in line.replace("piceTimeout", "")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("upload", "upload.server.port"),
        ("storage", "storage.server.tcpPort"),
        ("metrics", "metrics.server.port"),
        ("health", "health.server.port"),
    ],
)
def test_a_port_that_is_taken(cluster: Cluster, name: str, key: str) -> None:
    """The second daemon says which port it is and which key to change; the first goes on."""
    first = cluster.daemon("a")
    port = str(first.ports[name])
    line = _refused(cluster.daemon("b", f"--{name}-port", port, wait=False))
    assert re.fullmatch(
        rf"dfdaemon: cannot listen on [\d.]+:{port}: Address already in use; "
        rf"set {re.escape(key)} to another port, or to 0 for any free one",
        line,
    )
    assert not list(cluster.directory.glob("b*.sock"))


def test_two_daemons_on_one_socket(cluster: Cluster) -> None:
    """The second is refused and takes nothing from the first."""
    first = cluster.daemon("a")
    same = ("--socket", str(first.socket))
    line = _refused(cluster.daemon("b", *same, wait=False))
    assert str(first.socket) in line
    assert "download.server.socketPath" in line
    assert first.socket.is_socket()


def test_two_daemons_of_one_name(cluster: Cluster) -> None:
    """Schedulers would take them for one: the second is refused."""
    first = cluster.daemon("a")
    name = str(first.ready["host"]).removeprefix("127.0.0.1-")
    line = _refused(cluster.daemon("b", "--hostname", name, wait=False))
    assert f"host {first.ready['host']}" in line
    assert "--hostname" in line


def test_what_a_killed_daemon_leaves(cluster: Cluster, origin: Origin) -> None:
    """Its sockets are no obstacle to the next, and until then users read that it is gone."""
    origin.put("/f", CONTENT)
    first = cluster.daemon("a")
    first.kill()
    assert first.socket.is_socket()
    line = cluster.get(first, origin.url("/f")).refusal
    assert line == (
        f"no daemon at {first.socket}: its socket is left from one that has ended; "
        "start dfdaemon, or name its socket with --endpoint"
    )
    second = cluster.daemon("a")
    assert cluster.get(second, origin.url("/f")).bytes() == CONTENT.read()


# Stopping


def test_stopping_waits_for_downloads(cluster: Cluster, origin: Origin) -> None:
    """SIGTERM: what is under way is finished, nothing new begun, and everybody is told."""
    scheduler = cluster.scheduler()
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=5 * MIB))
    download = cluster.begin(a, origin.url("/f"))
    until(lambda: origin.sent("/f") > MIB, "some of it sent")
    a.signal(signal.SIGTERM)
    a.wait_for("stopping")
    assert "the daemon is stopping" in cluster.get(a, origin.url("/g")).refusal
    assert cluster.finish(*download).bytes() == CONTENT.read()
    assert a.process.wait(30) == 0
    assert not a.errors
    assert not list(cluster.directory.glob("a*.sock"))
    assert scheduler.wait_for("host left")["host"] == a.ready["host"]


def test_stopping_does_not_wait_for_ever(cluster: Cluster, origin: Origin) -> None:
    """A download that takes longer than the grace ends with one line."""
    scheduler = cluster.scheduler()
    a = cluster.daemon("a")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(stall_after=MIB // 2))
    download = cluster.begin(a, origin.url("/f"))
    until(lambda: a.store()["leased"], "the download begun")
    a.signal(signal.SIGTERM)
    line = cluster.finish(*download).refusal
    assert "the daemon is stopping" in line
    assert a.process.wait(30) == 0
    assert not a.errors
    assert not list(cluster.directory.glob("a*.sock"))
    assert scheduler.wait_for("host left")["host"] == a.ready["host"]


# Strangers

_REQUEST = PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, "f" * 64, 0).encode()

_TO_PIECE_PORT = {
    "noise": random.Random(1).randbytes(4096),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "nothing": b"",
    "a byte": _REQUEST[:1],
    "half a frame": _REQUEST[:10],
    "4 GiB": struct.pack("!BBI", 0, Tag.DOWNLOAD_CACHE_PIECE, 2**32 - 1),
    "an answer": struct.pack("!BBI", 0, Tag.CACHE_PIECE_CONTENT, 60) + bytes(60),
    "a thousand requests": _REQUEST * 1000,
}

_OBJECT = b'{"op": "download", "url": "http://127.0.0.1:1/f"}'

_TO_HAND_OFF = {
    "noise": random.Random(2).randbytes(4096),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "nothing": b"",
    "half a length": b"\0\0",
    "half a frame": struct.pack("!I", len(_OBJECT)) + _OBJECT[:10],
    "4 GiB": struct.pack("!I", 2**32 - 1) + _OBJECT,
    "no object": struct.pack("!I", 0),
    "a list": struct.pack("!I", 2) + b"[]",
    "no text": struct.pack("!I", 2) + b"\xff\xff",
    "too deep": struct.pack("!I", 1 << 19) + b"[" * (1 << 19),
    "two requests": struct.pack("!I", len(_OBJECT)) + _OBJECT + b"more",
}


@pytest.mark.parametrize(
    ("family", "noises"),
    [(socket.AF_INET, _TO_PIECE_PORT), (socket.AF_UNIX, _TO_HAND_OFF)],
    ids=["piece port", "hand-off socket"],
)
def test_strangers(
    cluster: Cluster, origin: Origin, family: socket.AddressFamily, noises: Mapping[str, bytes]
) -> None:
    """Whatever they say, and whether they leave or stay: children and programs are served."""
    cluster.scheduler()
    a, b = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(a, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    before = a.descriptors()
    where: Any = str(a.handoff)
    if family == socket.AF_INET:
        where = ("127.0.0.1", a.ports["storage"])
    with contextlib.ExitStack() as those_who_stay:
        for noise in noises.values():
            _speak(family, where, noise).close()
            those_who_stay.enter_context(_speak(family, where, noise))
        assert cluster.get(a, origin.url("/f")).bytes() == CONTENT.read()
        got = cluster.get(b, origin.url("/f"))
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_peers"] == CONTENT.size
    b.stop()
    until(lambda: a.descriptors() <= before, "every descriptor closed")


def _speak(family: socket.AddressFamily, where: Any, data: bytes) -> socket.socket:
    """Say *data* there."""
    stranger = socket.socket(family)
    stranger.settimeout(30)
    stranger.connect(where)
    with contextlib.suppress(ConnectionError):  # it may hang up on us while we speak
        stranger.sendall(data)
    return stranger
