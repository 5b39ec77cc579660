"""storage/segments.py meets its contract, gives memory back, and is safe in others' hands."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from pantala.core.ledger import Needs
from pantala.errors import Unavailable
from pantala.model.pieces import GROWTH_STEP
from pantala.ports import fill
from pantala.storage.medium import Content
from pantala.storage.memory import MemoryMedium
from pantala.storage.segments import (
    MAX_EXCESS,
    SMALL,
    Growing,
    Segment,
    SmallContent,
    create,
)
from pantala.testing.store_contract import ContentContract, seen_in
from pantala.testing.threads import in_threads

MIB = 1 << 20

#: What content may take that may have a descriptor.
ONE = Needs(descriptors=1, mappings=1)

linux = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")


class TestSmallContent(ContentContract):
    """Plain memory."""

    length = 5000
    hands_out = False

    def make(self) -> Content:
        return create(self.length)

    def peek(self, content: Content, offset: int, length: int) -> bytes:
        assert isinstance(content, SmallContent)
        return bytes(content._bytes[offset : offset + length])


class TestMediumContent(ContentContract):
    """Mapped memory without a descriptor."""

    length = 1_234_567
    hands_out = False

    def make(self) -> Content:
        return create(self.length, descriptor=False)

    def peek(self, content: Content, offset: int, length: int) -> bytes:
        assert isinstance(content, SmallContent)
        return bytes(content._bytes[offset : offset + length])


class TestSegment(ContentContract):
    """A memfd, read through its descriptor."""

    length = 1_234_567  # no multiple of a page
    hands_out = sys.platform == "linux"

    def make(self) -> Content:
        return create(self.length)

    def peek(self, content: Content, offset: int, length: int) -> bytes:
        assert isinstance(content, Segment)
        return os.pread(content.fileno(), length, offset)


class TestGrown(TestSegment):
    """A memfd that became one when its end was found."""

    length = GROWTH_STEP + 12_345

    def make(self) -> Content:
        growing = Growing()
        for _ in range(2):
            growing.extend().close()
        return growing.finish(self.length, ONE)


class TestGrownSmall(TestSmallContent):
    """Little came."""

    def make(self) -> Content:
        growing = Growing()
        growing.extend().close()
        return growing.finish(self.length, ONE)


@pytest.mark.parametrize(
    ("length", "expected"), [(0, SmallContent), (SMALL, SmallContent), (SMALL + 1, Segment)]
)
def test_small_content_has_no_descriptor(length: int, expected: type[Content]) -> None:
    """Whichever way it came."""
    made, growing = create(length), Growing()
    growing.extend().close()
    grown = growing.finish(length, ONE)

    assert (type(made), type(grown)) == (expected, expected)
    made.close()
    grown.close()


@pytest.mark.parametrize("length", [10, SMALL + 10])
def test_what_grew_is_what_was_received(length: int) -> None:
    """Across the borders of its parts; nothing of what came after the end."""
    data = random.Random(1).randbytes(GROWTH_STEP + length)
    growing = Growing()
    for at in (0, GROWTH_STEP):
        fill(growing.extend(), data[at : at + GROWTH_STEP])
    assert growing.length == 2 * GROWTH_STEP
    whole = growing.finish(len(data), ONE)

    assert seen_in(whole, 0, whole.length) == data
    growing.close()  # harmless
    whole.close()


def test_what_is_not_kept_of_it_is_free() -> None:
    """Where the rest is to come otherwise, what is behind the beginning takes no memory."""
    growing = Growing()
    for _ in range(3):
        fill(growing.extend(), b"?" * GROWTH_STEP)
    content = growing.finish(3 * GROWTH_STEP + 10, ONE, here=GROWTH_STEP)
    assert isinstance(content, Segment)
    assert os.fstat(content.fileno()).st_blocks * 512 == GROWTH_STEP
    assert content.length == 3 * GROWTH_STEP + 10
    content.close()


def test_growing_content_that_is_thrown_away() -> None:
    """Its descriptor goes; a second time is harmless."""
    before = _descriptors()
    growing = Growing()
    growing.extend().close()
    growing.close()
    growing.close()
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _allocated(segment: Content) -> int:
    """Bytes of memory that the kernel has given it."""
    assert isinstance(segment, Segment)
    return os.fstat(segment.fileno()).st_blocks * 512


def _segment(length: int, *, lock: bool = False) -> Segment:
    """Content that lies in one."""
    made = create(length, lock=lock)
    assert isinstance(made, Segment)
    return made


def _each(works: Sequence[Callable[[], object]]) -> None:
    for work in works:
        work()


def _fill(content: Content, offset: int, length: int, byte: int = 1) -> None:
    fill(content.sink(offset, length), bytes([byte]) * length)


@linux
class TestReuse:
    """Content in the memory of another that nobody uses any more."""

    @pytest.mark.parametrize(
        ("old", "new", "locked"),
        [
            (MIB, MIB, False),
            (MIB + 77, MIB + 4097, True),
            (MIB, 2 * MIB, True),
            (70 * MIB, 66 * MIB + 5, False),
            (40 * MIB, 70 * MIB, False),
        ],
    )
    def test_pages_stay(self, old: int, new: int, locked: bool) -> None:  # noqa: FBT001  parametrized
        """As many as fit; the file in memory is the same."""
        segment = _segment(old, lock=locked)
        _fill(segment, 0, old, 7)
        pages = _allocated(segment)
        assert not segment.reused

        assert segment.resize(new)
        assert (segment.length, segment.reused) == (new, True)
        kept = -(-new // mmap.PAGESIZE) * mmap.PAGESIZE
        assert _allocated(segment) == min(pages, kept)
        _fill(segment, 0, new, 9)
        assert _allocated(segment) == kept
        fd = segment.hand_off()
        assert fd is not None
        assert os.pread(fd, 2 * new, 0) == bytes([9]) * new
        os.close(fd)
        segment.close()

    def test_not_from_whom_others_may_read(self) -> None:
        """A descriptor can be anywhere by now; a view, too."""
        handed_off = _segment(MIB)
        fd = handed_off.hand_off(seal=False)
        assert fd is not None
        assert not handed_off.resize(MIB)
        with mmap.mmap(fd, MIB, prot=mmap.PROT_READ) as mapped:
            os.close(fd)
            assert not handed_off.resize(MIB)
            assert mapped[:1] == b"\0"
        assert handed_off.resize(2 * MIB), "nobody has it any more"
        sealed = _segment(MIB)
        fd = sealed.hand_off()
        assert fd is not None
        os.close(fd)
        assert not sealed.resize(MIB)
        sealed.close()
        seen = _segment(MIB)
        _fill(seen, 0, MIB, 3)
        with seen_in(seen, 0, 10) as view:
            assert not seen.resize(MIB)
            assert view == b"\3" * 10
        closed = _segment(MIB)
        closed.close()
        assert not closed.resize(MIB)
        handed_off.close()
        seen.close()

    @pytest.mark.parametrize("before", [0, 3, 100])
    def test_what_was_there_goes_before_anybody_sees_it(self, before: int) -> None:
        """Whoever comes first empties a place, and nobody once something has come there."""
        segment = _segment(20 * MIB + 77)
        _fill(segment, 0, segment.length, 7)
        assert segment.resize(18 * MIB + 5)
        assert (segment.length > 0, segment.is_clean) == (True, False)
        run = segment.begin_cleaning()
        pieces = [
            (at, min(3 * MIB, segment.length - at)) for at in range(0, segment.length, 3 * MIB)
        ]
        for offset, length in pieces[:before]:
            _fill(segment, offset, length, 9)
        assert segment.is_clean == (before == 100), "each has emptied its own place alone"
        run()
        assert segment.is_clean
        for offset, length in pieces:
            byte = 9 if (offset, length) in pieces[:before] else 0
            assert bytes(seen_in(segment, offset, length)) == bytes([byte]) * length
        for offset, length in pieces[before:]:
            _fill(segment, offset, length, 8)
            assert bytes(seen_in(segment, offset, length)) == b"\x08" * length
        assert segment.resize(9 * MIB), "nobody has a view of it"
        assert (segment.length > 0, segment.is_clean) == (True, False)
        segment.close()

    def test_it_is_received_into_while_it_is_emptied(self) -> None:
        """By many at once, in any order."""
        segment = _segment(64 * MIB)
        for turn in range(1, 6):
            assert segment.resize(64 * MIB)
            run = segment.begin_cleaning()
            places = [(at * MIB // 2, MIB // 2) for at in range(128)]
            random.Random(turn).shuffle(places)
            fills = [partial(_fill, segment, *place, turn) for place in places]
            in_threads([run, *(partial(_each, fills[n::6]) for n in range(6))])
            assert segment.is_clean
            assert bytes(seen_in(segment, 0, segment.length)) == bytes([turn]) * segment.length
        segment.close()

    def test_given_up_while_it_is_emptied(self) -> None:
        """Its memory goes all the same."""
        before = _mappings()
        segment = _segment(4 * MIB)
        assert segment.resize(4 * MIB)
        run = segment.begin_cleaning()
        segment.retire()
        run()
        assert (segment.length > 0, segment.is_clean) == (True, False)
        segment.close()
        assert _mappings() == before

    def test_not_of_another_size_altogether(self) -> None:
        """What is freed is freed on the spot, and a little is not worth it."""
        segment = _segment(100 * MIB)
        assert not segment.resize(100 * MIB - MAX_EXCESS - 1)
        assert not segment.resize(200 * MIB + 1)
        assert segment.resize(100 * MIB - MAX_EXCESS)
        segment.close()

    def test_the_best_of_several(self) -> None:
        """The shortest that is long enough, else the longest; never for what needs none."""
        medium = MemoryMedium(1 << 30)
        for length, best in ((5, 5), (7, 9), (11, 9), (19, None)):
            evicted = [create(n * MIB) for n in (9, 4, 6, 5)]
            by_length = {content.length // MIB: content for content in evicted}
            reused = medium.reuse(length * MIB, evicted, early=False)
            assert reused is (None if best is None else by_length[best])
            assert [c.length // MIB for c in evicted] == [n for n in (9, 4, 6, 5) if n != best]
            assert medium.reuse(SMALL, evicted, early=False) is None
            medium.discard(by_length.values())
            assert medium.reuse(5 * MIB, evicted, early=False) is None


@linux
class TestMemory:
    """What the kernel says of it."""

    def test_a_segment_costs_what_is_written(self) -> None:
        """100 GiB of which a megabyte is wanted are a megabyte."""
        segment = create(100 << 30)
        assert _allocated(segment) == 0
        _fill(segment, 77 << 30, MIB)
        assert _allocated(segment) == MIB
        segment.close()

    @pytest.mark.parametrize(("start", "end"), [(MIB, 2 * MIB), (3 * MIB, 4 * MIB + 100)])
    def test_punching_gives_memory_back(self, start: int, end: int) -> None:
        """Also of the last piece, whose end is within a page."""
        segment = create(4 * MIB + 100)
        _fill(segment, 0, segment.length)
        before = _allocated(segment)

        assert segment.punch(start, end - start)
        assert before - _allocated(segment) >= end - start
        assert bytes(seen_in(segment, start, 10)) == bytes(10)
        segment.close()

    def test_pages_shared_with_neighbours_stay(self) -> None:
        """Pieces need not begin where pages do."""
        segment = create(MIB)
        _fill(segment, 0, MIB)

        assert segment.punch(5000, 20_000)
        kept = bytes(seen_in(segment, 0, MIB))
        assert kept[:5000] + kept[25_000:] == b"\1" * (MIB - 20_000)
        assert segment.punch(100, 100), "within one page there is nothing to give back"
        assert bytes(seen_in(segment, 0, 5000)) == b"\1" * 5000
        segment.close()

    def test_what_is_in_others_hands_is_not_punched(self) -> None:
        """They may be reading it."""
        segment = create(MIB)
        _fill(segment, 0, MIB)
        fd = segment.hand_off()
        assert fd is not None

        assert not segment.punch(0, MIB)
        assert _allocated(segment) == MIB
        os.close(fd)
        segment.close()

    def test_it_stays_out_of_core_dumps(self) -> None:
        """``dd``: do not dump."""
        segment = create(MIB)
        assert "dd" in _flags(segment)
        segment.close()

    def test_pages_can_be_locked(self) -> None:
        """``lo``: locked; but only once they are touched."""
        segment = create(MIB, lock=True)
        assert "lo" in _flags(segment)
        assert _allocated(segment) == 0
        segment.close()

    def test_a_system_that_refuses_is_quoted(self) -> None:
        """With the key to change, and without losing the descriptor."""
        before = _descriptors()
        with pytest.raises(Unavailable, match="no room for content in memory: Cannot"):
            create(1 << 62)
        assert _descriptors() == before
        _run(
            "import os, resource",
            "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))",
            "if os.geteuid() == 0: os.setuid(65534)",
            "try: create(1 << 20, lock=True)",
            "except Unavailable as error:",
            "    assert 'storage.cacheLockPages: ' in str(error), error",
            "else: raise SystemExit('was not refused')",
        )

    def test_no_descriptors_left(self) -> None:
        """Each way to need one says so."""
        _run(
            "import os, resource",
            "segment, growing = create(1 << 20), Growing()",
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
            "while True:",
            "    try: os.dup(0)",
            "    except OSError: break",
            "for way in (lambda: create(1 << 20), Growing, segment.hand_off):",
            "    try: way()",
            "    except Unavailable as error: assert 'Too many open files' in str(error)",
            "    else: raise SystemExit(way)",
        )

    def test_nothing_leaks(self) -> None:
        """A thousand tasks come and go; descriptors and mappings are as before."""
        create(MIB).close()  # imports and such
        before = _descriptors(), _mappings()
        for _ in range(1000):
            segment = create(SMALL + 1)
            _fill(segment, 0, 10)
            fd = segment.hand_off()
            assert fd is not None
            os.close(fd)
            segment.close()
        assert (_descriptors(), _mappings()) == before

    def test_closing_under_a_reader(self) -> None:
        """The memory goes with the last view of it."""
        before = _mappings()
        segment = create(MIB)
        _fill(segment, 0, MIB)
        view = seen_in(segment, 0, MIB)
        segment.close()
        assert (view[-1], _mappings()) == (1, before + 1)
        view.release()
        del segment
        assert _mappings() == before


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:pantala")


def _flags(segment: Content) -> list[str]:
    """How the kernel treats its mapping."""
    assert isinstance(segment, Segment)
    inode = str(os.fstat(segment.fileno()).st_ino)
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if inode in line.split() and "memfd:" in line)
    return next(line for line in lines if line.startswith("VmFlags:")).split()


def _run(*lines: str, fds: tuple[int, ...] = ()) -> None:
    """Run a program in a process of its own."""
    text = "\n".join(
        (
            "from pantala.errors import Unavailable",
            "from pantala.storage.segments import create, Growing",
            *lines,
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", text], pass_fds=fds, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@linux
class TestHandOff:
    """A descriptor in another process's hands."""

    @pytest.fixture
    def segment(self) -> Iterator[Content]:
        """Full of ones."""
        segment = create(MIB)
        _fill(segment, 0, MIB)
        yield segment
        segment.close()

    @pytest.fixture
    def fd(self, segment: Content) -> Iterator[int]:
        """Handed off."""
        fd = segment.hand_off()
        assert fd is not None
        yield fd
        os.close(fd)

    @pytest.mark.parametrize("uid", [0, 65534])
    def test_another_process_can_read_and_nothing_else(
        self, segment: Content, fd: int, uid: int
    ) -> None:
        """Whatever it tries; not even as root, who may open any file."""
        if os.geteuid() not in (0, uid):
            pytest.skip("takes root")
        _run(
            f"import mmap, os; fd = {fd}; os.setuid({uid})",
            "seen = mmap.mmap(fd, 1 << 20, prot=mmap.PROT_READ)",
            "assert seen[:] == b'\\1' * (1 << 20)",
            "def again(flags): return os.open(f'/proc/self/fd/{fd}', flags)",
            "def write_again():",
            "    new = again(os.O_RDWR)",
            "    os.pwrite(new, b'evil', 0)",
            "def map_again():",
            "    new = again(os.O_RDWR)",
            "    mmap.mmap(new, 1 << 20)",
            "def shrink_again(): os.ftruncate(again(os.O_RDWR), 0)",
            "def grow_again(): os.ftruncate(again(os.O_RDWR), 2 << 20)",
            "tries = [lambda: mmap.mmap(fd, 1 << 20), lambda: os.pwrite(fd, b'evil', 0),",
            "    lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 2 << 20),",
            "    lambda: again(os.O_WRONLY | os.O_TRUNC), lambda: seen.__setitem__(0, 2),",
            "    write_again, map_again, shrink_again, grow_again]",
            f"if {uid}: tries += [lambda: again(os.O_RDWR), lambda: again(os.O_WRONLY)]",
            "for number, attempt in enumerate(tries):",
            "    try: attempt()",
            "    except (OSError, TypeError): pass",
            "    else: raise SystemExit(f'try {number} worked')",
            "assert seen[:] == b'\\1' * (1 << 20)",
            fds=(fd,),
        )
        assert bytes(seen_in(segment, 0, MIB)) == b"\1" * MIB

    def test_the_owner_still_receives_and_the_reader_sees_it(
        self, segment: Content, fd: int
    ) -> None:
        """The owner's mapping is older than the seal."""
        with mmap.mmap(fd, MIB, prot=mmap.PROT_READ) as seen:
            _fill(segment, MIB - 10, 10, byte=7)
            assert seen[-11:] == b"\1" + b"\7" * 10

    @pytest.mark.parametrize("locked", [False, True])
    def test_sealed_in_the_middle(self, *, locked: bool) -> None:
        """What is received after that lands in its place all the same."""
        segment = create(4 * MIB, lock=locked)
        data, sink = random.Random(1).randbytes(3 * MIB), segment.sink(MIB, 3 * MIB)
        at, fd = 0, None
        while at < len(data):
            with sink.window(at) as window:
                count = min(len(window), len(data) - at, 100_000)
                window[:count] = data[at : at + count]
            sink.wrote(at, count)
            at += count
            if fd is None and at > MIB:
                fd = segment.hand_off()
        sink.close()
        assert fd is not None
        assert os.pread(fd, 4 * MIB, 0) == bytes(MIB) + data
        assert seen_in(segment, MIB, 3 * MIB) == data
        os.close(fd)
        segment.close()

    def test_another_user_cannot_write_to_what_is_not_sealed(self) -> None:
        """Its mode forbids it, from the beginning."""
        if os.geteuid() != 0:
            pytest.skip("takes root")
        segment = _segment(MIB)
        fd = segment.hand_off(seal=False)
        assert fd is not None
        _run(
            f"import os; fd = {fd}; os.setuid(65534)",
            "for flags in (os.O_RDWR, os.O_WRONLY):",
            "    try: os.open(f'/proc/self/fd/{fd}', flags)",
            "    except PermissionError: pass",
            "    else: raise SystemExit('opened')",
            "for way in (lambda: os.ftruncate(fd, 0), lambda: os.pwrite(fd, b'x', 0)):",
            "    try: way()",
            "    except OSError: pass",
            "    else: raise SystemExit('written')",
            fds=(fd,),
        )
        os.close(fd)
        segment.close()

    def test_a_reader_that_is_killed_leaves_nothing(self) -> None:
        """However it ends, its mapping ends with it."""
        segment = create(MIB)
        _fill(segment, 0, MIB)
        fd = segment.hand_off()
        assert fd is not None
        program = (
            f"import mmap, signal; m = mmap.mmap({fd}, {MIB}, prot=mmap.PROT_READ); m[:]\n"
            "print(flush=True); signal.pause()"
        )
        reader = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=(fd,),
            stdout=subprocess.PIPE,
        )
        assert reader.stdout is not None
        reader.stdout.readline()
        os.close(fd)
        number = os.fstat(segment.fileno()).st_ino if isinstance(segment, Segment) else 0
        segment.close()
        assert number in _segments(), "the reader keeps it alive"
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        reader.stdout.close()
        assert number not in _segments()


def _segments() -> set[int]:
    """Inodes of the segments that any process of ours has mapped."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # it has just ended, or is not ours
            continue
        found |= {int(line.split()[4]) for line in lines if "memfd:pantala" in line}
    return found


@linux
def test_where_the_kernel_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is handed off that could never be counted as back."""

    def refuse(_fd: int, command: int, *_: object) -> int:
        assert command == fcntl.F_SETLEASE
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as with fs.leases-enable=0

    segment = create(5 * MIB)
    monkeypatch.setattr("pantala.storage.pages.fcntl.fcntl", refuse)
    assert segment.hand_off() is None
    assert not segment.is_elsewhere()
    segment.close()


@linux
def test_who_has_it() -> None:
    """A descriptor on its way through a socket counts, and so does a mapping without one."""
    segment = create(5 * MIB)
    assert not segment.is_elsewhere()
    fd = segment.hand_off()
    assert fd is not None
    assert segment.is_elsewhere()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [fd])
        os.close(fd)
        assert segment.is_elsewhere()
        _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
    seen = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.close(fd)
    assert segment.is_elsewhere()
    seen.close()
    assert not segment.is_elsewhere()
    segment.close()
