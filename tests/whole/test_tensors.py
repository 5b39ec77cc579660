"""What programs do with pantala.safetensors, at a daemon that runs."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

import pantala
from pantala.errors import (
    Corrupt,
    DragonflyError,
    InvalidRequest,
    NotFound,
    OriginError,
    SourceChanged,
    TimedOut,
)
from pantala.model.pieces import piece_length_for
from pantala.testing.cluster import Cluster
from pantala.testing.measure import shared_memory
from pantala.testing.origin import Origin
from pantala.testing.origin_server import Fault
from pantala.testing.program import Node, until
from pantala.testing.tensors import Model, packed, rows

MIB = 1 << 20
#: Twenty layers of 4.8 MiB; in each, matrices, and a norm between them.
SIZES = {
    f"layers.{layer}.{name}": size
    for layer in range(20)
    for name, size in (("wq", 3 * MIB), ("norm", 8 << 10), ("wo", 1884160))
}
MODEL = Model(tuple(SIZES.items()), 5)
load, stream = pantala.safetensors.load, pantala.safetensors.stream


@pytest.fixture
def node(cluster: Cluster, origin: Origin) -> Node:
    """A daemon of a machine's, with room for two models."""
    cluster.capacity = "256MiB"
    origin.put("/model", MODEL)
    return cluster.daemon("a")


@pytest.fixture
def client(node: Node) -> Iterator[pantala.Client]:
    """Of that daemon."""
    with pantala.Client(str(node.socket), timeout=60) as client:
        yield client


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a model of 96 MiB."""
    return origin.url("/model")


def right(found: dict[str, Any], *, model: Model = MODEL) -> None:
    """Each tensor is what it must be."""
    for name, tensor in found.items():
        assert tensor.dtype == np.float32
        assert tensor.tobytes() == model.bytes_of(name), name


def is_shared(tensor: Any) -> bool:
    """It lies in a file in memory, which is the daemon's: this process makes none here."""
    address = tensor.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(first, 16) <= address < int(last, 16):
            return "memfd:" in line
    raise AssertionError(address)


def no_lease(client: pantala.Client) -> bool:
    """The daemon counts nothing as used."""
    return all(task.details["lease_count"] == 0 for task in client.list())


def test_all_of_a_file(client: pantala.Client, url: str) -> None:
    """In the order in which the tensors lie there, where the daemon has them."""
    for _ in range(2):  # cold, and hot
        found = load(url, client=client)
        assert list(found) == list(SIZES)
        right(found)
        assert all(map(is_shared, found.values()))
        assert not any(tensor.flags.writeable for tensor in found.values())
    last = found.popitem()[1]
    del found
    assert not no_lease(client)
    client.close()
    right({"layers.19.wo": last})
    del last
    until(lambda: no_lease(client), "the lease ends")


_LOAD = """
import sys, time, pantala
client = pantala.Client(sys.argv[1])
found = pantala.safetensors.load(sys.argv[2], client=client)
sum(float(tensor.sum()) for tensor in found.values())
print("ready", flush=True)
time.sleep(600)
"""


