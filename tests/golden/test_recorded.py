"""Conversations of stock Dragonfly processes, byte for byte, read with our code.

Each file in ``recorded`` lists calls; each call has events with the bytes (``hex``) and what
they mean (``decoded``, as protobuf's JSON). Of Vortex connections, the first 128 bytes each way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pantala.model.announce import (
    CandidateParents,
    EmptyTask,
    Finished,
    NeedBackToSource,
    PieceFailed,
    PieceFinished,
    Registration,
    Reschedule,
    SourceFinished,
    SourcePieceFinished,
    SourceStarted,
    Started,
)
from pantala.model.ids import DEFAULT_FILTERED_QUERY_PARAMS, task_id
from pantala.model.pieces import piece_at
from pantala.model.task import Kind
from pantala.pb import (
    common_pb2,  # noqa: F401  registers the types that the others use
    dfdaemon_pb2,
    scheduler_pb2,
)
from pantala.rpc.convert import delivery, download_request
from pantala.rpc.dialects import DIALECTS
from pantala.wire.vortex import TO_SERVER, FrameDecoder, PieceContent, PieceRequest, to_client

CALLS: list[Any] = [
    pytest.param(call, id=f"{file.stem}-{number}")
    for file in sorted(Path(__file__).with_name("recorded").glob("*.json"))
    for number, call in enumerate(json.loads(file.read_text()))
]
RPCS = [
    call for call in CALLS if call.values[0]["method"].split(".")[0] in {"/scheduler", "/dfdaemon"}
]
VORTEX = [call for call in CALLS if call.values[0]["method"] == "vortex"]

SERVICES = {
    service.full_name: service
    for file in (dfdaemon_pb2.DESCRIPTOR, scheduler_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
}


def messages(call: dict[str, Any]) -> list[tuple[type[Message], bytes, dict[str, Any]]]:
    """Each message of *call*: its class, its bytes, its meaning."""
    service, method = call["method"].removeprefix("/").split("/")
    described = SERVICES[service].methods_by_name[method]
    types = {"client to server": described.input_type, "server to client": described.output_type}
    return [
        (GetMessageClass(types[event["dir"]]), bytes.fromhex(event["hex"]), event["decoded"])
        for event in call["events"]
        if "hex" in event
    ]


def test_nothing_recorded_is_left_out() -> None:
    """Other calls are health checks, whose messages are not ours."""
    others = {call.values[0]["method"] for call in CALLS if call not in RPCS and call not in VORTEX}

    assert others == {"/grpc.health.v1.Health/Check"}
    assert sum(len(messages(call.values[0])) for call in RPCS) == 74
    assert len(VORTEX) == 4


@pytest.mark.parametrize("call", RPCS)
def test_messages_mean_what_stands_beside_them(call: dict[str, Any]) -> None:
    """No field is unknown, and read, written and read again they are the same."""
    for cls, data, meaning in messages(call):
        message = cls.FromString(data)

        assert MessageToDict(message, preserving_proto_field_name=True) == meaning
        assert ParseDict(meaning, cls()) == message
        assert cls.FromString(message.SerializeToString()) == message
        assert len(message.SerializeToString()) == len(data)


@pytest.mark.parametrize("call", RPCS)
def test_tasks_have_the_ids_that_stock_daemons_gave_them(call: dict[str, Any]) -> None:
    """Whoever registers says which download it is for."""
    for _, _, meaning in messages(call):
        download = meaning.get("register_peer_request", {}).get("download")
        if download is not None:
            found = task_id(
                Kind.STANDARD,
                download["url"],
                tag=download.get("tag"),
                application=download.get("application"),
                filtered_query_params=download.get("filtered_query_params", ()),
            )

            assert found == meaning["task_id"]


def test_stock_dfget_filters_what_we_filter() -> None:
    """Else its tasks and ours would differ."""
    filtered = [
        set(meaning["download"]["filtered_query_params"])
        for call in RPCS
        if call.values[0]["link"].startswith("tool-daemon")
        for _, _, meaning in messages(call.values[0])
        if "download" in meaning
    ]

    assert filtered
    assert all(names == set(DEFAULT_FILTERED_QUERY_PARAMS) for names in filtered)


ANNOUNCE = [call for call in RPCS if call.values[0]["method"].endswith("/AnnouncePeer")]
STANDARD = DIALECTS[Kind.STANDARD].codec


@pytest.mark.parametrize("call", ANNOUNCE)
def test_the_announce_stream_as_values(call: dict[str, Any]) -> None:
    """A peer registers and reports, the scheduler answers; said again, it means the same."""
    said: list[Any] = []
    for cls, data, _ in messages(call):
        message: Any = cls.FromString(data)
        if cls is STANDARD.answer:
            answer = STANDARD.decode_answer(message)
            assert STANDARD.decode_answer(STANDARD.encode_answer(answer)) == answer
            said.append(answer)
            continue
        report = STANDARD.decode(message)
        said.append(report)
        again = STANDARD.encode(_registration(said), report)
        assert STANDARD.decode(again) == report
        # Values have times to the microsecond, and parents by their ids.
        if not isinstance(report, SourcePieceFinished | PieceFinished | Reschedule):
            if isinstance(report, Registration):  # how its caller wants it concerns nobody else
                for name in ("output_path", "timeout"):
                    message.register_peer_request.download.ClearField(name)
            assert again == message
    kinds = [type(each) for each in said]
    assert kinds[0] is Registration
    assert kinds[1] in (CandidateParents, NeedBackToSource, EmptyTask)
    assert kinds[-1] in (Finished, SourceFinished)
    assert _registration(said).request.range is None


def _registration(said: list[Any]) -> Registration:
    assert isinstance(said[0], Registration)
    return said[0]


def test_what_stock_daemons_say() -> None:
    """The child whose parent was cut off, word by word."""
    call = next(
        call.values[0]
        for call in ANNOUNCE
        if any("piece_failed" in json.dumps(meaning) for _, _, meaning in messages(call.values[0]))
    )
    said: list[Any] = [
        STANDARD.decode_answer(cls.FromString(data))
        if cls is STANDARD.answer
        else STANDARD.decode(cls.FromString(data))
        for cls, data, _ in messages(call)
    ]
    first, offer, *rest = said
    assert (first.host_id, first.content_length, first.piece_count) == (
        "127.0.0.11-peer",
        5243003,
        2,
    )
    assert first.request.priority == 6
    assert (first.request.tag, first.concurrent_piece_count) == ("", 8)
    (parent,) = offer.candidates
    assert (parent.host.id, parent.host.address) == ("127.0.0.10-seed-seed", "127.0.0.10:46819")
    assert (parent.host.weight, parent.state) == (400e9, "Succeeded")
    lost = [PieceFailed(number, parent.peer_id) for number in (0, 1)]
    assert rest[:3] == [Started(), *lost]
    assert rest[3].parents == (parent.peer_id,)
    assert rest[4] == NeedBackToSource("scheduling exceeded RetryBackToSourceLimit")
    assert [type(each) for each in rest[5:]] == [
        *(SourceStarted, SourcePieceFinished, SourcePieceFinished, SourceFinished)
    ]
    assert rest[7].piece.digest == "crc32:470832757"


DOWNLOADS = [call for call in RPCS if call.values[0]["method"].endswith("/DownloadTask")]


@pytest.mark.parametrize("call", DOWNLOADS)
def test_what_a_daemon_is_asked_as_values(call: dict[str, Any]) -> None:
    """What is wanted, written again, and how its caller wants it: together they are all of it."""
    cls, data, _ = messages(call)[0]
    message: Any = cls.FromString(data)
    wanted = download_request(Kind.STANDARD, message.download)
    how = delivery(message.download)
    again = STANDARD.encode_download(wanted)
    again.download.output_path = how.output_path
    again.download.timeout.FromSeconds(round(how.timeout or 0))
    assert again == message


@pytest.mark.parametrize("call", VORTEX)
def test_vortex_conversations(call: dict[str, Any]) -> None:
    """The request and the answer's metadata are read, and written alike; then comes the piece."""
    asked, answered = (bytes.fromhex(event["hex"]) for event in call["events"])
    server = FrameDecoder(TO_SERVER)
    server.receive(asked)
    request = server.next_frame()
    assert isinstance(request, PieceRequest)
    assert request.encode(asked[0]) == asked
    assert server.release() == b""

    client = FrameDecoder(to_client(request.tag))
    client.receive(answered)
    content = client.next_frame()
    assert isinstance(content, PieceContent)
    head = content.encode(answered[0])
    assert head + client.release() == answered
    # The file had 5 MiB and a little; a connection that was cut off brought less than a piece.
    piece = piece_at(request.number, content_length=5_243_003, piece_length=4_194_304)
    assert (content.number, content.offset, content.length) == (
        piece.number,
        piece.offset,
        piece.length,
    )
    assert call["events"][1]["total_bytes"] <= len(head) + content.length
