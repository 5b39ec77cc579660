"""rpc/convert.py: messages to values, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.model.pieces import ByteRange, Piece
from pantala.model.task import Delivery, DownloadRequest, Kind, PieceRecord, TaskRecord, Traffic
from pantala.pb import common_pb2, dfdaemon_pb2, scheduler_pb2
from pantala.rpc.convert import (
    delivery,
    download_request,
    duration,
    fill_download,
    optional,
    piece_message,
    piece_record,
    plan_messages,
    seconds,
    task_message,
    timestamp,
)

FULL = DownloadRequest(
    kind=Kind.CACHE,
    url="http://o/f",
    range=ByteRange(5, 10),
    tag="t",
    application="a",
    priority=3,
    filtered_query_params=("x", "y"),
    request_header={"A": "b"},
    piece_length=4 << 20,
    disable_back_to_source=True,
    need_back_to_source=True,
    prefetch=True,
    is_prefetch=True,
    content_for_calculating_task_id="c",
    remote_ip="1.2.3.4",
    certificate_chain=(b"der", b"\xff"),
    access={"object_storage": {"region": "eu", "insecure_skip_verify": True}, "hdfs": {}},
)
HOW = Delivery(
    digest="crc32:1",
    timeout=1.5,
    need_piece_content=True,
    output_path="/out",
    overwrite=True,
)
PIECE = PieceRecord(
    number=3,
    offset=300,
    length=100,
    digest="crc32:7",
    parent_id="p",
    traffic=Traffic.REMOTE_PEER,
    cost=0.25,
    created_at=1000.5,
)


def request_message() -> Any:
    """What a caller sends, with every field that is understood."""
    message = dfdaemon_pb2.DownloadCacheTaskRequest(
        url="http://o/f",
        digest="crc32:1",
        tag="t",
        application="a",
        priority=3,  # type: ignore[arg-type]  # a number is as good as its name
        filtered_query_params=["x", "y"],
        request_header={"A": "b"},
        piece_length=4 << 20,
        output_path="/out",
        disable_back_to_source=True,
        need_back_to_source=True,
        prefetch=True,
        is_prefetch=True,
        need_piece_content=True,
        content_for_calculating_task_id="c",
        remote_ip="1.2.3.4",
        overwrite=True,
    )
    message.range.start, message.range.length = 5, 10
    message.timeout.FromMilliseconds(1500)
    message.certificate_chain.extend([b"der", b"\xff"])
    message.object_storage.region, message.object_storage.insecure_skip_verify = "eu", True
    message.hdfs.SetInParent()
    return message


def test_a_request_with_everything() -> None:
    """No field is lost."""
    assert download_request(Kind.CACHE, request_message()) == FULL
    assert delivery(request_message()) == HOW


def test_a_request_of_another_shape() -> None:
    """A message has what it has fields for."""
    message: Any = common_pb2.Download(url="u", enable_task_id_based_blob_digest=True)
    message.hugging_face.revision = "main"
    request = download_request(Kind.STANDARD, message)
    assert request == DownloadRequest(
        kind=Kind.STANDARD,
        url="u",
        enable_task_id_based_blob_digest=True,
        access={"hugging_face": {"revision": "main"}},
    )
    again = common_pb2.Download()
    fill_download(again, request)
    assert again == message
    imported = scheduler_pb2.RegisterPersistentCachePeerRequest()
    fill_download(imported, request)
    assert not imported.ListFields()
    assert download_request(Kind.STANDARD, imported).url == ""


def test_a_request_with_nothing() -> None:
    """What is unset is none, and not an empty text or zero."""
    message = dfdaemon_pb2.DownloadCacheTaskRequest(url="u")
    assert download_request(Kind.CACHE, message) == DownloadRequest(kind=Kind.CACHE, url="u")
    assert delivery(message) == Delivery()


def test_set_to_nothing_is_not_unset() -> None:
    """An empty tag is a tag, a range from 0 is a range."""
    message = dfdaemon_pb2.DownloadCacheTaskRequest(url="u", tag="", piece_length=0)
    message.range.SetInParent()
    found = download_request(Kind.CACHE, message)
    assert (found.tag, found.piece_length, found.range) == ("", 0, ByteRange(0, 0))
    assert found.application is None


def test_registering() -> None:
    """Everything a caller asked for, but how it wants to get it: that is nobody else's business."""
    message = scheduler_pb2.RegisterCachePeerRequest()
    fill_download(message, FULL)
    expected = request_message()
    common = {field.name for field in message.DESCRIPTOR.fields} & {
        field.name for field in expected.DESCRIPTOR.fields
    }

    assert message.type == common_pb2.CACHE
    how = {"digest", "timeout", "need_piece_content", "output_path"}
    assert not how & {field.name for field, _ in message.ListFields()}
    for name in common - how - {"type"}:
        assert getattr(message, name) == getattr(expected, name), name