def loading(node: Node, url: str) -> subprocess.Popen[bytes]:
    """A process that has all of a file, and has read it."""
    command = [sys.executable, "-W", "ignore", "-c", _LOAD, str(node.socket), url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_two_processes_share_memory_until_they_are_killed(
    client: pantala.Client, node: Node, url: str
) -> None:
    """Together they have the file once, and afterwards nobody has it."""
    client.prefetch(url)
    both = [loading(node, url) for _ in range(2)]
    found = [shared_memory(process.pid) for process in both]
    for process in both:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert all(each.rss >= MODEL.size for each in found)
    assert sum(each.pss for each in found) <= 1.02 * MODEL.size
    assert all(each.private < 48 * MIB for each in found)  # an interpreter, and numpy
    until(lambda: no_lease(client), "the leases end")


def pieces(*spans: tuple[int, int]) -> int:
    """Bytes of the pieces that some bytes of the model lie in."""
    length = piece_length_for(MODEL.size, least=MIB)
    assert length == MIB
    touched = {n for first, end in spans for n in range(first // length, -(-end // length))}
    return length * len(touched)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(("layers.3.", "layers.4."), id="neighbours"),
        pytest.param(("layers.2.", "layers.9."), id="in two places"),
    ],
)
def test_a_tenth_of_a_cold_model(
    client: pantala.Client, origin: Origin, url: str, wanted: tuple[str, ...]
) -> None:
    """No more travels than the pieces in which it, and the header, lie."""
    found = load(url, keys=lambda name: name.startswith(wanted), client=client)
    sent = origin.sent("/model")
    assert len(found) == 6
    right(found)
    tensors = pantala.safetensors.header(url, client=client).tensors
    size = len(MODEL.head) + sum(tensors[name].nbytes for name in found)
    assert 0.09 * MODEL.size < size < 0.11 * MODEL.size
    spans = [(tensors[name].first, tensors[name].end) for name in found]
    exact = pieces((0, len(MODEL.head)), *spans)
    assert size <= sent <= exact + 8  # and a byte or two to learn how long it is
    runs = len({name.split(".")[1] for name in found}) if wanted[1] == "layers.9." else 1
    assert exact <= 1.02 * size + (2 * runs + 1) * MIB  # a piece at each end, and the header's
    assert origin.sent("/model") == sent  # by header(), too


def test_some_of_what_is_hot_is_not_copied(
    client: pantala.Client, origin: Origin, url: str
) -> None:
    """Nor asked for again."""
    client.prefetch(url)
    sent = origin.sent()
    names = ["layers.7.wq", "layers.0.norm"]
    found = load(url, keys=names, client=client)
    assert list(found) == ["layers.0.norm", "layers.7.wq"]
    right(found)
    assert all(map(is_shared, found.values()))
    assert origin.sent() == sent
    mine = load(url, keys=names, copy=True, client=client)
    right(mine)
    assert not any(map(is_shared, mine.values()))
    assert all(tensor.flags.writeable for tensor in mine.values())
    norms = load(url, keys=lambda name: "norm" in name, client=client)
    right(norms)
    # Not one, and a connection with it, for each of the places where they lie.
    assert len(norms) == 20
    assert client.list()[0].details["lease_count"] <= 4
    del found, mine, norms
    until(lambda: no_lease(client), "the leases end")


def test_some_of_what_is_on_its_way_as_a_whole(
    client: pantala.Client, origin: Origin, url: str
) -> None:
    """It is had when it is here, where it lies; the rest is not waited for."""
    stall(origin, "/model", after=60)
    other = threading.Thread(target=client.prefetch, args=(url,))
    other.start()
    try:
        until(lambda: origin.sent("/model") > 30 * MIB, "half of it is here")
        found = load(url, keys=["layers.1.wq", "layers.2.norm"], client=client)
        right(found)
        assert all(map(is_shared, found.values()))
        assert origin.sent("/model") < 0.8 * MODEL.size
    finally:
        origin.release()
        other.join(60)
    right(found)
    right(load(url, client=client))
    del found
    until(lambda: no_lease(client), "the leases end")


def test_what_is_imported() -> None:
    """Numpy when there are arrays to be made, and nothing of the other client."""
    program = (
        "import sys; from pantala import safetensors as ours; ours.load;"
        "print(sorted({'numpy', 'torch', 'asyncio', 'grpc', 'safetensors'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"[]\n"


def test_what_is_nearly_all_comes_as_a_whole(
    client: pantala.Client, origin: Origin, url: str
) -> None:
    """A norm that nobody wants shares its pieces with others: nothing is saved without it."""
    found = load(url, keys=lambda name: name != "layers.3.norm", client=client)
    assert len(found) == len(SIZES) - 1
    assert all(map(is_shared, found.values()))
    right(found)
    assert origin.sent("/model") <= MODEL.size + 8


@pytest.mark.parametrize("keys", [None, "wq"])
def test_a_stream_begins_before_the_end(
    client: pantala.Client, origin: Origin, url: str, keys: str | None
) -> None:
    """Each tensor comes once, as soon as it is here."""
    origin.fault("/model", Fault(rate=64 * MIB))
    seen, early = {}, 0
    for name, tensor in stream(
        url, keys=None if keys is None else (lambda name: keys in name), client=client
    ):
        assert name not in seen
        right({name: tensor})
        seen[name] = tensor
        early += origin.sent("/model") < 0.8 * MODEL.size * (1 if keys is None else 0.6)
    assert seen.keys() == {name for name in SIZES if keys is None or keys in name}
    assert early >= 5
    assert origin.sent("/model") <= MODEL.size + 8
    # Where it is hot, likewise; and who leaves off is not kept.
    assert [*stream(url, client=client)] if keys is None else True
    for _ in stream(url, client=client):
        break


def test_leaving_a_stream_ends_the_wait(client: pantala.Client, origin: Origin, url: str) -> None:
    """Whether one thing or several were waited for."""
    origin.put("/other", Model((("x", 30 * MIB),), 3))
    stall(origin, "/model", after=20)
    begun = time.monotonic()
    for some in (url, [url, origin.url("/other")]):
        for _ in stream(some, client=client):
            break
    assert time.monotonic() - begun < 20
    origin.release()


def stall(origin: Origin, path: str, after: int) -> None:
    """Let some answers come, and no others until the origin is told so."""
    origin.fault(path, Fault(), times=after)
    origin.fault(path, Fault(stall_after=1000))


def test_shards(client: pantala.Client, origin: Origin) -> None:
    """Only those that have something that is wanted are asked for."""
    shards = {f"m{n}.safetensors": Model(((f"t{n}", 5 * MIB), (f"u{n}", 400)), n) for n in range(4)}
    for name, model in shards.items():
        origin.put(f"/dir/{name}", model)
    weights = {tensor: name for name, model in shards.items() for tensor, _ in model.sizes}
    origin.put("/dir/m.index.json", json.dumps({"weight_map": weights}).encode())
    index = origin.url("/dir/m.index.json?x=1")
    found = load(index, keys=["t2", "u2", "u3"], client=client)
    right({"u3": found["u3"]}, model=shards["m3.safetensors"])
    right({"t2": found["t2"], "u2": found["u2"]}, model=shards["m2.safetensors"])
    assert origin.count("/dir/m0.safetensors") == origin.count("/dir/m1.safetensors") == 0

    everything = load(index, client=client)
    assert list(everything) == [name for n in range(4) for name in (f"t{n}", f"u{n}")]
    urls = [origin.url(f"/dir/m{n}.safetensors") for n in range(4)]
    again = load(urls, client=client)
    streamed = dict(stream(urls, client=client))
    for name, tensor in everything.items():
        assert tensor.tobytes() == again[name].tobytes() == streamed[name].tobytes()
    with pytest.raises(NotFound, match="no tensor 'nothing' in http"):
        load(index, keys=["t1", "nothing"], client=client)
    with pytest.raises(InvalidRequest, match=r"tensor 't0' is in .*m0.* and in .*m0"):
        load([urls[0], urls[0] + "?again"], client=client)
    with pytest.raises(InvalidRequest, match="digest: it is that of one file"):
        load(urls, client=client, digest="crc32:1")

    origin.put("/bad/m1.safetensors", shards["m1.safetensors"])
    origin.put("/bad/index.json", json.dumps({"weight_map": {"t0": "m1.safetensors"}}).encode())
    for keys in (None, ["t0"]):
        with pytest.raises(
            Corrupt, match=r"m1.safetensors has no tensor 't0', which its index has"
        ):
            load(origin.url("/bad/index.json"), keys=keys, client=client)


def test_the_first_failure_ends_all(client: pantala.Client, origin: Origin, url: str) -> None:
    """Of several files, also while others are stalled."""
    stall(origin, "/model", after=3)
    for urls in ([url, origin.url("/nowhere")], [origin.url("/nowhere"), url]):
        begun = time.monotonic()
        with pytest.raises(OriginError, match="404"):
            load(urls, client=client)
        assert time.monotonic() - begun < 20
    with pytest.raises(TimedOut):
        load([url, url + "?2"], client=client, timeout=1)
    with pytest.raises(TimedOut):
        load(url, keys=["layers.9.wq"], client=client, timeout=1)
    origin.release()


def test_what_changes_meanwhile(client: pantala.Client, origin: Origin, url: str) -> None:
    """Tensors of two versions are never mixed: not by a header of one and bytes of another."""

    def swap(name: str) -> bool:
        if name == "layers.0.wq":
            client.evict(url)
            origin.put("/model", Model(MODEL.sizes, 6))
        return name.startswith("layers.9.")

    for call in (load, stream):
        origin.put("/model", MODEL)
        with pytest.raises(SourceChanged, match="/model changed while it was read: ask again"):
            dict(call(url, keys=swap, client=client))
        client.evict(url)
    origin.put("/model", Model(MODEL.sizes, 6))
    right(load(url, keys=["layers.9.wq"], client=client), model=Model(MODEL.sizes, 6))


def test_the_library_reads_what_is_here(client: pantala.Client, origin: Origin) -> None:
    """By a path, without a copy; and what it has written is read alike."""
    rng = np.random.default_rng(1)
    tensors = {f"t{n}": rng.random((n, 300), np.float32) for n in range(30)}
    origin.put("/file", save(tensors, {"format": "np"}))
    url = origin.url("/file")
    with client.open(url) as content, safe_open(content.path, "np") as file:
        theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    ours = load(url, client=client)
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (ours[name] == tensor).all()
        assert (theirs[name] == tensor).all()
    header = pantala.safetensors.header(url, client=client)
    assert header.metadata == {"format": "np"}
    assert {n: t.shape for n, t in header.tensors.items()} == {
        n: t.shape for n, t in tensors.items()
    }
    assert load(url, keys=[], client=client) == {}
    assert sorted(name for name, _ in stream(url, client=client)) == sorted(tensors)
    (empty,) = load(url, keys=["t0"], client=client).values()
    assert empty.shape == (0, 300)


def test_a_header_that_is_longer_than_the_first_request(
    client: pantala.Client, origin: Origin
) -> None:
    """The rest of it is asked for."""
    told = rows({f"{'x' * 200}{n}": 400 for n in range(5000)})
    origin.put("/long", packed(told, bytes(400 * 5000)))
    name = f"{'x' * 200}4999"
    found = load(origin.url("/long"), keys=[name], client=client)
    assert found[name].shape == (100,)
    assert len(list(stream(origin.url("/long"), client=client))) == 5000


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "0 bytes"),
        (b"not a file of tensors" * 100, "claims a header of"),
        (packed({"a": 1}), "header of http.*/broken is broken: tensor 'a' has no dtype"),
        (packed(rows({"a": 4 * MIB}), bytes(4 * MIB - 1)), "and tensors up to"),
        ((10**8).to_bytes(8, "little") + bytes(8 * MIB), "a header of 100000000: it was cut off"),
    ],
)
def test_broken_files(client: pantala.Client, origin: Origin, file: bytes, words: str) -> None:
    """Whichever way they are asked for, in one line."""
    origin.put("/broken", file)
    url = origin.url("/broken")
    for keys in (None, ["a"]):
        with pytest.raises(DragonflyError, match=words):
            load(url, keys=keys, client=client)
        with pytest.raises(DragonflyError, match=words):
            list(stream(url, keys=keys, client=client))
    with pytest.raises(DragonflyError, match=words):
        pantala.safetensors.header(url, client=client)
    until(lambda: no_lease(client), "the leases end")


