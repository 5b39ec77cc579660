"""gRPC messages, and seconds of CPU, for each piece of a cold download.

    python bench/words.py [--size 1GiB] [--piece 4MiB] [--rounds 5] [--json results.json]

An origin, a scheduler, a seed and a child are started as real processes. The child is asked for a
file that nobody has: the seed reads it at the origin, and the child gets it from the seed
meanwhile. Then it is asked for one that the seed has. Each message that any of the three sends by
gRPC is counted where it is written, and what they use of the processor in that time is what the
kernel says.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import _channel

from pantala.model.units import parse_size
from pantala.pb import dfdaemon_pb2
from pantala.testing.cluster import Cluster, Node, Program
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

PATIENCE = 600.0

#: Seconds between two times that a program writes down what it has counted.
_BEAT = 0.1

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


# -- inside a program that is measured -------------------------------------------------------------


def counted(counts: Counter[str], serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """The same, but each message is counted by its type, and its arm if it has one."""

    def write(message: Any) -> bytes:
        oneofs = [oneof.name for oneof in message.DESCRIPTOR.oneofs]
        arms = [message.WhichOneof(name) for name in oneofs if name in {"request", "response"}]
        counts[".".join([message.DESCRIPTOR.name, *map(str, arms)])] += 1
        return serialize(message)

    return write


def count_all(counts: Counter[str]) -> None:
    """Count what this process sends from now on, as a client and as a server."""

    def patch(owner: Any, name: str, argument: str) -> None:
        make = getattr(owner, name)

        def patched(*args: Any, **named: Any) -> Any:
            if named.get(argument) is not None:
                named[argument] = counted(counts, named[argument])
            return make(*args, **named)

        setattr(owner, name, patched)

    for kind in _KINDS:
        patch(_channel.Channel, kind, "request_serializer")
        patch(grpc, f"{kind}_rpc_method_handler", "response_serializer")


def run_inside(directory: Path, module: str) -> None:
    """Run *module* as Python itself would, and count."""
    counts: Counter[str] = Counter()
    count_all(counts)

    def write_down() -> None:
        path, told = directory / str(os.getpid()), -1
        while True:
            if counts.total() != told:
                told = counts.total()
                temporary = path.with_suffix(".new")
                temporary.write_text(json.dumps(counts))
                temporary.rename(path)
            time.sleep(_BEAT)  # a thread of its own, to the program's end

    threading.Thread(target=write_down, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


# -- outside ---------------------------------------------------------------------------------------


def said(directory: Path, program: Program) -> Counter[str]:
    """The messages that *program* has sent so far."""
    time.sleep(3 * _BEAT)  # it writes down once a beat what it has sent
    return Counter(json.loads((directory / str(program.pid)).read_text()))


def download(node: Node, url: str, piece: int) -> float:
    """Have *node* fetch *url*; seconds."""
    request = dfdaemon_pb2.DownloadCacheTaskRequest(url=url, piece_length=piece)
    with node.channel() as channel:
        began = time.perf_counter()
        for _ in node.download_stub(channel).DownloadCacheTask(request, timeout=PATIENCE):
            pass
        return time.perf_counter() - began


def forget(nodes: list[Node]) -> None:
    """Have *nodes* delete all that they hold."""
    for node in nodes:
        for task_id in node.tasks():
            with node.channel() as channel:
                request = dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id)
                node.download_stub(channel).DeleteCacheTask(request, timeout=PATIENCE)


def measure(size: int, piece: int, rounds: int) -> list[dict[str, Any]]:
    """What each round took and said."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    found = []
    with tempfile.TemporaryDirectory(prefix="pw-") as name, Origin() as origin:
        directory = Path(name)
        (counting := directory / "counts").mkdir()
        with Cluster(directory) as cluster:
            cluster.wrapper = ("words", "--inside", str(counting))
            programs: dict[str, Program] = {"scheduler": cluster.scheduler()}
            capacity = str(size + (64 << 20))
            seed = cluster.daemon("seed", seed=True, capacity=capacity)
            child = cluster.daemon("child", capacity=capacity)
            programs |= {"seed": seed, "child": child}
            for number in range(2 * rounds + 1):
                origin.put(f"/{number}", Pattern(size, number))
                if number > rounds:
                    download(seed, origin.url(f"/{number}"), piece)
                cpu = {each: program.cpu_seconds() for each, program in programs.items()}
                words = {each: said(counting, program) for each, program in programs.items()}
                took = download(child, origin.url(f"/{number}"), piece)
                words = {e: said(counting, p) - words[e] for e, p in programs.items()}
                cpu = {each: p.cpu_seconds() - cpu[each] for each, p in programs.items()}
                # What the caller is told of each piece is its own business, and so is what each
                # server asks itself, whether it is well.
                aside = ("DownloadCacheTask", "HealthCheck")
                for each in words.values():
                    for kind in [k for k in each if k.startswith(aside)]:
                        del each[kind]
                if number:  # the first one warms up
                    found.append(
                        {"warm": number > rounds, "seconds": took, "cpu": cpu, "words": words}
                    )
                forget([seed, child])
                origin.put(f"/{number}", b"")
    return found


def show(what: str, found: list[dict[str, Any]], pieces: int) -> None:
    """Print what came out."""
    print(f"{what}: {pieces} pieces; means of {len(found)} rounds")
    everything = 0.0
    for name in ("scheduler", "seed", "child"):
        cpu = statistics.mean(each["cpu"][name] for each in found)
        words: Counter[str] = Counter()
        for each in found:
            words.update(each["words"][name])
        sent = words.total() / len(found) / pieces
        everything += sent
        print(f"{name:10} {sent:6.3f} messages a piece, {cpu / pieces * 1e3:6.2f} ms CPU a piece")
        for kind, count in words.most_common(6):
            print(f"           {count / len(found) / pieces:6.3f}   {kind}")
    took = statistics.mean(each["seconds"] for each in found)
    print(f"all        {everything:6.3f} messages a piece; {took:.2f} s")


def main() -> None:
    """Run it and print what came out."""
    if sys.argv[1:2] == ["--inside"]:
        directory, module = sys.argv[2:4]
        sys.argv[1:4] = []
        run_inside(Path(directory), module)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--piece", default="4MiB", type=parse_size)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--json", type=Path, help="write what was found here, too")
    options = parser.parse_args()
    found = measure(options.size, options.piece, options.rounds)
    for warm, what in ((False, "nobody has it"), (True, "the seed has it")):
        some = [each for each in found if each["warm"] is warm]
        show(what, some, -(-options.size // options.piece))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
