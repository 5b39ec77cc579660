"""Files are read below the roots, and nowhere else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pantala.errors import (
    Forbidden,
    InvalidRequest,
    OriginError,
    RangeNotSatisfiable,
    SourceChanged,
)
from pantala.ports import SourceBody, SourceRequest
from pantala.sources import file as module
from pantala.sources.file import FileSource
from pantala.testing.sources import fetch, open_descriptors, read_all

DATA = bytes(range(256)) * 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory to serve, with DATA in ``sub/x``."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "x").write_bytes(DATA)
    (tmp_path / "secret").write_text("secret")
    return root


@pytest.fixture
def source(root: Path) -> FileSource:
    """Serves *root*."""
    return FileSource((root,))


def opened(source: FileSource, path: Path, start: int | None = None) -> SourceBody:
    """An open body."""
    return source.open(SourceRequest(f"file://{path}", start=start), timeout=1)


class TestReading:
    """What is allowed is read as it is."""

    def test_the_whole(self, source: FileSource, root: Path) -> None:
        """With its length, and an identity made of what changes when it changes."""
        path = root / "sub" / "x"
        body, data = (got := fetch(source, f"file://{path}")).body, got.data
        found = path.stat()
        assert data == DATA
        assert (body.total, body.start, body.length, body.ranged) == (10240, 0, 10240, False)
        assert body.version == f"file:{found.st_mtime_ns}-10240-{found.st_ino}"
        assert body.header == {"Content-Length": "10240"}

    @pytest.mark.parametrize(
        ("start", "length", "want"),
        [
            (0, 1, DATA[:1]),
            (5, 10, DATA[5:15]),
            (10_000, None, DATA[10_000:]),
            (9, 1 << 40, DATA[9:]),
        ],
    )
    def test_ranges(
        self, source: FileSource, root: Path, start: int, length: int | None, want: bytes
    ) -> None:
        """Clipped at the end."""
        got = fetch(source, f"file://{root}/sub/x", start=start, length=length)
        assert got.data == want
        assert (got.body.total, got.body.start, got.body.length) == (10240, start, len(want))
        assert got.body.ranged

    @pytest.mark.parametrize(("start", "length"), [(10240, None), (10241, 1), (-1, 5), (3, 0)])
    def test_ranges_that_hold_nothing(
        self, source: FileSource, root: Path, start: int, length: int | None
    ) -> None:
        """Are refused."""
        with pytest.raises(RangeNotSatisfiable):
            fetch(source, f"file://{root}/sub/x", start=start, length=length)

    def test_a_length_needs_a_start(self, source: FileSource, root: Path) -> None:
        """Or nobody knows what is meant."""
        with pytest.raises(InvalidRequest):
            fetch(source, f"file://{root}/sub/x", length=5)

    @pytest.mark.parametrize("start", [None, 0])
    def test_an_empty_file(self, source: FileSource, root: Path, start: int | None) -> None:
        """Is empty, whether or not a range is asked for."""
        (root / "empty").touch()
        got = fetch(source, f"file://{root}/empty", start=start)
        assert (got.data, got.body.total, got.body.length, got.body.ranged) == (b"", 0, 0, False)

    def test_names_are_percent_decoded(self, source: FileSource, root: Path) -> None:
        """And localhost is this machine."""
        (root / "a b?").write_bytes(b"odd")
        assert fetch(source, f"file://localhost{root}/a%20b%3F").data == b"odd"

    def test_reads_in_any_steps(self, source: FileSource, root: Path) -> None:
        """Each view is filled, but for the last."""
        body = opened(source, root / "sub" / "x")
        assert read_all(body, step=4096) == DATA

    def test_a_link_within_the_roots_is_followed(self, source: FileSource, root: Path) -> None:
        """So is a root that is a link itself."""
        (root / "link").symlink_to(root / "sub" / "x")
        other = root.parent / "other"
        other.symlink_to(root)
        assert fetch(source, f"file://{root}/link").data == DATA
        assert fetch(FileSource((other,)), f"file://{other}/link").data == DATA


class TestRefusing:
    """What is not allowed is not read."""

    def test_nothing_is_allowed_at_first(self, root: Path) -> None:
        """The key that would is named."""
        with pytest.raises(Forbidden, match=r"backend\.fileRoots"):
            fetch(FileSource(), f"file://{root}/sub/x")

    @pytest.mark.parametrize("path", ["../secret", "%2e%2e/secret", "sub/../../secret", "out"])
    def test_outside_the_roots(self, source: FileSource, root: Path, path: str) -> None:
        """By dots or by links, whether it is there or not."""
        (root / "out").symlink_to(root.parent / "secret")
        with pytest.raises(Forbidden, match=r"backend\.fileRoots"):
            fetch(source, f"file://{root}/{path}")

    def test_a_name_that_begins_like_a_root(self, source: FileSource, root: Path) -> None:
        """Is no part of it."""
        (root.parent / "root2").write_text("secret")
        with pytest.raises(Forbidden):
            fetch(source, f"file://{root}2")

    def test_only_regular_files(self, source: FileSource, root: Path) -> None:
        """No directories, and no FIFO, which would block."""
        os.mkfifo(root / "fifo")
        for path in ("fifo", "sub", ""):
            with pytest.raises(Forbidden, match="no regular file"):
                fetch(source, f"file://{root}/{path}")

    def test_a_link_that_comes_between_check_and_open(self, root: Path) -> None:
        """Neither as the file nor as a directory on the way."""
        (root / "link").symlink_to(root.parent / "secret")
        (root / "up").symlink_to(root.parent)
        for late in (root / "link", root / "up" / "secret"):
            with pytest.raises(Forbidden, match="symbolic link"):
                module._open_below(root, late)

    @pytest.mark.parametrize(
        "url",
        ["file://elsewhere/x", "file:x", "file://[::1/x", "file:///a%00b", "file:///a%0Ab"],
    )
    def test_urls_that_make_no_sense(self, source: FileSource, url: str) -> None:
        """Other hosts, relative paths, control characters."""
        with pytest.raises(InvalidRequest):
            fetch(source, url)

    def test_is_read_as_its_task_is_named(self, source: FileSource, root: Path) -> None:
        """A path through a link and back is, to the task's id, the one without the link."""
        (root / "far" / "deep").mkdir(parents=True)
        (root / "link").symlink_to(root / "far" / "deep")
        (root / "x").write_bytes(b"right")
        (root / "far" / "x").write_bytes(b"wrong")
        (root / "a\\x").write_bytes(b"wrong")
        (root / "a").mkdir()
        (root / "a" / "x").write_bytes(b"right")
        for path in ("link/../x", "link/%2e%2E/x", "a\\x"):
            assert fetch(source, f"file://{root}/{path}").data == b"right"

    def test_a_missing_file(self, source: FileSource, root: Path) -> None:
        """Is the source's failure, not transient, naming the file."""
        with pytest.raises(OriginError, match="gone: No such file") as caught:
            fetch(source, f"file://{root}/gone")
        assert not caught.value.transient

    def test_refusals_leave_nothing_open(self, source: FileSource, root: Path) -> None:
        """No descriptor leaks."""
        before = open_descriptors()
        for path in ("sub", "gone", "sub/x/y"):
            with pytest.raises((Forbidden, OriginError)):
                fetch(source, f"file://{root}/{path}")
        with pytest.raises(RangeNotSatisfiable):
            fetch(source, f"file://{root}/sub/x", start=99999)
        assert open_descriptors() - before == set()