def test_a_dtype_that_cannot_be_had_costs_no_download(
    client: pantala.Client, origin: Origin
) -> None:
    """It is known by the header."""
    row = {"dtype": "F4", "shape": [32 * MIB], "data_offsets": [0, 16 * MIB]}
    origin.put("/f4", packed({"a": row}, bytes(16 * MIB)))
    with pytest.raises(InvalidRequest, match=r"tensor 'a' of http.*/f4 is of dtype F4"):
        load(origin.url("/f4"), keys=["a"], client=client)
    assert origin.sent("/f4") <= MIB + 8


def test_what_makes_no_sense(client: pantala.Client, origin: Origin, url: str) -> None:
    """It is refused before anybody is asked."""
    for arguments in ({"keys": "wq"}, {"keys": [1]}, {"framework": "jax"}, {"tagg": "x"}):
        with pytest.raises(InvalidRequest):
            load(url, client=client, **arguments)
    with pytest.raises(InvalidRequest, match="digest: it is known at the end"):
        stream(url, client=client, digest="crc32:1")
    assert origin.count() == 0


def test_a_digest_is_that_of_all_of_the_file(client: pantala.Client, origin: Origin) -> None:
    """So all of it comes, and is checked."""
    model = Model((("a", 5 * MIB), ("b", 5 * MIB)), 9)
    origin.put("/two", model)
    url = origin.url("/two")
    digest = "sha256:" + hashlib.sha256(model.head + model.data.read()).hexdigest()
    found = load(url, keys=["b"], digest=digest, client=client)
    assert list(found) == ["b"]
    right(found, model=model)
    with pytest.raises(NotFound, match="no tensor 'c' in "):
        load(url, keys=["c"], digest=digest, client=client)
    with pytest.raises(DragonflyError, match="digest mismatch"):
        load(url, keys=["b"], digest="sha256:" + "0" * 64, client=client)
