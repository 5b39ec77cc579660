"""client/output.py: whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pantala import files
from pantala.client.output import FileOutput, StreamOutput, output_for
from pantala.errors import InvalidRequest, OutputExists, RemoteProtocolError, Unavailable

CONTENT = bytes(range(256))


def _view(data: bytes) -> memoryview:
    return memoryview(data)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _put(path: Path, meanwhile: Callable[[], object] | None = None, **terms: bool) -> None:
    """Write ``new`` to *path*; call *meanwhile* before it is committed."""
    with output_for(str(path), overwrite=terms.get("overwrite", False)) as output:
        output.write(0, _view(b"new"))
        if meanwhile is not None:
            meanwhile()
        output.commit()


def test_a_file_appears_when_committed(tmp_path: Path) -> None:
    """Until then its name does not exist, and afterwards nothing else does."""
    path = tmp_path / "out"
    with output_for(str(path), overwrite=False) as output:
        output.write(3, _view(b"def"))
        output.write(0, _view(b"abc"))
        assert not path.exists()
        output.commit()
    assert path.read_bytes() == b"abcdef"
    assert _names(tmp_path) == ["out"]


def test_its_mode_is_the_umasks(tmp_path: Path) -> None:
    """As for any file that a program creates."""
    before = os.umask(0o027)
    try:
        _put(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


@pytest.mark.parametrize("nameless", [True, False])
def test_its_mode_is_that_of_the_file_it_replaces(
    tmp_path: Path,
    nameless: bool,  # noqa: FBT001  a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody gets to read it, nor what is there of it meanwhile, who could not before."""
    if not nameless:
        monkeypatch.setattr(files, "_NAMELESS", 0)
    path = tmp_path / "out"
    for mode in (0o600, 0o777, 0o4640):
        path.touch()
        path.chmod(mode)

        def look(mode: int = mode) -> None:
            for part in tmp_path.glob(".out.*"):
                assert stat.S_IMODE(part.stat().st_mode) == mode & 0o777

        _put(path, look, overwrite=True)
        assert path.read_text() == "new"
        assert stat.S_IMODE(path.stat().st_mode) == mode & 0o777


def test_what_is_not_committed_leaves_no_trace(tmp_path: Path) -> None:
    """The former file stays as it was."""
    path = tmp_path / "out"
    path.write_text("former")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _put(path, interrupt, overwrite=True)
    assert path.read_text() == "former"
    assert _names(tmp_path) == ["out"]


def test_overwriting_replaces_at_once(tmp_path: Path) -> None:
    """One who has the former file open keeps it."""
    path = tmp_path / "out"
    path.write_text("former")
    with path.open() as former, output_for(str(path), overwrite=True) as output:
        output.write(0, _view(b"new"))
        output.commit()
        assert former.read() == "former"
    assert path.read_text() == "new"


def test_an_existing_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    """Neither one that was there, nor one that came meanwhile."""
    path = tmp_path / "out"
    with pytest.raises(OutputExists, match="meanwhile"):
        _put(path, lambda: path.write_text("theirs"))
    assert path.read_text() == "theirs"
    with pytest.raises(OutputExists, match="--overwrite"):
        output_for(str(path), overwrite=False)
    assert _names(tmp_path) == ["out"]


def test_it_has_no_name_before(tmp_path: Path) -> None:
    """So that nothing is left of a process that was killed."""
    with output_for(str(tmp_path / "out"), overwrite=True) as output:
        output.write(0, _view(b"new"))
        assert _names(tmp_path) == []


