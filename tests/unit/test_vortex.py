"""Vortex frames."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import LocalProtocolError, RemoteProtocolError, VortexCode
from pantala.wire.vortex import (
    CONTENT_TAGS,
    HEADER,
    MAX_ERROR_TEXT,
    MAX_METADATA,
    REQUESTS,
    TO_SERVER,
    Close,
    ErrorFrame,
    Frame,
    FrameDecoder,
    PieceContent,
    PieceRequest,
    Tag,
    content_tag,
    to_client,
)

TASK = "6298e02aa713cc55fe7cd31c9d050691e5c0ee4866e012e0a897613b2d42ca82"
REQUEST = PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 7)
REQUEST_BYTES = bytes.fromhex("120600000044") + TASK.encode() + bytes.fromhex("00000007")
CONTENT = PieceContent(
    Tag.CACHE_PIECE_CONTENT,
    number=0,
    offset=0,
    length=12,
    digest="crc32:1475635037",
    parent_id=None,
    traffic=1,
    cost=0,
    created_at=1755669600,
)
CONTENT_BYTES = bytes.fromhex(
    "3407000000410000003d000000000000000000000000000000000000000c0000001063726333323a31"
    "343735363335303337000000000100000000000000000000000068a56460"
)
ERROR = ErrorFrame(VortexCode.NOT_FOUND, "piece x-7 not found")
ERROR_BYTES = bytes.fromhex("56ff0000001402706965636520782d37206e6f7420666f756e64")
CLOSE_BYTES = bytes.fromhex("00fe00000000")

EVERYTHING = frozenset(Tag)

requests = st.builds(
    PieceRequest,
    tag=st.sampled_from(sorted(REQUESTS)),
    task_id=st.text("0123456789abcdef", min_size=64, max_size=64),
    number=st.integers(0, 2**32 - 1),
)
content_frames = st.builds(
    PieceContent,
    tag=st.sampled_from(sorted(CONTENT_TAGS)),
    number=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**64 - 1),
    length=st.integers(0, 2**64 - 1),
    digest=st.text(max_size=20),
    parent_id=st.none() | st.text(min_size=1, max_size=20),
    traffic=st.integers(0, 255),
    cost=st.integers(0, 2**64 - 1),
    created_at=st.integers(-(2**63), 2**63 - 1),
)
failures = st.builds(ErrorFrame, code=st.sampled_from(VortexCode), text=st.text(max_size=50))
frames: st.SearchStrategy[Frame] = requests | content_frames | failures | st.just(Close())


def decode(data: bytes, allowed: frozenset[Tag] = EVERYTHING) -> tuple[Frame | None, bytes]:
    """The first frame in *data*, and what follows it."""
    decoder = FrameDecoder(allowed)
    decoder.receive(data)
    return decoder.next_frame(), decoder.release()


@pytest.mark.parametrize(
    ("frame", "packet_id", "data"),
    [
        (REQUEST, 0x12, REQUEST_BYTES),
        (CONTENT, 0x34, CONTENT_BYTES),
        (ERROR, 0x56, ERROR_BYTES),
        (Close(), 0, CLOSE_BYTES),
    ],
)
def test_known_bytes(frame: Frame, packet_id: int, data: bytes) -> None:
    """What Dragonfly's own encoder writes, and what it means; the content comes after."""
    assert frame.encode(packet_id) == data
    assert decode(data + b"test content") == (frame, b"test content")


@pytest.mark.parametrize("request_tag", sorted(REQUESTS))
def test_known_bytes_of_every_kind(request_tag: Tag) -> None:
    """But for the tag they are the same."""

    def tagged(data: bytes, tag: int) -> bytes:
        return data[:1] + bytes([tag]) + data[2:]

    asked, answered = (
        replace(REQUEST, tag=request_tag),
        replace(CONTENT, tag=content_tag(request_tag)),
    )
    assert asked.encode(0x12) == tagged(REQUEST_BYTES, request_tag)
    assert answered.encode(0x34) == tagged(CONTENT_BYTES, request_tag + 1)
    assert decode(tagged(REQUEST_BYTES, request_tag), TO_SERVER) == (asked, b"")
    assert decode(tagged(CONTENT_BYTES, request_tag + 1), to_client(request_tag)) == (answered, b"")


