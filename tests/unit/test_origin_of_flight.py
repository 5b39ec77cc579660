"""daemon/downloading/origin.py, a real HTTP client, a real origin that misbehaves when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pantala.daemon.downloading.origin import Origin, Probe, SourceFetch, StreamFetch
from pantala.daemon.downloading.reading import CHUNK, OutOfTurn
from pantala.errors import OriginError, SourceChanged, StoreFailed
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece, pieces_for
from pantala.ports import MemorySink
from pantala.sources.http import HttpSettings, HttpSource
from pantala.testing import origin as web
from pantala.testing.content import Pattern
from pantala.testing.origin import Fault
from pantala.testing.sinks import NarrowSink

SIZE = 10_000_000
PIECE = 4_000_000
CONTENT = Pattern(SIZE)
PIECES = pieces_for(None, content_length=SIZE, piece_length=PIECE)

Make = Callable[..., Origin]


@pytest.fixture
def make(origin: web.Origin) -> Iterator[Make]:
    """Makes origins of ``/f``, as flights do."""
    origin.put("/f", CONTENT)
    source = HttpSource(HttpSettings(max_retries=0))
    made: list[Origin] = []

    def make(*, timeout: float = 20.0, retries: int = 0, path: str = "/f") -> Origin:
        made.append(Origin(source, origin.url(path), {"X": "y"}, timeout=timeout, retries=retries))
        return made[-1]

    yield make
    for each in made:
        each.close()
    source.close()


def get(origin: Origin, piece: Piece) -> bytes:
    """One piece, as a flight would."""
    into = memoryview(bytearray(piece.length))
    assert SourceFetch(origin, piece, MemorySink(into)).run() == piece_digest(crc32(into))
    return bytes(into)


def data(piece: Piece) -> bytes:
    """What it must be."""
    return CONTENT.read(piece.offset, piece.length)


# -- probing -------------------------------------------------------------------------------------


def test_a_probe_asks_for_one_byte(make: Make, origin: web.Origin) -> None:
    """And learns what the content is."""
    found = make()
    Probe(found).run()

    assert (found.total, found.in_order) == (SIZE, False)
    assert CONTENT.etag.strip('"') in found.version
    assert found.header["Content-Length"] == str(SIZE)
    assert [seen.headers["range"] for seen in origin.requests] == ["bytes=0-0"]
    assert origin.requests[0].headers["x"] == "y"
    assert origin.sent() <= 1


def test_an_empty_file(make: Make, origin: web.Origin) -> None:
    """Of which there is no first byte."""
    origin.put("/f", b"")
    found = make()
    Probe(found).run()
    assert found.total == 0


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=500)])
def test_an_origin_that_refuses(make: Make, origin: web.Origin, fault: Fault) -> None:
    """Its answer is quoted."""
    origin.fault("/f", fault)
    with pytest.raises(OriginError, match=str(fault.status)) as caught:
        Probe(make()).run()
    assert caught.value.status == fault.status


def test_an_origin_that_is_away(make: Make, origin: web.Origin) -> None:
    """Nobody listens."""
    origin.pause()
    with pytest.raises(OriginError, match="refused"):
        Probe(make()).run()


# -- pieces --------------------------------------------------------------------------------------


def test_piece_by_piece(make: Make, origin: web.Origin) -> None:
    """In any order; not a byte more than they have."""
    found = make()
    Probe(found).run()
    for piece in reversed(PIECES):
        assert get(found, piece) == data(piece)
    assert origin.sent() <= SIZE + 1


def test_several_at_once(make: Make) -> None:
    """Each from a connection of its own."""
    found = make()
    Probe(found).run()
    with ThreadPoolExecutor(len(PIECES)) as executor:
        assert list(executor.map(lambda piece: get(found, piece), PIECES)) == [
            data(piece) for piece in PIECES
        ]


def test_a_transfer_that_breaks_is_taken_up_where_it_broke(make: Make, origin: web.Origin) -> None:
    """But for less than a chunk, what has come need not come again."""
    found = make(retries=2)
    Probe(found).run()
    origin.fault("/f", Fault(cut_after=2 * CHUNK + 1000), times=1)
    origin.fault("/f", Fault(cut_after=CHUNK), times=1)
    assert get(found, PIECES[1]) == data(PIECES[1])

    end = 2 * PIECE - 1
    assert [seen.headers["range"] for seen in origin.requests[1:]] == [
        f"bytes={PIECE}-{end}",
        f"bytes={PIECE + 2 * CHUNK}-{end}",
        f"bytes={PIECE + 3 * CHUNK}-{end}",
    ]


def test_a_transfer_that_breaks_too_often(make: Make, origin: web.Origin) -> None:
    """There is an end to patience."""
    found = make(retries=1)
    Probe(found).run()
    origin.fault("/f", Fault(cut_after=10))
    with pytest.raises(OriginError):
        get(found, PIECES[0])
    assert origin.count() == 3


def test_a_slow_origin_is_not_a_broken_one(make: Make, origin: web.Origin) -> None:
    """One that brings something each time may break as often as it likes."""
    found = make(retries=1)
    Probe(found).run()
    origin.fault("/f", Fault(cut_after=CHUNK), times=3)
    assert get(found, PIECES[0]) == data(PIECES[0])


def test_what_will_not_pass_is_not_tried_again(make: Make, origin: web.Origin) -> None:
    """A 404 stays one."""
    found = make(retries=5)
    Probe(found).run()
    origin.fault("/f", Fault(status=404))
    with pytest.raises(OriginError, match="404"):
        get(found, PIECES[0])
    assert origin.count() == 2


def test_a_stalled_origin(make: Make, origin: web.Origin) -> None:
    """It is given up after the time that it may be silent."""
    found = make(timeout=0.2)
    Probe(found).run()
    origin.fault("/f", Fault(stall_after=5000))
    with pytest.raises(OriginError):
        get(found, PIECES[0])


# -- held to its word ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [Pattern(SIZE, seed=1), Pattern(SIZE + 1), Pattern(SIZE - 1), Pattern(10)]
)
def test_a_file_that_changes(make: Make, origin: web.Origin, other: Pattern) -> None:
    """Other bytes, another length, or none where the piece was: never a mix."""
    found = make(retries=5)
    Probe(found).run()
    origin.put("/f", other)
    into = memoryview(bytearray(PIECES[1].length))
    with pytest.raises(SourceChanged):
        SourceFetch(found, PIECES[1], MemorySink(into)).run()
    assert not any(into[:100])


def test_a_file_that_changes_in_the_middle_of_a_piece(make: Make, origin: web.Origin) -> None:
    """A broken transfer is not taken up with other bytes."""
    found = make(retries=5)
    Probe(found).run()
    origin.fault("/f", Fault(cut_after=2000), times=1)
    origin.fault("/f", Fault(content=Pattern(SIZE, seed=1)))
    with pytest.raises(SourceChanged, match="the origin's content changed"):
        get(found, PIECES[0])


def test_what_the_swarm_knows(make: Make, origin: web.Origin) -> None:
    """It is held to that, without a probe; a version that was not known is learnt."""
    found = make()
    found.expect(SIZE, "")
    assert get(found, PIECES[2]) == data(PIECES[2])
    assert found.version
    origin.put("/f", Pattern(SIZE, seed=1))
    with pytest.raises(SourceChanged):
        get(found, PIECES[0])

    other = make()
    other.expect(SIZE + 1, "")
    with pytest.raises(SourceChanged, match=f"{SIZE} bytes, not {SIZE + 1}"):
        get(other, PIECES[0])


# -- origins whose answers cannot be told apart ----------------------------------------------------


SILENT = {"ETag": ""}


def test_an_origin_that_names_no_version(make: Make, origin: web.Origin) -> None:
    """All is read from one answer, which has a version that is nobody else's."""
    origin.put("/f", CONTENT, headers=SILENT)
    found, other = make(), make()
    for each in (found, other):
        Probe(each).run()
        assert each.in_order
    assert found.version != other.version
    before = origin.count()
    for piece in PIECES:
        assert get(found, piece) == data(piece)
    assert origin.count() == before + 1