def test_a_file_system_where_files_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary name does instead, until it is committed."""
    monkeypatch.setattr(files, "_NAMELESS", 0)

    def look() -> None:
        (name,) = _names(tmp_path)
        assert name.startswith(".out.")

    _put(tmp_path / "out", look)
    assert (tmp_path / "out").read_text() == "new"
    assert _names(tmp_path) == ["out"]


def test_a_file_that_cannot_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user learns of it, and nothing is left."""

    def refuse(_src: str, _dst: str, **where: int | None) -> None:
        raise OSError(28, f"No space left on device {where}")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Unavailable, match="No space left"):
        _put(tmp_path / "out")
    assert _names(tmp_path) == []


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none; a file that came meanwhile is safe there too."""

    def link(_src: str, _dst: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files, "_NAMELESS", 0)  # they have no files without names either
    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "out"
    _put(path)
    assert path.read_text() == "new"
    path.unlink()
    with pytest.raises(OutputExists, match="meanwhile"):
        _put(path, lambda: path.write_text("theirs"))
    assert path.read_text() == "theirs"
    assert _names(tmp_path) == ["out"]


def test_a_rename_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that was taken for it is given back."""

    def refuse(_src: str, _dst: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_NAMELESS", 0)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(Unavailable, match="out: Input/output error"):
        _put(tmp_path / "out")
    assert _names(tmp_path) == []


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    """It goes on pointing at the file, which is replaced where it lies."""
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file"
    target.write_text("former")
    link = tmp_path / "link"
    link.symlink_to(target)
    _put(link, overwrite=True)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_impossible_places(tmp_path: Path) -> None:
    """A directory, or a file in none."""
    with pytest.raises(InvalidRequest, match="is a directory"):
        output_for(str(tmp_path), overwrite=True)
    with pytest.raises(InvalidRequest, match="is a directory"):
        output_for(f"{tmp_path}/new/", overwrite=True)
    with pytest.raises(InvalidRequest, match="none is not a directory"):
        output_for(str(tmp_path / "none" / "out"), overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="Not a directory"):
        output_for(str(tmp_path / "file" / "out"), overwrite=False)


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800"])
def test_what_is_no_path(path: str) -> None:
    """It is refused before anything is asked, and can be shown."""
    with pytest.raises(InvalidRequest, match="cannot write") as refused:
        output_for(path, overwrite=False)
    str(refused.value).encode()


def test_a_long_name_has_room_for_a_temporary_one(tmp_path: Path) -> None:
    """255 bytes are allowed, in characters of several bytes too."""
    path = tmp_path / ("ü" * 127)
    _put(path)
    assert path.exists()


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Said with the output's name."""
    with pytest.raises(Unavailable, match="cannot write /proc/out: "):
        _put(Path("/proc/out"))
    lost = FileOutput("out", str(tmp_path / "none" / "out"), overwrite=False)
    with pytest.raises(Unavailable, match="cannot write out: No such file"):
        lost.__enter__()


def test_a_full_disk(tmp_path: Path) -> None:
    """One line that says so; the temporary file goes."""
    path = tmp_path / "out"
    # A limit of the process stands for the disk's; it must not bind the tests themselves.
    program = (
        "import resource, signal, sys\n"
        "from pantala.client.output import output_for\n"
        "from pantala.errors import Unavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    with output_for(sys.argv[1], overwrite=False) as output:\n"
        "        output.write(0, memoryview(bytes(9000)))\n"
        "except Unavailable as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert _names(tmp_path) == []


def test_a_pipe_gets_its_bytes_in_order(tmp_path: Path) -> None:
    """Whatever their order of arrival; the pipe itself stays a pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with output_for(str(fifo), overwrite=False) as output:
        output.write(4, _view(b"ef"))
        output.write(2, _view(b"cd"))
        output.write(0, _view(b"ab"))
        output.commit()
    assert os.read(reader, 100) == b"abcdef"
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_devices_are_written_to() -> None:
    """/dev/null takes all, /dev/full nothing."""
    _put(Path("/dev/null"))
    with pytest.raises(Unavailable, match="cannot write /dev/full: No space left on device"):
        _put(Path("/dev/full"))


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    """An error, not a signal."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        pytest.raises(Unavailable, match="cannot write stdout: Broken pipe"),
        StreamOutput("stdout", writer) as output,
    ):
        output.write(0, _view(b"x"))
    os.close(writer)  # it was lent, and is still open
    gone = StreamOutput(str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="No such file"):
        gone.__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems send files to sockets alone")
def test_the_kernel_copies_from_file_to_file(tmp_path: Path) -> None:
    """In any order, and into a part; what it cannot copy, and what is not there, it says."""
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    with source.open("rb") as file, output_for(str(tmp_path / "out"), overwrite=False) as output:
        assert output.copy(file.fileno(), 100, 50, 50)
        assert output.copy(file.fileno(), 50, 0, 50)
        with pytest.raises(RemoteProtocolError, match="segment ends at"):
            output.copy(file.fileno(), len(CONTENT), 100, 1)
        output.commit()
    assert (tmp_path / "out").read_bytes() == CONTENT[50:150]


def test_a_stream_is_written(tmp_path: Path) -> None:
    """Since it takes bytes in their order alone."""
    os.mkfifo(tmp_path / "pipe")
    assert not output_for(str(tmp_path / "pipe"), overwrite=False).copy(0, 0, 0, 1)