def test_each_request_has_its_answer() -> None:
    """The next tag."""
    assert {request: content_tag(request) for request in REQUESTS} == {
        Tag.DOWNLOAD_PIECE: Tag.PIECE_CONTENT,
        Tag.DOWNLOAD_PERSISTENT_PIECE: Tag.PERSISTENT_PIECE_CONTENT,
        Tag.DOWNLOAD_PERSISTENT_CACHE_PIECE: Tag.PERSISTENT_CACHE_PIECE_CONTENT,
        Tag.DOWNLOAD_CACHE_PIECE: Tag.CACHE_PIECE_CONTENT,
    }


@given(st.lists(frames, max_size=4), st.binary(max_size=50), st.data())
def test_how_the_bytes_are_cut_does_not_matter(
    sent: list[Frame], content: bytes, data: st.DataObject
) -> None:
    """The same frames come out, and the content after them is left whole."""
    wire = b"".join(frame.encode(data.draw(st.integers(0, 255))) for frame in sent)
    decoder = FrameDecoder(EVERYTHING)
    got: list[Frame] = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        decoder.receive(memoryview(wire)[:cut])
        wire = wire[cut:]
        while (frame := decoder.next_frame()) is not None:
            got.append(frame)
    decoder.receive(content)

    assert got == sent
    assert decoder.release() == content


@given(st.lists(frames, min_size=1, max_size=4))
def test_reading_what_is_missing_never_reads_too_far(sent: list[Frame]) -> None:
    """And comes to an end: at most three reads a frame."""
    wire = memoryview(b"".join(frame.encode() for frame in sent))
    decoder = FrameDecoder(EVERYTHING)
    for frame in sent:
        reads = 0
        while missing := decoder.missing:
            decoder.receive(wire[:missing])
            wire = wire[missing:]
            reads += 1

        assert decoder.next_frame() == frame
        assert decoder.release() == b""
        assert reads <= 3
    assert not wire


@given(st.binary(max_size=200), st.sampled_from(sorted(Tag)), st.none() | st.integers(0, 1000))
def test_garbage_is_the_peers_fault(junk: bytes, tag: Tag, claimed: int | None) -> None:
    """A frame, a wait, or RemoteProtocolError; also behind a plausible header."""
    length = len(junk) if claimed is None else claimed
    metadata = struct.pack("!I", max(len(junk) - 4, 0)) + junk[4:]
    for data in (junk, HEADER.pack(0, tag, length) + junk, HEADER.pack(0, tag, length) + metadata):
        decoder = FrameDecoder(EVERYTHING)
        decoder.receive(data)
        try:
            while decoder.next_frame() is not None:
                assert decoder.missing >= 0
        except RemoteProtocolError:
            pass


@given(content_frames, st.data())
def test_a_byte_changed_is_a_frame_a_wait_or_the_peers_fault(
    frame: PieceContent, data: st.DataObject
) -> None:
    """Lengths inside the metadata are not believed either."""
    wire = bytearray(frame.encode())
    wire[data.draw(st.integers(2, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(wire))
    except RemoteProtocolError as error:
        assert frame.tag.name in str(error)  # noqa: PT017  any of several outcomes will do


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param(HEADER.pack(0, 99, 0), "tag 99", id="unknown tag"),
        pytest.param(HEADER.pack(0, 6, 67), "67 bytes", id="short request"),
        pytest.param(HEADER.pack(0, 6, 69), "69 bytes", id="long request"),
        pytest.param(HEADER.pack(0, 7, 48), "48 bytes", id="short content"),
        pytest.param(HEADER.pack(0, 255, 0), "0 bytes", id="error without code"),
        pytest.param(HEADER.pack(0, 255, MAX_ERROR_TEXT + 2), "4098", id="endless error"),
        pytest.param(HEADER.pack(0, 254, 1), "1 bytes", id="close with a value"),
        pytest.param(HEADER.pack(0, 7, 100) + struct.pack("!I", 44), "44", id="no room"),
        pytest.param(
            HEADER.pack(0, 7, 2**31) + struct.pack("!I", MAX_METADATA + 1), "4097", id="too much"
        ),
        pytest.param(HEADER.pack(0, 7, 100) + struct.pack("!I", 97), "97", id="beyond its value"),
    ],
)
def test_a_bad_length_is_refused_before_its_bytes_arrive(header: bytes, reason: str) -> None:
    """A few bytes are enough to hang up on."""
    decoder = FrameDecoder(EVERYTHING)
    decoder.receive(header)
    with pytest.raises(RemoteProtocolError, match=reason):
        decoder.next_frame()
    with pytest.raises(RemoteProtocolError, match=reason):
        _ = decoder.missing


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (CONTENT_BYTES, TO_SERVER),
        (ERROR_BYTES, TO_SERVER),
        (REQUEST_BYTES, to_client(Tag.DOWNLOAD_CACHE_PIECE)),
        (CONTENT_BYTES, to_client(Tag.DOWNLOAD_PIECE)),
    ],
)
def test_each_side_accepts_its_own_frames_only(data: bytes, allowed: frozenset[Tag]) -> None:
    """A server no answers, a client no requests, and no answer of another kind."""
    with pytest.raises(RemoteProtocolError, match="no place here"):
        decode(data, allowed)


