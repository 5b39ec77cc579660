"""Stock daemons at our scheduler: what they said to theirs, byte for byte, and what ours answers.

Their side of each conversation that was recorded is played again; each answer must say what the
stock scheduler's said there, of the same peers.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from pantala.model.announce import (
    Answer,
    CandidateParents,
    EmptyTask,
    NeedBackToSource,
)
from pantala.model.task import Kind
from pantala.pb import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.dialects import DIALECTS
from pantala.rpc.transport import channel_options
from pantala.testing.announce import LIMIT
from pantala.testing.cluster import Cluster

RECORDED = Path(__file__).parents[1] / "golden" / "recorded"
CODEC = DIALECTS[Kind.STANDARD].codec

Call = dict[str, Any]


def calls(file: str, method: str) -> list[Call]:
    """Those of one of the scheduler's methods, in order."""
    recorded = json.loads((RECORDED / f"{file}.json").read_text())
    return [call for call in recorded if call["method"] == f"/scheduler.v2.Scheduler/{method}"]


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    """Of a scheduler that runs as a program, and knows the stock daemons."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Cluster(Path(directory)) as cluster,
    ):
        cluster.scheduler()
        target = f"127.0.0.1:{cluster.scheduler_port}"
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)
            for call in calls("task-downloads", "AnnounceHost"):
                said = bytes.fromhex(call["events"][0]["hex"])
                await stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest.FromString(said))
            # The second daemon's announcement was not recorded; the candidates show what is in it.
            peer = common_pb2.Host(
                id="127.0.0.11-peer", hostname="peer", ip="127.0.0.11", port=4000
            )
            await stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=peer))
            yield stub


async def play(stub: Any, call: Call) -> list[tuple[Answer, Answer]]:
    """Say what was said; beside each answer of the stock scheduler's ours."""
    answers: list[tuple[Answer, Answer]] = []
    stream = stub.AnnouncePeer()
    async with asyncio.timeout(LIMIT):
        for event in call["events"]:
            if "hex" not in event:
                continue
            data = bytes.fromhex(event["hex"])
            if event["dir"] == "client to server":
                await stream.write(CODEC.request.FromString(data))
                continue
            ours = await stream.read()
            assert isinstance(ours, Message), await stream.details()
            theirs = CODEC.answer.FromString(data)
            answers.append((CODEC.decode_answer(theirs), CODEC.decode_answer(ours)))
        assert await stream.read() is grpc.aio.EOF  # a stock daemon waits for that
        assert await stream.code() is grpc.StatusCode[call["status"]]
    return answers


def alike(theirs: Answer, ours: Answer) -> bool:
    """Whether both say the same: of parents, who and where they are."""
    if isinstance(theirs, CandidateParents) and isinstance(ours, CandidateParents):
        there, here = (
            [
                (c.peer_id, c.host.id, c.host.ip, c.host.hostname, c.host.weight, c.state)
                for c in each
            ]
            for each in (theirs.candidates, ours.candidates)
        )
        return there == here
    return type(theirs) is type(ours)


@pytest.mark.parametrize("file", ["task-downloads", "parent-cuts-off"])
async def test_stock_daemons_get_the_answers_that_they_know(stub: Any, file: str) -> None:
    """From the seed's first word to the child whose parent was cut off."""
    seen: set[type[Answer]] = set()
    for call in calls(file, "AnnouncePeer"):
        for theirs, ours in await play(stub, call):
            assert alike(theirs, ours), (theirs, ours)
            seen.add(type(ours))
    assert seen == {CandidateParents, NeedBackToSource}


async def test_what_is_known_of_their_task(stub: Any) -> None:
    """Its holders, its length, and how it is cut; in the contract's words for a task."""
    first, second, *_ = calls("task-downloads", "AnnouncePeer")
    for call in (first, second):
        await play(stub, call)
    ids = second["events"][0]["decoded"]
    request = scheduler_pb2.StatTaskRequest(host_id=ids["host_id"], task_id=ids["task_id"])
    task = await stub.StatTask(request)
    assert (task.id, task.type, task.state) == (ids["task_id"], common_pb2.STANDARD, "Succeeded")
    assert (task.content_length, task.piece_count, task.peer_count) == (5_243_003, 2, 2)
    assert task.has_available_peer
    assert (task.url, task.application) == ("http://127.0.0.1:36553/two", "")
    peer = await stub.StatPeer(
        scheduler_pb2.StatPeerRequest(
            host_id=ids["host_id"], task_id=ids["task_id"], peer_id=ids["peer_id"]
        )
    )
    assert (peer.id, peer.state, peer.priority) == (ids["peer_id"], "Succeeded", common_pb2.LEVEL6)
    assert peer.host.hostname == "peer"


async def test_an_empty_file_and_a_seed_that_says_what_it_has(stub: Any) -> None:
    """Two answers that were not recorded: nothing to fetch, and nothing but metadata."""
    (call, *_) = calls("task-downloads", "AnnouncePeer")
    register = CODEC.request.FromString(bytes.fromhex(call["events"][0]["hex"]))
    empty = CODEC.request()
    empty.CopyFrom(register)
    empty.peer_id, empty.task_id = "empty", "e" * 64
    for name in ("actual_content_length", "actual_piece_length", "actual_piece_count"):
        empty.register_peer_request.download.ClearField(name)
    register.register_peer_request.download.metadata_only = True
    for message, arm in ((empty, "empty_task_response"), (register, "metadata_only_response")):
        stream = stub.AnnouncePeer()
        await stream.write(message)
        answer = await stream.read()
        assert answer.WhichOneof("response") == arm
        ids = {name: getattr(message, name) for name in ("host_id", "task_id", "peer_id")}
        await stream.write(CODEC.request(**ids, download_peer_started_request={}))
        await stream.write(CODEC.request(**ids, download_peer_finished_request={}))
        async with asyncio.timeout(LIMIT):
            assert await stream.code() is grpc.StatusCode.OK
    child = CODEC.request()
    child.CopyFrom(register)
    child.host_id, child.peer_id = "127.0.0.11-peer", "child"
    child.register_peer_request.download.metadata_only = False
    stream = stub.AnnouncePeer()
    await stream.write(child)
    said = CODEC.decode_answer(await stream.read())
    assert isinstance(said, CandidateParents)
    assert [candidate.peer_id for candidate in said.candidates] == [register.peer_id]
    stream.cancel()
    assert CODEC.answer_arms[EmptyTask] == "empty_task_response"
