"""daemon/serving/output.py: files written on a caller's behalf."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pantala.daemon.config import DownloadServer
from pantala.daemon.serving.output import check_allowed, check_path, write
from pantala.errors import Forbidden, InvalidRequest, OutputExists, Unavailable
from pantala.ports import MemoryExtent

CONTENT = bytes(range(256)) * 100_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Without symlinks on the way."""
    return tmp_path.resolve()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_written(directory: Path, *, overwrite: bool) -> None:
    """All of it, and nothing besides."""
    path = check_path(str(directory / "out"), overwrite=overwrite)
    write(path, MemoryExtent(memoryview(CONTENT)), overwrite=overwrite)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in directory.iterdir()] == ["out"]


def test_a_file_that_is_there(directory: Path) -> None:
    """It is replaced as a whole, or not at all."""
    path = directory / "out"
    path.write_text("old")
    with pytest.raises(OutputExists, match="out exists already"):
        check_path(str(path), overwrite=False)
    with pytest.raises(OutputExists, match="out exists already"):
        write(path, MemoryExtent(memoryview(CONTENT)), overwrite=False)
    assert path.read_text() == "old"
    with path.open() as reader:
        write(
            check_path(str(path), overwrite=True), MemoryExtent(memoryview(CONTENT)), overwrite=True
        )
        assert reader.read() == "old"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in directory.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "path", ["out", "./out", "", "/", "/etc/..", "/etc/a\0b", "/no/such/dir/f"]
)
def test_what_is_no_path_of_a_file(path: str) -> None:
    """Named, so that the caller sees what he wrote."""
    with pytest.raises(InvalidRequest):
        check_path(path, overwrite=True)


def test_a_directory(directory: Path) -> None:
    """Not even when it may be overwritten."""
    with pytest.raises(InvalidRequest, match="is a directory"):
        check_path(str(directory), overwrite=True)


@pytest.mark.parametrize("where", ["the file", "its directory", "above"])
def test_symlinks(directory: Path, where: str) -> None:
    """None is followed: it might lead where only the daemon may write."""
    real = directory / "real" / "deep"
    real.mkdir(parents=True)
    if where == "the file":
        (directory / "out").symlink_to(real / "victim")
        path = directory / "out"
    elif where == "its directory":
        (directory / "link").symlink_to(real)
        path = directory / "link" / "out"
    else:
        (directory / "link").symlink_to(directory / "real")
        path = directory / "link" / "deep" / "out"
    with pytest.raises(Forbidden, match="a symlink is on the way"):
        check_path(str(path), overwrite=True)
    assert not any(real.iterdir())


@pytest.mark.parametrize("where", ["its directory", "the file"])
def test_a_symlink_that_appears_afterwards(directory: Path, where: str) -> None:
    """Between the check and the writing lies a whole download."""
    (directory / "real").mkdir()
    (directory / "dir").mkdir()
    path = check_path(str(directory / "dir" / "out"), overwrite=True)
    victim = directory / "real" / "out"
    if where == "its directory":
        (directory / "dir").rmdir()
        (directory / "dir").symlink_to(directory / "real")
        with pytest.raises(Forbidden, match="a symlink is on the way"):
            write(path, MemoryExtent(memoryview(CONTENT)), overwrite=True)
    else:
        victim.write_text("precious")
        path.symlink_to(victim)
        write(path, MemoryExtent(memoryview(CONTENT)), overwrite=True)
        assert path.read_bytes() == CONTENT
        assert not path.is_symlink()
        assert victim.read_text() == "precious"
    assert {entry.name for entry in (directory / "real").iterdir()} <= {"out"}


def test_a_directory_that_is_gone(directory: Path) -> None:
    """In words."""
    (directory / "dir").mkdir()
    path = check_path(str(directory / "dir" / "out"), overwrite=True)
    (directory / "dir").rmdir()
    with pytest.raises(Unavailable, match=r"cannot write .*No such file"):
        write(path, MemoryExtent(memoryview(CONTENT)), overwrite=True)


def test_a_place_where_nothing_can_be_written() -> None:
    """In the system's words."""
    with pytest.raises(Unavailable, match=r"cannot write /proc/out: [A-Z]"):
        write(Path("/proc/out"), MemoryExtent(memoryview(CONTENT)), overwrite=True)


def test_a_disk_that_is_full(directory: Path) -> None:
    """Nothing is left of it."""
    program = (
        "import pathlib, resource, signal\n"
        "from pantala.daemon.serving.output import write\n"
        "from pantala.errors import Unavailable\n"
        "from pantala.ports import MemoryExtent\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"path = pathlib.Path({str(directory / 'out')!r})\n"
        "try: write(path, MemoryExtent(memoryview(bytes(5000))), overwrite=True)\n"
        "except Unavailable as error: assert 'File too large' in str(error)\n"
        "else: raise SystemExit('it was written')"
    )
    # Coverage could not write its file either.
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(directory.iterdir()) == []


def test_who_is_killed_in_the_middle_leaves_nothing(directory: Path) -> None:
    """The file has no name before all of it is there."""
    program = (
        "import os, pathlib, signal\n"
        "from pantala.daemon.serving import output\n"
        "from pantala.ports import MemoryExtent\n"
        "class Deadly(MemoryExtent):\n"
        "    def read(self, offset, length):\n"
        "        if offset: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().read(offset, length)\n"
        "output._STEP = 1000\n"
        f"path = pathlib.Path({str(directory / 'out')!r})\n"
        "output.write(path, Deadly(memoryview(bytes(5000))), overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "mode", "uid", "allowed"),
    [
        ("auto", 0o660, 1000, True),
        ("auto", 0o660, 0, False),
        ("auto", 0o600, 0, True),
        (True, 0o666, 0, True),
        (False, 0o600, 1000, False),
    ],
)
def test_whether_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
    setting: object,
    mode: int,
    uid: int,
    *,
    allowed: bool,
) -> None:
    """A daemon of root would write anywhere for whoever may open its socket."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    server = DownloadServer.model_construct(allow_output_path=setting, socket_mode=mode)
    if allowed:
        check_allowed(server)
    else:
        with pytest.raises(Forbidden, match=r"see download\.server\.allowOutputPath"):
            check_allowed(server)