@pytest.mark.parametrize("task", [b"A" * 64, b"\xff" * 64, b"0" * 63 + b"\n", bytes(64)])
def test_a_request_opens_with_a_task_id(task: bytes) -> None:
    """It becomes a key."""
    with pytest.raises(RemoteProtocolError, match="no task id"):
        decode(REQUEST_BYTES[:6] + task + bytes(4))


def test_the_headers_length_may_promise_more_than_the_metadata() -> None:
    """Stock daemons go by the inner length, so a sender may have counted the content too."""
    longer = CONTENT_BYTES[:2] + struct.pack("!I", 65 + 12) + CONTENT_BYTES[6:]

    assert decode(longer + b"test content") == (CONTENT, b"test content")


def test_metadata_is_text_where_it_should_be() -> None:
    """Bytes that are no UTF-8 are no digest."""
    broken = CONTENT_BYTES.replace(b"crc32", b"crc3\xff")
    with pytest.raises(RemoteProtocolError, match="bad CACHE_PIECE_CONTENT metadata"):
        decode(broken)


def test_errors_yet_unknown() -> None:
    """Code 9 is UNKNOWN, and odd bytes in the text do not hide the code."""
    assert decode(bytes.fromhex("00ff00000003 09 6fff")) == (
        ErrorFrame(VortexCode.UNKNOWN, "o\ufffd"),
        b"",
    )


def test_long_error_texts_are_cut_between_characters() -> None:
    """So that whoever reads them strictly still can."""
    data = ErrorFrame(VortexCode.INTERNAL, "x" + "é" * MAX_ERROR_TEXT).encode()
    frame, rest = decode(data)

    assert isinstance(frame, ErrorFrame)
    assert frame.text == "x" + "é" * (MAX_ERROR_TEXT // 2 - 1)
    assert rest == b""


@pytest.mark.parametrize(
    "frame",
    [
        PieceRequest(Tag.CACHE_PIECE_CONTENT, TASK, 0),
        PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK.upper(), 0),
        PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, "é" * 64, 0),
        PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK + "00", 0),
        PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, -1),
        PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 2**32),
        PieceContent(Tag.DOWNLOAD_PIECE, 0, 0, 1, "", None, 1, 0, 0),
        PieceContent(Tag.PIECE_CONTENT, 0, -1, 1, "", None, 1, 0, 0),
        PieceContent(Tag.PIECE_CONTENT, 0, 0, 1, "", None, 256, 0, 0),
        PieceContent(Tag.PIECE_CONTENT, 0, 0, 1, "", "p" * MAX_METADATA, 1, 0, 0),
    ],
)
def test_what_the_protocol_forbids_is_never_sent(frame: Frame) -> None:
    """It would be our bug."""
    with pytest.raises(LocalProtocolError):
        frame.encode()


@pytest.mark.parametrize("value", [b"", bytes(67), bytes(69)])
def test_values_are_checked_by_themselves_too(value: bytes) -> None:
    """For whoever has a value without its frame."""
    with pytest.raises(RemoteProtocolError, match="want 68"):
        PieceRequest.decode(Tag.DOWNLOAD_PIECE, value)
    with pytest.raises(RemoteProtocolError, match="without a code"):
        ErrorFrame.decode(b"")
