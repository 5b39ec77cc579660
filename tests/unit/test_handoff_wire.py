"""Frames of the hand-off socket."""

from __future__ import annotations

import json
import os
import string
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import LocalProtocolError, RemoteProtocolError
from pantala.wire.handoff import MAX_CONTENT, MAX_JSON, HandoffDecoder, encode, parse

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(st.text(max_size=10), values | st.text(), max_size=4)


def frame(data: bytes) -> bytes:
    """*data* as a frame holds it."""
    return struct.pack("!I", len(data)) + data


def test_known_bytes() -> None:
    """As docs/handoff.md draws them."""
    assert encode({"op": "info"}) == b"\x00\x00\x00\x0d" + b'{"op":"info"}'
    assert encode({"url": "é"}) == b"\x00\x00\x00\x0c" + '{"url":"é"}'.encode()


@given(st.lists(st.tuples(objects, st.binary(max_size=20)), max_size=4), st.data())
def test_how_the_bytes_are_cut_does_not_matter(
    sent: list[tuple[dict[str, Any], bytes]], data: st.DataObject
) -> None:
    """The same objects come out, each with the content that follows it."""
    wire = b"".join(encode(obj | {"inline": len(content)}) + content for obj, content in sent)
    decoder = HandoffDecoder()

    def fed() -> None:
        nonlocal wire
        cut = data.draw(st.integers(1, len(wire)))
        decoder.feed(memoryview(wire)[:cut])
        wire = wire[cut:]

    for obj, content in sent:
        while (got := decoder.next_object()) is None:
            fed()
        while (inline := decoder.take_content(got["inline"])) is None:
            fed()

        assert got == obj | {"inline": len(content)}
        assert inline == content
    assert wire == b""
    assert decoder.next_object() is None


@given(st.binary(max_size=100))
def test_garbage_is_the_peers_fault(junk: bytes) -> None:
    """An object, a wait, or RemoteProtocolError; never anything else."""
    for data in (junk, frame(junk)):
        decoder = HandoffDecoder()
        decoder.feed(data)
        try:
            while (obj := decoder.next_object()) is not None:
                assert isinstance(obj, dict)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{",
        b"{}{}",
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": "\\ud800"}',
        b'{"a": "\\UD800"}',
        b'{"a": {"\\uDCFF": 1}}',
        b'{"a": ' + b"[" * 500_000,
        b'{"a": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_is_no_object(data: bytes) -> None:
    """Every object can be printed, encoded and compared; the rest is refused here."""
    decoder = HandoffDecoder()
    decoder.feed(frame(data))
    with pytest.raises(RemoteProtocolError):
        decoder.next_object()


@given(
    st.integers(0, 2**53),
    st.text(string.hexdigits, max_size=64),
    st.integers(0, MAX_CONTENT),
    st.sampled_from(["{}", "0{}", "-{}", "+{}", " {}", "{}.0", "{}e2", '"{}"', "\u0663"]),
    st.sampled_from(["{}", "0{}", "-{}", "{}}}", "{} ", '{},"a":1', "{}.0", "1_{}", ""]),
)
def test_the_answer_for_small_content_is_read_as_any_json(
    number: int, task_id: str, size: int, one: str, other: str
) -> None:
    """There is a shorter way to read it, and that takes nothing else for it."""
    text = f'{{"id":{one.format(number)},"event":"whole","task_id":"{task_id}","inline":'
    data = f"{text}{other.format(size)}}}".encode()
    try:
        want = json.loads(data)
    except ValueError:
        with pytest.raises(RemoteProtocolError):
            parse(data)
    else:
        assert parse(data) == want


def test_a_whole_surrogate_pair_is_a_character() -> None:
    """JSON writers that keep to ASCII send them."""
    decoder = HandoffDecoder()
    decoder.feed(frame(json.dumps({"a": "🐉"}).encode()))

    assert decoder.next_object() == {"a": "🐉"}


@pytest.mark.parametrize("length", [0, MAX_JSON + 1, 2**32 - 1])
def test_a_bad_length_is_refused_before_its_bytes_arrive(length: int) -> None:
    """Four bytes are enough to hang up on."""
    decoder = HandoffDecoder()
    decoder.feed(struct.pack("!I", length))
    with pytest.raises(RemoteProtocolError, match=f"a frame of {length} bytes"):
        decoder.next_object()


def test_the_largest_frame_goes_through() -> None:
    """The limit itself is within."""
    obj = {"a": "x" * (MAX_JSON - len('{"a":""}'))}
    decoder = HandoffDecoder()
    decoder.feed(encode(obj))

    assert decoder.next_object() == obj


@pytest.mark.parametrize("length", [-1, MAX_CONTENT + 1])
def test_content_inside_a_frame_has_a_limit(length: int) -> None:
    """What is larger comes as a descriptor."""
    with pytest.raises(RemoteProtocolError, match=f"content of {length} bytes"):
        HandoffDecoder().take_content(length)


@pytest.mark.parametrize(
    "obj",
    [
        {"a": "\udcff"},
        {"a": float("nan")},
        {"a": b"bytes"},
        {"a": "x" * MAX_JSON},
    ],
)
def test_what_cannot_be_sent(obj: dict[str, Any]) -> None:
    """It would be our bug."""
    with pytest.raises(LocalProtocolError):
        encode(obj)


def test_it_imports_next_to_nothing() -> None:
    """With this module dfget starts, before anything has been downloaded."""
    heavy = ["asyncio", "dataclasses", "grpc", "hashlib", "inspect", "logging", "socket", "ssl"]
    code = (
        "import sys; import pantala.wire.handoff, pantala.model.filtered;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        # Measured for coverage, it would import much besides.
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
    )

    assert done.stdout == "[]\n"
