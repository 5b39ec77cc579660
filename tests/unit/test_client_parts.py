"""client/coverage.py, parts.py, meter.py, wishes.py, arrival.py: what needs no daemon."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.client.arrival import Arrival
from pantala.client.content import Content
from pantala.client.coverage import Coverage
from pantala.client.landing import Landing
from pantala.client.meter import Meter
from pantala.client.parts import Cut
from pantala.client.tasks import Answer, checked, the_one
from pantala.client.wishes import bounds_of, download_of, identity_of
from pantala.errors import (
    InvalidRequest,
    NoRoom,
    RemoteProtocolError,
    SourceChanged,
    SourceUnreachable,
)

spans = st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda p: (p[0], p[0] + p[1]))


def content_of(data: bytes, **header: str) -> Content:
    """What a daemon has sent."""
    arrival = Arrival("x", "/d.sock")
    arrival.on({"event": "whole", "task_id": "t", "inline": len(data)})
    arrival.header, arrival.content_length = header, 10_000_000
    landing = Landing(arrival)
    landing.have_all(data)
    return Content("http://o/x", landing)


@given(st.lists(spans))
def test_coverage_is_a_set_of_bytes(added: list[tuple[int, int]]) -> None:
    """In whatever order its spans come, and however they overlap."""
    coverage, model = Coverage(), set[int]()
    for first, end in added:
        coverage.add(first, end)
        model |= set(range(first, end))
        for offset in range(72):
            reach = offset
            while reach in model:
                reach += 1
            assert coverage.end_from(offset) == reach
            assert coverage.has(offset, offset)
            assert coverage.has(offset, offset + 3) == (set(range(offset, offset + 3)) <= model)


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 70_000)), max_size=12))
def test_ranges_are_merged_and_cut_again(wanted: list[tuple[int, int]]) -> None:
    """Each comes out as it was wanted, and what is asked for does not overlap."""
    content = random.Random(3).randbytes(400_000)
    ranges = [(first, first + size) for first, size in wanted]
    cut = Cut(ranges)
    for begin, end in cut.spans:
        cut.take((begin, end), content_of(content[begin:end]))
    assert cut.copies == [content[first:end] for first, end in ranges]
    ends = [end or 0 for _, end in cut.spans]
    assert all(one < begin for one, (begin, _) in zip(ends, cut.spans[1:], strict=False))


def test_open_ends() -> None:
    """They are asked for as they are."""
    cut = Cut([(5, None), (-3, None), (5, None)])
    assert cut.spans == [(5, None), (-3, None)]
    cut.take((5, None), content_of(b"fgh"))
    cut.take((-3, None), content_of(b"fgh"))
    assert cut.copies == [b"fgh"] * 3


def test_ranges_of_two_versions() -> None:
    """They are not given as those of one."""
    cut = Cut([(0, 3), (9_000_000, 9_000_003)])
    cut.take((0, 3), content_of(b"abc", etag="one"))
    cut.take((0, 3), content_of(b"abc"))
    with pytest.raises(SourceChanged, match="http://o/x changed while it was read: ask again"):
        cut.take((9_000_000, 9_000_003), content_of(b"abc", ETag="two"))


@pytest.mark.parametrize("part", [(3, 3), (4, 2), (-2, 5), (0, "x"), 7, (1, 2, 3), (True, 4)])
def test_ranges_that_cannot_be(part: Any) -> None:
    """They are refused here, before anybody is asked."""
    with pytest.raises(InvalidRequest, match="range: "):
        bounds_of(part)


@pytest.mark.parametrize("part", [7, (1, 2, 3), (None, None), ("x", "x"), (0, 5.0)])
def test_of_several_ranges_one_cannot_be(part: Any) -> None:
    """In the same words, also where it would have no bytes."""
    with pytest.raises(InvalidRequest, match="range: want "):
        Cut([(0, 3), part])


def test_a_rate_is_of_the_last_seconds() -> None:
    """What was long ago does not count, and a stall shows."""
    meter = Meter(0.0)
    assert meter.rate(0.0, 0) == 0
    for tick in range(1, 101):
        meter.rate(tick / 10, tick * 100)
    assert meter.rate(10.0, 10_000) == pytest.approx(1000, rel=0.05)
    assert meter.eta(10.0, 10_000, 12_000) == pytest.approx(2, rel=0.05)
    assert meter.rate(12.5, 10_000) == pytest.approx(500, rel=0.1)
    assert meter.rate(30.0, 10_000) == 0
    assert meter.eta(30.0, 10_000, 12_000) is None
    meter.rate(31.0, 0)  # all was begun anew
    assert meter.rate(32.0, 500) == pytest.approx(500)


@pytest.mark.parametrize(
    ("url", "wishes", "words"),
    [
        ("nowhere", {}, "no URL with a scheme"),
        ("http://me:secret@host:99999/", {}, "its port is above 65535"),
        ("http://a b/", {}, "a space or control character"),
        (b"http://a/", {}, "a URL is a text, not bytes"),
        ("http://a/", {"tagg": "x"}, "no option 'tagg': there are application, "),
        ("http://a/", {"timeout": 0}, "seconds above 0, not 0"),
        ("http://a/", {"timeout": True}, "seconds above 0, not True"),
        ("http://a/", {"timeout": float("nan")}, "seconds above 0, not nan"),
        ("http://a/", {"filtered_query_params": "x"}, "want a list of names"),
        ("http://a/", {"filtered_query_params": 5}, "want names, not 5"),
        ("http://a/", {"headers": "secret"}, "headers: want values by names"),
        ("http://a/", {"headers": 5}, "headers: want values by names"),
    ],
)
def test_wishes_that_make_no_sense(url: Any, wishes: dict[str, Any], words: str) -> None:
    """They are refused in words, which show nothing of a URL."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        download_of(url, wishes)
    assert "secret" not in str(caught.value)


