"""How fast a scheduler answers, and how that grows with the peers it knows.

    python bench/scheduler.py [--registrations 1000] [--holders 1 100 1000] [--pieces 0 16]
                              [--rate 500] [--peers 100 10000] [--only-decisions]
                              [--json results.json]

A scheduler runs as a process of its own; this program is its clients. Each registration is a
whole announce stream: opened, register, the answer with parents, started, so many pieces each told
by a message of its own, finished, end.

    latency     one stream at a time: from the register message to the answer, milliseconds
    throughput  64 streams at a time: streams a second, and CPU of the scheduler for each
    rate        so many streams are begun each second, whatever becomes of the others: as latency
    cold        that many peers of a task that nobody has, at once: who goes to the origin

And without any gRPC, of a task with that many peers of ours, each on a host, all under way:

    decide      what a newcomer is told, parents and partners: microseconds
    again       likewise one that asks again, and has hosts below it: the 1st, 10th, 100th that came
    memory      KiB of a peer with its edges and partners, without its host
    orphans     a fifth of them lose their only parent: until one was sent and the others wait, and
                from when that one has started until all have parents, seconds
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc.aio

from pantala import BUILD_VERSION
from pantala.core.sched.choose import ToSource
from pantala.core.sched.rules import Limits
from pantala.pb import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.transport import channel_options
from pantala.testing.cluster import Cluster, Program
from pantala.testing.stage import MIB, Stage, task_id

_AT_ONCE: Final = 64
_CHANNELS: Final = 10  # a daemon of Dragonfly opens as many to each scheduler


class Clients:
    """Daemons without anything but their announce streams."""

    def __init__(self, target: str) -> None:
        # A setting of its own keeps gRPC from giving all channels one connection.
        self._channels = [
            grpc.aio.insecure_channel(target, [*channel_options(target), ("bench.number", n)])
            for n in range(_CHANNELS)
        ]
        self._stubs: list[Any] = [scheduler_pb2_grpc.SchedulerStub(c) for c in self._channels]
        self._count = 0

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels:
            await channel.close()

    async def announce(self, host: str) -> None:
        """A host tells of itself."""
        message = common_pb2.Host(
            id=host,
            hostname=host,
            ip="10.0.0.1",
            port=4000,
            build=common_pb2.Build(git_version=BUILD_VERSION),
            network=common_pb2.Network(max_tx_bandwidth=10**10),
        )
        await self._stubs[0].AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=message))

    async def download(
        self, host: str, task: str, *, holds: bool = False, pieces: int = 0
    ) -> tuple[float, bool]:
        """One announce stream. Seconds from register to answer, and whether it was the origin."""
        self._count += 1
        ids = {"host_id": host, "task_id": task, "peer_id": f"{host}-{self._count}"}
        call = self._stubs[self._count % _CHANNELS].AnnounceCachePeer()

        async def tell(**arm: Any) -> None:
            await call.write(scheduler_pb2.AnnounceCachePeerRequest(**{**ids, **arm}))

        began = time.perf_counter()
        register = scheduler_pb2.RegisterCachePeerRequest(
            url="http://origin/file",
            need_back_to_source=holds,
            actual_content_length=1024 * MIB,
            actual_piece_length=4 * MIB,
        )
        await tell(register_cache_peer_request=register)
        answer = await call.read()
        took = time.perf_counter() - began
        to_source = answer.WhichOneof("response") == "need_back_to_source_response"
        if to_source:
            started = scheduler_pb2.DownloadCachePeerBackToSourceStartedRequest()
            await tell(download_cache_peer_back_to_source_started_request=started)
            finished = scheduler_pb2.DownloadCachePeerBackToSourceFinishedRequest()
            await tell(download_cache_peer_back_to_source_finished_request=finished)
        else:
            await tell(
                download_cache_peer_started_request=scheduler_pb2.DownloadCachePeerStartedRequest()
            )
            parent = answer.normal_cache_task_response.candidate_parents[0].id
            for number in range(pieces):
                piece = common_pb2.Piece(number=number, length=4 * MIB, digest="crc32:1")
                piece.parent_id, piece.traffic_type = parent, common_pb2.REMOTE_PEER
                piece.cost.FromMilliseconds(10 + number % 3)
                told = scheduler_pb2.DownloadPieceFinishedRequest(piece=piece)
                await tell(download_piece_finished_request=told)
            done = scheduler_pb2.DownloadCachePeerFinishedRequest()
            await tell(download_cache_peer_finished_request=done)
        while await call.read() is not grpc.aio.EOF:  # who else is under way was told meanwhile
            pass
        return took, to_source


async def _many(
    clients: Clients, count: int, at_once: int, task: str, *, pieces: int = 0
) -> list[tuple[float, bool]]:
    """*count* streams of as many peers, *at_once* at a time."""
    numbers = iter(range(count))
    results: list[tuple[float, bool]] = []

    async def worker() -> None:
        results.extend(
            [await clients.download(f"c{number % 500}", task, pieces=pieces) for number in numbers]
        )

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return results


async def _at_rate(clients: Clients, rate: float, count: int, task: str) -> list[float]:
    """Seconds from register to answer of streams that are begun so many a second, in order."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        calls = []
        for number in range(count):
            await asyncio.sleep(began + number / rate - time.perf_counter())
            calls.append(group.create_task(clients.download(f"c{number % 500}", task)))
    return sorted(call.result()[0] for call in calls)


