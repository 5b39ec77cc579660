"""fsspec's file system: client/filesystem.py and client/targets.py, with a daemon that runs."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import pickle
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import fsspec
import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

import pantala
from pantala.client import filesystem
from pantala.client.filesystem import DragonflyFile, DragonflyFileSystem
from pantala.errors import Forbidden, InvalidRequest
from pantala.testing.cluster import Cluster
from pantala.testing.origin import Fault, Origin
from pantala.testing.program import Node

CONTENT: Final = random.Random(3).randbytes((5 << 20) + 1234)
LINES: Final = b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory whose files the daemon may read."""
    directory = Path(tempfile.mkdtemp(prefix="pf-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def node(home: Path) -> Iterator[Node]:
    """A daemon of a machine's, for all of these tests."""
    with Cluster(home, forks=True) as cluster:
        yield cluster.daemon("a", config={"backend": {"fileRoots": [str(home)]}})


@pytest.fixture(autouse=True)
def _asked(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """That daemon is the one that is asked."""
    monkeypatch.setenv("PANTALA_ENDPOINT", str(node.socket))
    yield
    DragonflyFileSystem.clear_instance_cache()


@pytest.fixture
def files(home: Path) -> Iterator[Path]:
    """A directory of a test's own."""
    directory = Path(tempfile.mkdtemp(dir=home))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def local(node: Node) -> DragonflyFileSystem:
    """Over files of this machine's."""
    return DragonflyFileSystem("file", endpoint=str(node.socket))


@pytest.fixture
def url(origin: Origin, direct: None) -> str:
    """Of content, as fsspec takes it."""
    del direct
    origin.put("/x", CONTENT)
    return f"dragonfly::{origin.url('/x')}"


# -- a file ----------------------------------------------------------------------------------------


def test_a_url_is_opened(origin: Origin, url: str) -> None:
    """The daemon has it from the origin once, whoever reads it how often."""
    with fsspec.open(url) as file:
        assert isinstance(file, DragonflyFile)
        assert (file.size, file.mode, file.name) == (len(CONTENT), "rb", origin.url("/x"))
        assert file.read(10) == CONTENT[:10]
        assert file.seek(-10, os.SEEK_END) == len(CONTENT) - 10
        assert file.read() == CONTENT[-10:]
    with fsspec.open(url) as file:
        assert file.read() == CONTENT
    assert pantala.get(origin.url("/x")) == CONTENT
    assert origin.sent("/x") <= len(CONTENT) + 1


def test_lines_and_text(origin: Origin, direct: None) -> None:
    """As of every file; compressed ones, too."""
    del direct
    origin.put("/lines", LINES)
    with fsspec.open(f"dragonfly::{origin.url('/lines')}") as file:
        assert [*file] == LINES.splitlines(keepends=True)
    with fsspec.open(f"dragonfly::{origin.url('/lines')}", "rt") as file:
        assert file.readline() == "0,0\n"
    packed = io.BytesIO()
    with fsspec.compression.compr["gzip"](packed, mode="wb") as zipped:
        zipped.write(LINES)
    origin.put("/lines.gz", packed.getvalue())
    with fsspec.open(f"dragonfly::{origin.url('/lines.gz')}", compression="infer") as file:
        assert file.read() == LINES


def test_what_is_not_copied(url: str) -> None:
    """Pyarrow takes what it reads where it lies; the place moves as when it is read."""
    with fsspec.open(url) as file:
        file.read(5)
        view = file.read_buffer(100)
        assert view == CONTENT[5:105]
        assert view.readonly
        assert file.tell() == 105
        assert file.read(5) == CONTENT[105:110]
        assert file.read_buffer() == CONTENT[110:]
        assert file.read_buffer(9) == b""
    assert view == CONTENT[5:105]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        *((None, None), (0, None), (None, 7), (3, 9), (-9, None), (-9, -3), (5, -5), (None, -1)),
        *((9, 3), (5, 5), (len(CONTENT), None), (len(CONTENT) + 5, len(CONTENT) + 9)),
        *((len(CONTENT) - 3, len(CONTENT) + 9), (-len(CONTENT) - 9, 9), (-9, len(CONTENT))),
    ],
)
def test_bytes_are_those_of_a_slice(url: str, start: int | None, end: int | None) -> None:
    """Of one range, and of several at once."""
    fs, path = fsspec.url_to_fs(url)
    assert fs.cat_file(path, start, end) == CONTENT[start:end]
    (one, other) = fs.cat_ranges([path, path], [start, 1], [end, 4])
    assert (one, other) == (CONTENT[start:end], CONTENT[1:4])


def test_ranges_of_one_file_are_asked_for_together(
    origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of others beside them; errors stand in their places."""
    origin.put("/y", LINES)
    fs, x = fsspec.url_to_fs(url)
    y, absent = origin.url("/y"), origin.url("/absent")
    asked = []
    get_ranges = fs._client.get_ranges

    def spy(url: str, ranges: Any, **wishes: Any) -> Any:
        asked.append(url)
        return get_ranges(url, ranges, **wishes)

    monkeypatch.setattr(fs._client, "get_ranges", spy)
    found = fs.cat_ranges([x, y, x, absent, x], [0, 3, 100, 0, 9], [9, 6, 200, 4, None])
    assert sorted(asked) == sorted([x, y, absent])
    assert found[:3] == [CONTENT[:9], LINES[3:6], CONTENT[100:200]]
    assert isinstance(found[3], FileNotFoundError)
    assert found[4] == CONTENT[9:]
    assert fs.cat_ranges([x, y], 2, 5) == [CONTENT[2:5], LINES[2:5]]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([x, absent], 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="2 paths, 1 starts, 2 ends"):
        fs.cat_ranges([x, y], [0], [1, 2])


def test_a_file_is_written_whole(url: str, tmp_path: Path) -> None:
    """With word of how far it is; or to a file object."""
    fs, path = fsspec.url_to_fs(url)
    told = fsspec.Callback()
    fs.get_file(path, tmp_path / "new" / "x", callback=told)
    assert (tmp_path / "new" / "x").read_bytes() == CONTENT
    assert (told.size, told.value) == (len(CONTENT), len(CONTENT))
    fs.get(path, str(tmp_path / "y"))
    assert (tmp_path / "y").read_bytes() == CONTENT
    fs.get_file(path, into := io.BytesIO())
    assert into.getvalue() == CONTENT


def test_options_are_wishes(origin: Origin, url: str) -> None:
    """Of a file system, and of one file; what is none is refused."""
    with fsspec.open(url, tag="a", kind="STANDARD") as file:
        assert file.read() == CONTENT
    (task,) = [t for t in pantala.Client().list("STANDARD") if t.url == origin.url("/x")]
    assert task.details["tag"] == "a"
    fs, path = fsspec.url_to_fs(url)
    assert fs.open(path, tag="b", block_size=7).read() == CONTENT
    with pytest.raises(TypeError, match="no option 'colour'"):
        fs.open(path, colour="red")
    with pytest.raises(InvalidRequest, match="no option 'colour'"):
        fsspec.open(url, colour="red")
    with pytest.raises(InvalidRequest, match="digest: it is that of one file"):
        fsspec.open(url, digest="crc32:1")


@pytest.mark.parametrize(
    "options",
    [
        {"client_kwargs": {"headers": {"X-Key": "s"}}},
        {"headers": {"X-Key": "s"}},
    ],
)
def test_an_origin_is_sent_what_the_target_would(
    origin: Origin, url: str, options: dict[str, Any]
) -> None:
    """Headers; names and passwords; cookies."""
    origin.fault("/x", Fault(require=("X-Key", "s")))
    with pytest.raises(PermissionError, match="401"):
        fsspec.open(url).open()
    with fsspec.open(url, http=options) as file:
        assert file.read() == CONTENT


def test_an_origin_is_told_who_it_is(origin: Origin, url: str) -> None:
    """Names and passwords, and cookies, become headers; parameters must stand in the URL."""
    with warnings.catch_warnings(action="ignore"):  # which aiohttp would rather not have any more
        auth = aiohttp.BasicAuth("me", "pw")
    client = {"auth": auth, "cookies": {"a": "1", "b": "2"}}
    with fsspec.open(url, http={"client_kwargs": client}) as file:
        assert file.read(1) == CONTENT[:1]
    seen = [each for each in origin.requests if each.method == "GET"][-1].headers
    assert (seen["authorization"], seen["cookie"]) == ("Basic bWU6cHc=", "a=1; b=2")
    with pytest.raises(ValueError, match="params"):
        fsspec.open(url, http={"params": {"q": "1"}})


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((404, FileNotFoundError), (410, FileNotFoundError)),
        *((401, PermissionError), (403, PermissionError), (400, pantala.DragonflyError)),
    ],
)
def test_errors_are_those_of_files(
    origin: Origin, url: str, status: int, error: type[Exception], tmp_path: Path
) -> None:
    """Where files have such; others are ours."""
    origin.fault("/x", Fault(status=status))
    fs, path = fsspec.url_to_fs(url)
    calls: list[Callable[[], object]] = [
        lambda: fs.open(path),
        lambda: fs.cat_file(path),
        lambda: fs.cat_file(path, 3, 5),
        lambda: fs.get_file(path, tmp_path / "f"),
    ]
    for call in calls:
        with pytest.raises(error, match=str(status)):
            call()
    assert not (tmp_path / "f").exists()


def test_files_that_are_not_there(files: Path, local: DragonflyFileSystem) -> None:
    """And those that the daemon may not read."""
    with pytest.raises(FileNotFoundError):
        local.open(str(files / "none"))
    with pytest.raises(Forbidden, match="fileRoots"):
        local.cat_file("/etc/passwd")


def _writes() -> dict[str, Callable[[DragonflyFileSystem, str], object]]:
    return {
        "open": lambda fs, at: fs.open(at, "wb"),
        "append": lambda fs, at: fs.open(at, "ab"),
        "update": lambda fs, at: fs.open(at, "r+b"),
        "text": lambda fs, at: fs.open(at, "wt"),
        "mkdir": lambda fs, at: fs.mkdir(at + "d"),
        "makedirs": lambda fs, at: fs.makedirs(at + "d", exist_ok=True),
        "rmdir": lambda fs, at: fs.rmdir(at),
        "rm": lambda fs, at: fs.rm(at, recursive=True),
        "rm_file": lambda fs, at: fs.rm_file(at),
        "delete": lambda fs, at: fs.delete(at),
        "mv": lambda fs, at: fs.mv(at, at + "2"),
        "rename": lambda fs, at: fs.rename(at, at + "2"),
        "copy": lambda fs, at: fs.copy(at, at + "2"),
        "cp_file": lambda fs, at: fs.cp_file(at, at + "2"),
        "touch": lambda fs, at: fs.touch(at),
        "pipe": lambda fs, at: fs.pipe({at: b""}),
        "pipe_file": lambda fs, at: fs.pipe_file(at, b""),
        "write_text": lambda fs, at: fs.write_text(at, ""),
        "put": lambda fs, at: fs.put(at, at + "2"),
        "put_file": lambda fs, at: fs.put_file(at, at + "2"),
        "upload": lambda fs, at: fs.upload(at, at + "2"),
    }


@pytest.mark.parametrize("name", _writes())
def test_nothing_is_written(files: Path, local: DragonflyFileSystem, name: str) -> None:
    """Whatever is called, it says so, and all is as it was."""
    (files / "x").write_bytes(LINES)
    with pytest.raises(OSError, match="read-only") as caught:
        _writes()[name](local, str(files / "x"))
    assert caught.value.errno == errno.EROFS
    assert {path: path.read_bytes() for path in files.iterdir()} == {files / "x": LINES}


def test_a_target_is_needed_that_a_daemon_can_read(node: Node) -> None:
    """Else it is refused before anything is asked."""
    del node
    with pytest.raises(ValueError, match="want target_protocol="):
        fsspec.filesystem("dragonfly")
    with pytest.raises(ValueError, match="memory: a daemon reads http, https and file"):
        fsspec.filesystem("dragonfly", target_protocol="memory")


# -- what the target knows -------------------------------------------------------------------------


def test_files_are_listed_as_the_target_has_them(files: Path, local: DragonflyFileSystem) -> None:
    """Under the target's names, and with ours before them."""
    (files / "a b").mkdir()
    (files / "a b" / "100%#?").write_bytes(LINES)
    (files / "c").write_bytes(b"c")
    at = str(files)
    assert sorted(local.ls(at, detail=False)) == [f"{at}/a b", f"{at}/c"]
    assert local.find(f"dragonfly::{at}") == [f"{at}/a b/100%#?", f"{at}/c"]
    assert local.glob(f"{at}/*/1*") == [f"{at}/a b/100%#?"]
    assert [*local.walk(at)][1][2] == ["100%#?"]
    assert local.info(f"{at}/c")["size"] == 1
    assert (local.isdir(at), local.isfile(at), local.exists(f"{at}/d")) == (True, False, False)
    assert local.cat([f"{at}/c"]) == {f"{at}/c": b"c"}
    with pytest.raises(IsADirectoryError):
        local.cat(f"{at}/*")
    assert local.cat_file(f"{at}/a b/100%#?") == LINES
    url = local.unstrip_protocol(f"{at}/c")
    assert url == f"dragonfly::file://{at}/c"
    with fsspec.open(url) as file:
        assert file.read() == b"c"


def test_no_body_is_read_to_learn_that_there_is_one(origin: Origin, url: str) -> None:
    """The target would, and pyarrow asks that of each file that it opens."""
    fs, path = fsspec.url_to_fs(url)
    assert (fs.exists(path), fs.isfile(path), fs.isdir(path)) == (True, True, False)
    assert fs.info(path)["size"] == len(CONTENT)
    assert not fs.exists(origin.url("/none"))
    assert origin.sent("/x") == 0


# -- processes -------------------------------------------------------------------------------------


def test_pickles_are_the_same(url: str) -> None:
    """File systems, and files at their place."""
    fs, path = fsspec.url_to_fs(url, tag="t")
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301  our own
    assert again == fs
    assert again.cat_file(path, 0, 5) == CONTENT[:5]
    with fs.open(path) as file:
        file.seek(77)
        data = pickle.dumps(file)
    assert len(data) < 1000
    with pickle.loads(data) as other:  # noqa: S301  our own
        assert other.read(5) == CONTENT[77:82]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_other_processes_use_it(url: str, method: str) -> None:
    """That were forked with it, or were given it."""
    fs, path = fsspec.url_to_fs(url)
    assert fs.cat_file(path, 5, 9) == CONTENT[5:9]
    with multiprocessing.get_context(method).Pool(2) as pool:
        read = pool.starmap_async(fs.cat_file, [(path, 5, 9)] * 8).get(60)
    assert read == [CONTENT[5:9]] * 8
    assert fs.cat_file(path, 5, 9) == CONTENT[5:9]


# -- fsspec's own suite ----------------------------------------------------------------------------


class Furnished(DragonflyFileSystem):
    """One whose target takes the files that the suite sets its scenes with."""

    mkdir = filesystem._of_target("mkdir")
    makedirs = filesystem._of_target("makedirs")
    touch = filesystem._of_target("touch")
    pipe = filesystem._of_target("pipe")
    rm = filesystem._of_target("rm")


# The suite of older versions has such, and it is not ours.
@pytest.mark.filterwarnings("ignore:Class-scoped fixtures")
class TestGet(AbstractFixtures, AbstractGetTests):  # type: ignore[misc]  # fsspec has no types
    """What of it is about reading; all else writes."""

    @pytest.fixture
    def fs(self) -> Furnished:
        """What is tested."""
        return Furnished("file", {"auto_mkdir": True})

    @pytest.fixture
    def fs_path(self, files: Path) -> str:
        """Where its files are."""
        return str(files)