def test_a_request() -> None:
    """What is not wished for is not said."""
    request = download_of("http://a/", {"kind": "standard", "tag": None, "headers": {"A": "b"}})
    assert request["kind"] == "STANDARD"
    assert request["request_header"] == {"A": "b"}
    assert "tag" not in request
    assert "timeout" not in identity_of("http://a/", {})
    part: Any = np.array([3, 9])
    assert download_of("http://a/", {}, part)["range"] == "3-8"


@pytest.mark.parametrize(
    ("timeout", "want"), [(None, 7200), (5, 5), (1e300, 1e9), (float("inf"), 1e9)]
)
def test_a_long_wait(timeout: float | None, want: float) -> None:
    """Has an end, which every system can wait for."""
    assert download_of("http://a/", {"timeout": timeout})["timeout"] == want


def test_whole_content_is_all_there_is() -> None:
    """Nothing is said after it."""
    arrival = Arrival("x", "/d.sock")
    step = arrival.on({"event": "whole", "task_id": "t", "inline": 5})
    assert (step.inline, step.parts, arrival.done, arrival.length) == (5, [], True, 5)
    with pytest.raises(RemoteProtocolError, match="'pieces' after 'done'"):
        arrival.on({"event": "pieces", "pieces": []})
    with pytest.raises(RemoteProtocolError, match="the content twice"):
        arrival.on({"event": "whole", "task_id": "t", "inline": 5})
    arrival = Arrival("x", "/d.sock")
    step = arrival.on({"event": "whole", "task_id": "t", "segment": True, "content_length": 7})
    assert (step.segment, step.parts) == (True, [(0, 7)])


def test_what_an_error_says() -> None:
    """All that a program can act upon."""
    told = {"event": "error", "code": "RESOURCE_EXHAUSTED", "message": "no room"}
    with pytest.raises(NoRoom, match="cannot get x: no room") as full:
        Arrival("x", "").on({**told, "needed": 7, "capacity": 5})
    assert (full.value.needed, full.value.capacity) == (7, 5)
    told = {"event": "error", "code": "UNAVAILABLE", "message": "refused"}
    with pytest.raises(SourceUnreachable, match="cannot get x: refused") as gone:
        Arrival("x", "").on({**told, "status_code": None, "header": {}, "transient": True})
    assert (gone.value.status, gone.value.transient) == (None, True)


def test_answers_that_make_no_sense() -> None:
    """They are the daemon's fault, whatever has been asked."""
    answer = Answer("it")
    answer.on({"event": "done", "failed": ["a"]})
    with pytest.raises(RemoteProtocolError, match="names no task"):
        the_one(answer)
    with pytest.raises(RemoteProtocolError, match="want an object"):
        checked(answer, "http://a/")


def test_a_segment_that_is_none() -> None:
    """What cannot be read at a place is the daemon's fault as well."""
    arrival = Arrival("it", "/nowhere")
    arrival.content_length = arrival.length = 10
    landing = Landing(arrival)
    reading, writing = os.pipe()
    os.close(writing)
    landing.have_descriptor(reading)
    for read in (lambda: landing.copy(0, 9), lambda: landing.view(0, 9)):
        with pytest.raises(RemoteProtocolError, match="segment cannot be "):
            read()