def test_no_more_is_asked_for_than_is_wanted(make: Make, origin: web.Origin) -> None:
    """Where the end is known; what is wanted later takes another answer that begins alike."""
    origin.put("/f", CONTENT, headers=SILENT)
    found = make(retries=1)
    Probe(found).run()
    found.until = PIECE
    assert get(found, PIECES[0]) == data(PIECES[0])
    assert origin.sent() <= 1 + PIECE
    found.until = SIZE
    for piece in PIECES[1:]:
        assert get(found, piece) == data(piece)


def test_the_first_answer_names_none(make: Make, origin: web.Origin) -> None:
    """Without a probe that shows only with a piece, which then comes in its turn."""
    origin.put("/f", CONTENT, headers=SILENT)
    found = make()
    found.expect(SIZE, "")
    with pytest.raises(OutOfTurn):
        get(found, PIECES[0])
    assert get(found, PIECES[0]) == data(PIECES[0])


@pytest.mark.parametrize("version", ["etag:1", "reading:1"])
def test_it_cannot_go_on_with_what_is_here(make: Make, origin: web.Origin, version: str) -> None:
    """Whether that has a name or is of another reading."""
    origin.put("/f", CONTENT, headers=SILENT)
    found = make()
    found.expect(SIZE, version)
    with pytest.raises(SourceChanged, match="earlier reading") as caught:
        get(found, PIECES[0])
    assert (caught.value.version, caught.value.wavers) == ("", False)


