"""How soon a scheduler that was started anew knows again what hosts hold.

    python bench/recall.py [--tasks 10000] [--hosts 10000] [--each 10] [--connections 200]
                           [--json results.json]

    node     a real daemon holds so many tasks when its scheduler is killed and started anew: until
             it knows all of them, by that which was told last
    hosts    so many hosts, played by this program, are announced to a scheduler within a second,
             and tell it of so many tasks each: until all were heard. They share connections here

Seconds count from the moment that the scheduler listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

import pantala
from pantala.errors import Busy, DragonflyError
from pantala.model.announce import Registration
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import (
    common_pb2,
    holdings_pb2,
    holdings_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from pantala.rpc import status
from pantala.rpc.holdings import batch
from pantala.rpc.patience import while_busy
from pantala.rpc.transport import channel_options
from pantala.testing.cluster import Cluster, Program, until
from pantala.testing.origin import Origin, Pattern
from pantala.testing.stage import task_id

_PATIENCE = 120.0


def of_node(cluster: Cluster, origin: Origin, tasks: int) -> dict[str, float]:
    """One daemon with so many tasks."""
    scheduler = cluster.scheduler()
    node = cluster.daemon("a", capacity="2GiB")
    urls = []
    for number in range(tasks):
        origin.put(f"/{number}", Pattern(100, seed=number))
        urls.append(origin.url(f"/{number}"))
    with pantala.Client(str(node.socket)) as client:
        client.get(urls[0])
        first = client.stat(urls[0]).id
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(client.get, urls[1:]))
    scheduler.kill()
    again = cluster.scheduler(port=cluster.scheduler_port)
    began, used = time.monotonic(), node.cpu_seconds()
    with grpc.insecure_channel(f"127.0.0.1:{cluster.scheduler_port}") as channel:
        stub = cluster.scheduler_stub(channel)
        ask = scheduler_pb2.StatCacheTaskRequest(task_id=first)

        def known() -> bool:
            try:
                return bool(stub.StatCacheTask(ask, timeout=10).has_available_peer)
            except grpc.RpcError:
                return False

        until(known, "the first task known", _PATIENCE)
    return {
        "tasks": tasks,
        "seconds": time.monotonic() - began,
        "scheduler_cpu": again.cpu_seconds(),
        "daemon_cpu": node.cpu_seconds() - used,
    }


class Hosts:
    """Hosts that are played: each is announced, and tells what it holds."""

    def __init__(self, target: str, connections: int, each: int) -> None:
        # A setting of its own keeps gRPC from giving all channels one connection.
        self._channels = [
            grpc.aio.insecure_channel(target, [*channel_options(target), ("bench.number", n)])
            for n in range(connections)
        ]
        self._each = each
        self.refused = 0

    async def run(self, hosts: int) -> float:
        """Have all of them heard; the seconds that it took."""
        began = time.monotonic()
        await asyncio.gather(*map(self._one, range(hosts)))
        return time.monotonic() - began

    async def _one(self, number: int) -> None:
        await asyncio.sleep(random.random())  # noqa: S311  it spreads calls; there is nothing to guess
        channel = self._channels[number % len(self._channels)]
        name, metadata = f"host-{number}", (("pantala-secret", f"secret-{number}"),)
        host = common_pb2.Host(id=name, hostname=name, ip="127.0.0.1", port=4000)
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)
        hello = scheduler_pb2.AnnounceHostRequest(host=host)

        async def announce() -> None:
            await self._speak(stub.AnnounceHost(hello, metadata=metadata))

        held = [self._held(name, number, n) for n in range(self._each)]

        async def tell() -> None:
            call = holdings_pb2_grpc.HoldingsStub(channel).Tell(metadata=metadata)
            await self._tell(call, batch(name, (), held))

        await while_busy(announce, limit=_PATIENCE)
        await while_busy(tell, limit=_PATIENCE)

    async def _tell(self, call: Any, message: holdings_pb2.TellRequest) -> None:
        await self._speak(call.write(message))
        answer = await self._speak(call.read())
        self.refused += len(answer.refused)
        await call.done_writing()

    async def _speak(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, "scheduler") from error
        except asyncio.InvalidStateError as error:
            raise Busy("the stream has ended") from error

    def _held(self, name: str, number: int, n: int) -> Registration:
        task = (number * self._each + n) // 20  # each is held by twenty hosts, about
        request = DownloadRequest(Kind.CACHE, f"http://origin/{task}", need_back_to_source=True)
        length = 64 << 20
        return Registration(
            name, task_id(str(task)), f"{name}-{n}", request, length, 1 << 20, 64, 8
        )


async def of_hosts(program: Program, options: argparse.Namespace) -> dict[str, float]:
    """So many hosts with some tasks each."""
    target = f"127.0.0.1:{program.ready['port']}"
    hosts = Hosts(target, options.connections, options.each)
    try:
        seconds = await hosts.run(options.hosts)
    except DragonflyError as error:
        raise SystemExit(f"a host was not heard: {error}") from error
    return {
        "hosts": options.hosts,
        "each": options.each,
        "refused": hosts.refused,
        "seconds": seconds,
        "scheduler_cpu": program.cpu_seconds(),
    }


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=10_000, type=int)
    parser.add_argument("--hosts", default=10_000, type=int)
    parser.add_argument("--each", default=10, type=int)
    parser.add_argument("--connections", default=200, type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pb-") as directory:
        with Origin() as origin, Cluster(Path(directory), forks=True) as cluster:
            if options.tasks:
                results["node"] = of_node(cluster, origin, options.tasks)
        with Cluster(Path(directory)) as cluster:
            if options.hosts:
                results["hosts"] = asyncio.run(of_hosts(cluster.scheduler(), options))
    for name, row in results.items():
        print(f"{name:6}", *(f"{key} {value:g}" for key, value in row.items()), sep="  ")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