def test_registering_little() -> None:
    """What was not asked for is not set."""
    message = scheduler_pb2.RegisterCachePeerRequest()
    fill_download(message, DownloadRequest(kind=Kind.CACHE, url="u"))
    assert {field.name for field, _ in message.ListFields()} == {"url", "type"}


def test_a_piece() -> None:
    """Never its content."""
    message = piece_message(PIECE)
    assert (message.number, message.offset, message.length) == (3, 300, 100)
    assert (message.digest, message.parent_id) == ("crc32:7", "p")
    assert message.traffic_type == common_pb2.REMOTE_PEER
    assert (message.cost.ToMilliseconds(), message.created_at.ToMilliseconds()) == (250, 1_000_500)
    assert not message.HasField("content")


def test_a_piece_there_and_back() -> None:
    """As a peer tells of it; how it came is taken from what it is told with if need be."""
    message = piece_message(PIECE)
    assert piece_record(message, Traffic.BACK_TO_SOURCE) == PIECE
    message.ClearField("traffic_type")
    assert piece_record(message, Traffic.BACK_TO_SOURCE).traffic is Traffic.BACK_TO_SOURCE
    newer = common_pb2.Piece.FromString(b"\x20\x07\x38\x63")  # length 7, traffic type 99
    found = piece_record(newer, Traffic.REMOTE_PEER)
    assert (found.length, found.traffic, found.parent_id) == (7, Traffic.REMOTE_PEER, None)


@pytest.mark.parametrize("traffic", Traffic)
def test_how_a_piece_came(traffic: Traffic) -> None:
    """For this caller; the numbers are those of the contract."""
    message = piece_message(PIECE, traffic=traffic)
    assert common_pb2.TrafficType.Name(message.traffic_type) == traffic.name


def test_a_plan() -> None:
    """Where pieces will be; nothing is known of them yet."""
    (first, second) = plan_messages([Piece(0, 0, 100), Piece(1, 100, 50)])
    assert (second.number, second.offset, second.length) == (1, 100, 50)
    assert {field.name for field, _ in first.ListFields()} == {"length"}


@pytest.mark.parametrize("complete", [False, True])
def test_a_task(*, complete: bool) -> None:
    """As this node alone knows it."""
    record = TaskRecord(
        kind=Kind.CACHE,
        id="t",
        url="u",
        created_at=1.0,
        updated_at=2.0,
        tag="x",
        piece_length=100,
        content_length=350,
    )
    message = task_message(common_pb2.CacheTask, record, {3: PIECE, 1: PIECE}, complete=complete)

    assert (message.id, message.url, message.tag) == ("t", "u", "x")
    assert (message.content_length, message.piece_count, message.peer_count) == (350, 4, 1)
    assert len(message.pieces) == 2
    assert message.state == ("Succeeded" if complete else "Running")
    assert message.has_available_peer == complete
    assert message.type == common_pb2.CACHE
    assert (message.created_at.seconds, message.updated_at.seconds) == (1, 2)


@given(st.floats(0, 1e9))
def test_times_there_and_back(value: float) -> None:
    """To the nanosecond."""
    assert seconds(duration(value)) == pytest.approx(value, abs=1e-6)
    assert timestamp(value).ToNanoseconds() == pytest.approx(value * 1e9, abs=1000)


def test_optional() -> None:
    """Unset is none."""
    message: Any = common_pb2.Piece(parent_id="")
    assert optional(message, "parent_id") == ""
    assert optional(message, "content") is None