async def _with_holders(
    clients: Clients, scheduler: Program, holders: int, options: argparse.Namespace
) -> dict[str, float]:
    registrations = options.registrations
    task = task_id(f"held by {holders}")
    for number in range(holders):
        await clients.announce(f"holder{number}")
        await clients.download(f"holder{number}", task, holds=True)
    alone = [took for took, _ in await _many(clients, registrations // 4, 1, task)]
    alone.sort()
    rated = await _at_rate(clients, options.rate, registrations, task)
    result = {
        "holders": holders,
        "latency_ms_p50": 1000 * statistics.median(alone),
        "latency_ms_p99": 1000 * alone[int(len(alone) * 0.99)],
        "rate_ms_p50": 1000 * statistics.median(rated),
        "rate_ms_p99": 1000 * rated[int(len(rated) * 0.99)],
    }
    for pieces in options.pieces:
        cpu, began = scheduler.cpu_seconds(), time.perf_counter()
        together = await _many(clients, registrations, _AT_ONCE, task, pieces=pieces)
        wall = time.perf_counter() - began
        cost = 1000 * (scheduler.cpu_seconds() - cpu) / len(together)
        result[f"talks_per_second_{pieces}_pieces"] = len(together) / wall
        result[f"cpu_ms_per_talk_{pieces}_pieces"] = cost
    return result


async def _cold(clients: Clients, peers: int) -> dict[str, float]:
    began = time.perf_counter()
    results = await _many(clients, peers, peers, task_id("cold"))
    return {
        "peers": peers,
        "told_to_go_to_the_origin": sum(to_source for _, to_source in results),
        "seconds_until_all_had_an_answer": max(took for took, _ in results),
        "seconds_in_all": time.perf_counter() - began,
    }


def _decisions(peers: int, newcomers: int) -> dict[str, float]:
    """Of a task with so many *peers*. Each newcomer leaves before the next one comes."""
    stage = Stage()
    stage.source("origin")
    for number in range(peers + 1):
        stage.host(f"h{number}", idc=f"idc{number % 4}")
    gc.collect()
    tracemalloc.start()
    running = [stage.child(f"h{number}") for number in range(peers)]
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gc.freeze()  # as a scheduler that has been there for a while: its peers are old
    took = []
    for _ in range(newcomers):
        peer = stage.register(f"h{peers}")
        took.append(_timed(partial(stage.decide, peer)))
        if (len(peer.parents), len(peer.partners)) != (3, stage.world.limits.partners):
            raise AssertionError("too few had room")
        stage.world.remove_peer(peer)
    again = {
        f"again_us_{n}": min(_timed(partial(stage.decide, running[n - 1])) for _ in range(5))
        for n in (1, 10, 100)
    }
    took.sort()
    gc.unfreeze()
    return {
        "peers": peers,
        "decide_us_p50": statistics.median(took),
        "decide_us_p99": took[int(len(took) * 0.99)],
        **again,
        "kib_per_peer": memory / peers / 1024,
        "partners_mean": statistics.mean(len(peer.partners) for peer in running),
    }


def _orphans(peers: int) -> dict[str, float]:
    """Of a task with so many *peers*, a fifth of them children of one that dies."""
    stage = Stage(Limits(uploads=peers))
    source = stage.source("origin")
    children = [stage.register(f"c{number}") for number in range(peers // 5)]
    for child in children:
        stage.decide(child)
        stage.world.link([source], child)
        stage.world.start(child, stage.now)
    for number in range(peers - len(children)):
        stage.child(f"h{number}")
    stage.world.remove_peer(source)
    began = time.thread_time()
    told = [stage.decide(peer) for peer in stage.orphans]
    waiting = time.thread_time() - began
    (sent,) = (n for n, decision in enumerate(told) if isinstance(decision, ToSource))
    elected = stage.orphans.pop(sent)
    stage.world.start_back_to_source(elected, stage.now)
    began = time.thread_time()
    for peer in stage.orphans:
        stage.decide(peer)
        stage.world.start(peer, stage.now)
    adopted = time.thread_time() - began
    with_parents = sum(bool(peer.parents) for peer in stage.orphans)
    return {
        "peers": peers,
        "orphans": len(children),
        "until_all_wait_s": waiting,
        "until_all_have_parents_s": adopted,
        "without_parents": len(stage.orphans) - with_parents,
    }


def _timed(call: Callable[[], object]) -> float:
    """Microseconds that *call* takes, of this thread's own time."""
    began = time.thread_time()
    call()
    return 1e6 * (time.thread_time() - began)


async def _measure(target: str, scheduler: Program, options: argparse.Namespace) -> dict[str, Any]:
    clients = Clients(target)
    try:
        for number in range(500):
            await clients.announce(f"c{number}")
        warm = [
            await _with_holders(clients, scheduler, holders, options) for holders in options.holders
        ]
        return {"warm": warm, "cold": await _cold(clients, 500)}
    finally:
        await clients.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--registrations", type=int, default=1000)
    parser.add_argument("--holders", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--pieces", type=int, nargs="+", default=[0, 16])
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--peers", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--only-decisions", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    decisions = [_decisions(peers, options.registrations) for peers in options.peers]
    orphans = [_orphans(peers) for peers in options.peers]
    _show(*decisions, *orphans)
    if options.only_decisions:
        return
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        scheduler = cluster.scheduler()
        target = f"127.0.0.1:{scheduler.ready['port']}"
        results = asyncio.run(_measure(target, scheduler, options))
    _show(*results["warm"], results["cold"])
    if options.json:
        results |= {"decisions": decisions, "orphans": orphans}
        options.json.write_text(json.dumps(results, indent=2))


def _show(*rows: dict[str, float]) -> None:
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