def test_a_piece_before_where_it_began(make: Make, origin: web.Origin) -> None:
    """It would be of another answer; one that was given up may be read again."""
    origin.put("/f", CONTENT, headers=SILENT)
    found = make()
    Probe(found).run()
    for piece in (PIECES[1], PIECES[2], PIECES[1]):
        assert get(found, piece) == data(piece)
    with pytest.raises(SourceChanged):
        get(found, PIECES[0])


def test_who_wavers(make: Make, origin: web.Origin) -> None:
    """Its own answers disagree: not the same as to disagree with what others say."""
    found, other = make(), make()
    Probe(found).run()
    other.expect(SIZE, "etag:1")
    origin.fault("/f", Fault(headers={"ETag": '"2"'}))
    with pytest.raises(SourceChanged) as caught:
        get(found, PIECES[0])
    assert (caught.value.version, caught.value.wavers) == ('etag:"2"', True)
    with pytest.raises(SourceChanged) as caught:
        get(other, PIECES[0])
    assert (caught.value.version, caught.value.wavers) == ('etag:"2"', False)


# -- origins that ignore ranges ------------------------------------------------------------------


def test_read_from_front_to_back(make: Make, origin: web.Origin) -> None:
    """Once: what it sends when it is probed is the download's beginning."""
    origin.fault("/f", Fault(no_range=True))
    found = make()
    Probe(found).run()
    assert (found.total, found.in_order) == (SIZE, True)
    for piece in PIECES:
        assert get(found, piece) == data(piece)
    assert (origin.count(), origin.sent()) == (1, SIZE)


def test_a_piece_in_between_is_passed_over(make: Make, origin: web.Origin) -> None:
    """Going back takes another reading."""
    origin.fault("/f", Fault(no_range=True))
    found = make()
    Probe(found).run()
    assert get(found, PIECES[2]) == data(PIECES[2])
    assert origin.count() == 1
    assert get(found, PIECES[0]) == data(PIECES[0])
    assert get(found, PIECES[1]) == data(PIECES[1])
    assert origin.count() == 2


def test_it_breaks_off(make: Make, origin: web.Origin) -> None:
    """Then it is read again from the front, and all before the break is forgotten."""
    origin.fault("/f", Fault(no_range=True, cut_after=5_000_000), times=1)
    origin.fault("/f", Fault(no_range=True))
    found = make(retries=1)
    Probe(found).run()
    for piece in PIECES:
        assert get(found, piece) == data(piece)
    assert origin.count() == 2


def test_it_shows_only_when_a_piece_is_asked_for(make: Make, origin: web.Origin) -> None:
    """Nobody has probed it."""
    origin.fault("/f", Fault(no_range=True))
    found = make()
    found.expect(SIZE, "")
    assert get(found, PIECES[1]) == data(PIECES[1])
    assert found.in_order
    assert get(found, PIECES[2]) == data(PIECES[2])
    assert origin.count() == 1


def test_it_changes_between_two_readings(make: Make, origin: web.Origin) -> None:
    """It is held to its word as any other."""
    origin.fault("/f", Fault(no_range=True))
    found = make()
    Probe(found).run()
    get(found, PIECES[1])
    origin.put("/f", Pattern(SIZE, seed=1))
    with pytest.raises(SourceChanged):
        get(found, PIECES[0])