class TestTrouble:
    """A file that changes fails; it never yields a mixture."""

    def test_a_file_that_shrinks(self, source: FileSource, root: Path) -> None:
        """Before it was read."""
        path = root / "sub" / "x"
        body = opened(source, path)
        os.truncate(path, 100)
        with pytest.raises(SourceChanged):
            read_all(body)

    def test_a_file_that_is_written(self, source: FileSource, root: Path) -> None:
        """Between two reads."""
        path = root / "sub" / "x"
        body = opened(source, path)
        assert body.readinto(memoryview(bytearray(10))) == 10
        path.write_bytes(bytes(len(DATA)))
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChanged, match="changed while it was read"):
            read_all(body)

    def test_a_file_that_is_replaced(self, source: FileSource, root: Path) -> None:
        """Is read as it was when it was opened."""
        body = opened(source, root / "sub" / "x")
        (root / "new").write_bytes(b"new")
        (root / "new").rename(root / "sub" / "x")
        assert read_all(body) == DATA

    def test_a_read_that_fails(self, source: FileSource, root: Path) -> None:
        """Names file, reason and place; here the descriptor has become a directory's."""
        body = opened(source, root / "sub" / "x", start=7)
        assert isinstance(body, module._FileBody)
        directory = os.open(root, os.O_RDONLY)
        assert body._fd is not None
        os.dup2(directory, body._fd)
        os.close(directory)
        with pytest.raises(OriginError, match="x: Is a directory at byte 7"):
            read_all(body)

    @pytest.mark.parametrize("end", ["abort", "close"])
    def test_reading_after_the_end(self, source: FileSource, root: Path, end: str) -> None:
        """Fails, though another thread ended it; ending twice is harmless."""
        body = opened(source, root / "sub" / "x")
        for _ in range(2):
            thread = threading.Thread(target=getattr(body, end))
            thread.start()
            thread.join()
        with pytest.raises(OriginError, match="closed here"):
            body.readinto(memoryview(bytearray(1)))
