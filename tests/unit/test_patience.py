"""rpc/patience.py: what is refused for load comes again, and goes nowhere else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from pantala.errors import Busy
from pantala.model.task import Kind
from pantala.pb import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.patience import while_busy
from pantala.rpc.transport import channel_options
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE
from pantala.testing.origin import Origin, Pattern

CONTENT = Pattern(50_000, seed=11)

#: Seconds; who was refused sooner was refused for the number of calls.
_SHELVED: Final = 25.0


async def test_it_comes_again() -> None:
    """Until it is let in, or there is no time or no need."""
    refusals = iter((True, True, False))

    async def attempt() -> str:
        if next(refusals):
            raise Busy("too much")
        return "in"

    assert await while_busy(attempt) == "in"
    refusals = iter((True,))
    with pytest.raises(Busy):
        await while_busy(attempt, limit=0.0)
    refusals = iter((True,))
    with pytest.raises(Busy):
        await while_busy(attempt, needless=lambda: True)


async def test_a_refusal_for_load_is_no_lost_scheduler(tmp_path: Path, origin: Origin) -> None:
    """Sixty calls where twenty are let in: all have their content from the peer, none elsewhere."""
    paths = [f"/{number}" for number in range(30)]
    for path in paths:
        origin.put(path, CONTENT)
    async with (
        inside.scheduler(server__requestRateLimit=20) as scheduler,
        inside.daemon(tmp_path, "a", port=scheduler.port) as holder,
        inside.daemon(tmp_path, "b", port=scheduler.port) as child,
        asyncio.timeout(PATIENCE),
    ):
        await asyncio.gather(*(inside.get(holder, origin.url(path)) for path in paths))
        origin.pause()
        got = await asyncio.gather(*(inside.get(child, origin.url(path)) for path in paths))
        assert got == [CONTENT.read()] * len(paths)
        assert {h.kind for h in child.stores[Kind.CACHE]} == {Kind.CACHE}


async def test_registrations_of_one_moment_are_all_answered() -> None:
    """4,000 at once, on a few connections."""
    count, channels = 4000, 8
    answers: Counter[Any] = Counter()
    async with inside.scheduler() as scheduler, asyncio.timeout(PATIENCE * 4):
        target = f"127.0.0.1:{scheduler.port}"
        options = (*channel_options(target), ("grpc.use_local_subchannel_pool", 1))
        opened = [grpc.aio.insecure_channel(target, options) for _ in range(channels)]
        stubs: list[Any] = [scheduler_pb2_grpc.SchedulerStub(channel) for channel in opened]
        host = common_pb2.Host(id="h", hostname="h", ip="127.0.0.1", port=4000, download_port=4001)
        await stubs[0].AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=host))

        async def register(number: int) -> None:
            message = scheduler_pb2.AnnounceCachePeerRequest(
                host_id="h", task_id=f"{number:064x}", peer_id=f"p{number}"
            )
            wish = message.register_cache_peer_request
            wish.url, wish.need_back_to_source = f"http://x/{number}", True
            wish.type = common_pb2.TaskType.CACHE
            wish.piece_length = wish.actual_piece_length = 4 << 20
            wish.actual_content_length, wish.actual_piece_count = 100, 1
            done = False
            while not done:
                done = await ask(stubs[number % channels], message)

        async def ask(stub: Any, message: Any) -> bool:
            """Ask once; whether it was answered, or refused too soon."""
            began = time.monotonic()
            call = stub.AnnounceCachePeer()
            try:
                await call.write(message)
                answer = await call.read()
                answers[answer.WhichOneof("response")] += 1
            except grpc.aio.AioRpcError as error:
                # On a machine that is busy with more than this, grpcio gives up after 30 s.
                if (
                    error.code() is grpc.StatusCode.CANCELLED
                    and time.monotonic() - began > _SHELVED
                ):
                    return False
                answers[error.code(), error.details()] += 1
            finally:
                call.cancel()
            return True

        await asyncio.gather(*(register(number) for number in range(count)))
        for channel in opened:
            await channel.close()
    assert answers == {"need_back_to_source_response": count}