# -- origins that do not say how long a file is --------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(chunked=True, no_range=True),
        Fault(until_close=True, no_range=True),
    ],
)
def test_a_stream(make: Make, origin: web.Origin, fault: Fault) -> None:
    """Read to its end, which is known when it is there."""
    origin.fault("/f", fault)
    found = make()
    Probe(found).run()
    assert (found.total, found.in_order) == (None, True)
    body = found.take_stream()
    received = b""
    while True:
        into = memoryview(bytearray(PIECE))
        count = StreamFetch(body, MemorySink(into)).run()
        received += into[:count]
        if count < PIECE:
            break
    body.close()

    assert received == CONTENT.read()
    assert origin.count() == 1


# -- sinks that are not memory -------------------------------------------------------------------


def test_a_piece_into_a_narrow_sink(make: Make, origin: web.Origin) -> None:
    """Window by window, also where the transfer is taken up again."""
    origin.fault("/f", Fault(cut_after=1_500_000))
    found = make(retries=1)
    found.expect(SIZE, "")
    sink = NarrowSink(PIECES[1].length, 99_999)
    digest = SourceFetch(found, PIECES[1], sink).run()
    assert digest == piece_digest(crc32(bytes(sink.kept)))
    assert sink.kept == CONTENT.read(PIECES[1].offset, PIECES[1].length)


def test_a_stream_into_a_narrow_sink(make: Make, origin: web.Origin) -> None:
    """To its end, which is within a window."""
    origin.fault("/f", Fault(chunked=True, no_range=True))
    found = make()
    Probe(found).run()
    body = found.take_stream()
    sink = NarrowSink(SIZE + 5, 99_999)
    assert StreamFetch(body, sink).run() == SIZE
    body.close()
    assert sink.kept == CONTENT.read()


def test_a_sink_that_is_full(make: Make) -> None:
    """The origin is not asked again, nor blamed."""
    found = make(retries=5)
    found.expect(SIZE, "")
    sink = NarrowSink(PIECES[0].length, 1000, room=1500)
    with pytest.raises(StoreFailed, match="no space left") as failure:
        SourceFetch(found, PIECES[0], sink).run()
    assert not isinstance(failure.value, OriginError)
    assert sink.kept == CONTENT.read(0, 1000)


# -- giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order", [False, True])
def test_giving_up(make: Make, origin: web.Origin, *, in_order: bool) -> None:
    """Whoever is blocked wakes up; afterwards nothing is written any more."""
    origin.fault("/f", Fault(no_range=in_order, stall_after=5000))
    found = make(retries=5)
    found.expect(SIZE, "")
    into = memoryview(bytearray(PIECE))
    fetch = SourceFetch(found, PIECES[0], MemorySink(into))
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(fetch.run)
        while not origin.sent():
            assert not running.done()
        fetch.abort()
        with pytest.raises(OriginError):
            running.result(20)
        origin.release()
    assert not any(into[5000:])
    assert origin.count() == 1


def test_giving_up_before_it_begins(make: Make) -> None:
    """Nothing comes."""
    found = make(retries=5)
    Probe(found).run()
    into = memoryview(bytearray(PIECE))
    fetch = SourceFetch(found, PIECES[0], MemorySink(into))
    fetch.abort()
    with pytest.raises(OriginError):
        fetch.run()
    assert not any(into)


def test_giving_up_between_two_tries(make: Make, origin: web.Origin) -> None:
    """It does not wait for the pause to end."""
    found = make(retries=60)
    Probe(found).run()
    origin.fault("/f", Fault(cut_after=0))
    fetch = SourceFetch(found, PIECES[0], MemorySink(memoryview(bytearray(PIECE))))
    timer = threading.Timer(0.7, fetch.abort)
    timer.start()
    with pytest.raises(OriginError):
        fetch.run()
    timer.join()
    assert origin.count() < 10


def test_giving_up_a_stream(make: Make, origin: web.Origin) -> None:
    """Likewise."""
    origin.fault("/f", Fault(chunked=True, no_range=True, stall_after=5000))
    found = make()
    Probe(found).run()
    body = found.take_stream()
    fetch = StreamFetch(body, MemorySink(memoryview(bytearray(PIECE))))
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(fetch.run)
        fetch.abort()
        with pytest.raises(OriginError):
            running.result(20)
    body.close()


def test_closing_ends_what_nobody_reads(make: Make, origin: web.Origin) -> None:
    """The stream that a probe began; the origin can end, too."""
    origin.fault("/f", Fault(no_range=True, stall_after=5000))
    found = make()
    Probe(found).run()
    found.close()
    found.close()
    origin.release()
    origin.heal("/f")
    assert get(found, PIECES[0]) == data(PIECES[0])
