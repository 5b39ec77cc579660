"""A kind of task that nobody has: rows of tables, and daemons and a scheduler speak of it.

Its messages are made up here, in a shape that no kind of the contract has.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from pantala.background import Tasks
from pantala.core.sched.entities import Caller
from pantala.core.sched.rules import RULES, Limits
from pantala.core.sched.world import World
from pantala.model import announce
from pantala.model.announce import Answer, HostFacts, Registration, Report
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, scheduler_pb2
from pantala.rpc.codec import Codec, Layout
from pantala.rpc.dialects import Dialect, report_arms
from pantala.scheduler.announce_streams import AnnounceStream, AnnounceStreams
from pantala.scheduler.dialects import SchedulerDialect
from pantala.scheduler.metrics import Metrics
from pantala.scheduler.news import News
from pantala.scheduler.seeds import SeedCaller
from pantala.scheduler.waiters import Waiters
from pantala.testing.stage import MIB, task_id

#: Its number is one of the contract's, whose kind nobody serves yet.
KIND = Kind.PERSISTENT

STRING, UINT, BOOL, MESSAGE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_UINT64,
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_MESSAGE,
)


def _message(file: Any, name: str, fields: dict[str, Any], oneof: str | None = None) -> None:
    """Describe a message; a field of a text for its type is a message, and one of *oneof*."""
    described: DescriptorProto = file.message_type.add(name=name)
    if oneof is not None:
        described.oneof_decl.add(name=oneof)
    for number, (field, what) in enumerate(fields.items(), 1):
        is_message = isinstance(what, str)
        added = described.field.add(
            name=field, number=number, type=MESSAGE if is_message else what, label=1
        )
        if is_message:
            added.type_name = what
        if is_message and oneof is not None:
            added.oneof_index = 0


def _make() -> dict[str, type[Any]]:
    file = FileDescriptorProto(name="made_up.proto", package="made.up", syntax="proto3")
    file.dependency.extend([scheduler_pb2.DESCRIPTOR.name, common_pb2.DESCRIPTOR.name])
    wish = {"url": STRING, "tag": STRING, "total": UINT, "cut": UINT, "need_back_to_source": BOOL}
    ids = dict.fromkeys(("host_id", "task_id", "peer_id"), STRING)
    like: Any = scheduler_pb2.AnnouncePeerRequest.DESCRIPTOR.fields_by_name
    arms = {
        arm: "." + like[arm.replace("made_up_peer", "peer")].message_type.full_name
        for arm in report_arms("made_up_peer").values()
    }
    _message(file, "Wish", wish)
    _message(file, "Register", {"note": STRING, "wish": ".made.up.Wish"})
    _message(file, "Request", {**ids, "register": ".made.up.Register", **arms}, "request")
    _message(file, "Download", {"wish": ".made.up.Wish"})
    answers = {
        "parents": ".scheduler.v2.NormalTaskResponse",
        "origin": ".scheduler.v2.NeedBackToSourceResponse",
        "nothing": ".scheduler.v2.EmptyTaskResponse",
    }
    _message(file, "Answer", answers, "response")
    Default().AddSerializedFile(file.SerializeToString())
    return {
        name: GetMessageClass(Default().FindMessageTypeByName(f"made.up.{name}"))
        for name in ("Request", "Answer", "Download")
    }


MADE = _make()
CODEC = Codec(
    kind=KIND,
    layout=Layout(part="wish", content_length="total", piece_length="cut", piece_count="none"),
    request=MADE["Request"],
    register_arm="register",
    report_arms=report_arms("made_up_peer"),
    answer=MADE["Answer"],
    answer_arms={
        announce.CandidateParents: "parents",
        announce.NeedBackToSource: "origin",
        announce.EmptyTask: "nothing",
    },
    candidates="candidate_parents",
    download=MADE["Download"],
)
SHARED = Dialect(
    announce="AnnounceMadeUpPeer",
    codec=CODEC,
    stat=("StatMadeUpTask", object),
    delete=("DeleteMadeUpTask", object),
)
DIALECT = SchedulerDialect(
    kind=KIND,
    shared=SHARED,
    peer=common_pb2.Peer,
    task=common_pb2.Task,
    stat_peer="StatMadeUpPeer",
    delete_peer="DeleteMadeUpPeer",
    download="DownloadMadeUpTask",
)


class Peer:
    """A daemon's end of an announce stream: its words go as bytes, and answers come back."""

    def __init__(self, streams: AnnounceStreams, host: str, number: int) -> None:
        self.stream = AnnounceStream(streams, DIALECT, Caller(), lambda: None)
        request = DownloadRequest(KIND, "http://o/f", tag="t")
        self.said = Registration(host, task_id("t"), f"{host}-{number}", request, 10 * MIB, 4 * MIB)

    async def say(self, said: Registration | Report) -> Answer | None:
        """One message there, and the answer."""
        message = CODEC.encode(self.said, said).SerializeToString()
        answer = await self.stream.handle(CODEC.request.FromString(message))
        if answer is None:
            return None
        return CODEC.decode_answer(CODEC.answer.FromString(answer.SerializeToString()))


@pytest.fixture
def streams() -> AnnounceStreams:
    """Of a scheduler that serves this kind alone."""
    waiters = Waiters()
    world = World(Limits(), waiters.wake, {KIND: RULES[Kind.CACHE]})
    tasks = Tasks(lambda _: None)
    seeds = SeedCaller(world, tasks, 1.0)
    for number, name in enumerate(("a", "b"), 1):
        world.announce(HostFacts(name, name, f"10.0.0.{number}", 4000), 0.0, Caller())
    return AnnounceStreams(
        world, waiters, News(), seeds=seeds, tasks=tasks, metrics=Metrics(), chance=Random(0)
    )


async def test_a_download_of_a_kind_that_was_made_up(streams: AnnounceStreams) -> None:
    """The first peer goes to the origin, the second to the first; both finish."""
    first, second = Peer(streams, "a", 1), Peer(streams, "b", 2)

    assert await first.say(first.said) == announce.NeedBackToSource(
        "nobody has it and nobody is fetching it"
    )
    assert await first.say(announce.SourceStarted()) is None
    answer = await second.say(second.said)
    assert isinstance(answer, announce.CandidateParents)
    (parent,) = answer.candidates
    assert (parent.peer_id, parent.host.address) == ("a-1", "10.0.0.1:4000")
    assert await second.say(announce.Started()) is None
    assert await first.say(announce.SourceFinished()) is None
    assert await second.say(announce.Finished()) is None
    assert first.stream.is_over
    task = streams.world.task((KIND, task_id("t")))
    assert [peer.state.value for peer in task.peers.values()] == ["Succeeded", "Succeeded"]
    assert task.shape == (10 * MIB, 4 * MIB)
    assert task.registration.request.tag == "t"
