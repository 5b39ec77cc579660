"""What happens to disks: they are full, read-only, elsewhere or gone, and forget what they had."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pantala.model.task import Kind
from pantala.testing import own_disk
from pantala.testing.cluster import Cluster, Node, Program, StartFailed, until
from pantala.testing.origin import Fault, Origin, Pattern

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)

#: Of a daemon that has what it had when it starts again.
KEEPING = {"storage": {"keep": True}}


@pytest.fixture(autouse=True)
def _files(cluster: Cluster) -> None:
    """Content is in files."""
    cluster.kind = Kind.STANDARD


def on_own_disk(cluster: Cluster, options: str, **terms: Any) -> Node:
    """A daemon whose directory is a disk of its own."""
    directory = cluster.directory / "own.data"
    cluster.wrapper = ("pantala.testing.own_disk", str(directory), options)
    try:
        node = cluster.daemon("own", wait=False, **terms)
    finally:
        cluster.wrapper = ()
    try:
        node.ready = node.wait_for("ready")
    except StartFailed:
        if node.process.wait(30) == own_disk.REFUSED:
            pytest.skip("nobody may mount anything here")
    node.content_dir = Path(f"/proc/{node.pid}/root{directory}/content")
    return node


def file_of(node: Node, task_id: str) -> Path:
    """Where the content of a task is."""
    return node.content_dir / "tasks" / task_id[:3] / task_id


def fill(path: Path) -> None:
    """Take all the room that a disk has."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))


def the_line_of(program: Program) -> str:
    """What a daemon says that does not start."""
    assert program.process.wait(30) == 1
    (line,) = program.log.splitlines()
    return line


def test_full_in_the_middle(cluster: Cluster, origin: Origin) -> None:
    """Somebody else fills it: the user reads so, nobody is blamed, and later there is room."""
    cluster.scheduler()
    other = cluster.daemon("a")
    config = {"gc": {"policy": {"diskThreshold": 0}}, "download": {"concurrentPieceCount": 1}}
    node = on_own_disk(cluster, "size=24m", config=config)
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=8 * MIB))
    download = cluster.begin(node, origin.url("/f"))
    until(lambda: [t.finished_piece_count for t in node.tasks().values()] == [1], "a piece here")
    filler = node.content_dir.parent / "filler"
    fill(filler)
    line = cluster.finish(*download).refusal
    # What finds no room first is a piece, or the journal.
    assert "on the disk: No space left on device" in line or "journal.db: database or disk" in line
    assert node.alive
    origin.heal("/f")
    assert "no room on disk" in cluster.get(node, origin.url("/f"), "--timeout", "1s").refusal
    filler.unlink()
    for each in (node, other):
        assert cluster.get(each, origin.url("/f")).bytes() == CONTENT.read()
    assert not [line for line in node.events if line.get("event") == "origin failed"]
    assert not node.errors


def test_read_only_from_the_start(cluster: Cluster) -> None:
    """It says so, and what to do."""
    node = on_own_disk(cluster, "ro")
    directory = cluster.directory / "own.data"
    assert the_line_of(node) == (
        f"dfdaemon: cannot use storage.dir {directory}: Read-only file system; make it writable "
        "for this user, or set storage.dir to another directory"
    )


def test_two_daemons_of_one_directory(cluster: Cluster, origin: Origin) -> None:
    """The second is refused, and takes nothing from the first."""
    first = cluster.daemon("a")
    origin.put("/f", CONTENT)
    assert cluster.get(first, origin.url("/f")).bytes() == CONTENT.read()
    directory = first.content_dir.parent
    line = the_line_of(cluster.daemon("b", "--data-dir", str(directory), wait=False))
    assert f"storage.dir {directory} is in use by another daemon (process {first.pid})" in line
    origin.pause()
    got = cluster.get(first, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_cache"] == CONTENT.size


def test_gone(cluster: Cluster, origin: Origin) -> None:
    """Somebody removes it: what was there is fetched again, and nobody is given a wrong byte."""
    cluster.scheduler()
    node, child = cluster.daemon("a", config=KEEPING), cluster.daemon("b")
    origin.put("/f", CONTENT)
    origin.put("/g", CONTENT)
    assert cluster.get(node, origin.url("/f")).bytes() == CONTENT.read()
    shutil.rmtree(node.content_dir.parent)
    assert cluster.get(child, origin.url("/f")).bytes() == CONTENT.read()
    for path in ("/g", "/f"):
        assert cluster.get(node, origin.url(path)).bytes() == CONTENT.read()
    node.stop()
    again = cluster.daemon("a", config=KEEPING)
    assert cluster.get(again, origin.url("/f")).bytes() == CONTENT.read()
    assert not again.errors


def test_an_output_on_another_file_system(cluster: Cluster, origin: Origin) -> None:
    """It is a copy; where it must be a hard link, the user reads why it cannot."""
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == cluster.directory.stat().st_dev:  # noqa: PTH116  of a name
            pytest.skip("there is one file system")
        path = Path(elsewhere, "out")
        got = cluster.get(node, origin.url("/f"), "--force-hard-link", output=path)
        assert f"cannot make {path} a hard link" in got.refusal
        got = cluster.get(node, origin.url("/f"), output=path)
        assert got.bytes() == CONTENT.read()
        assert path.stat().st_nlink == 1
    linked = cluster.get(node, origin.url("/f"), "--force-hard-link")
    assert linked.bytes() == CONTENT.read()
    assert linked.path.samefile(file_of(node, got.result["task_id"]))


@pytest.mark.parametrize("alive", [True, False], ids=["origin", "no origin"])
def test_a_bit_that_flips(cluster: Cluster, origin: Origin, *, alive: bool) -> None:
    """A child has no wrong byte; the piece is dropped where it was, and fetched again."""
    cluster.scheduler()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    task = cluster.get(holder, origin.url("/f")).result["task_id"]
    with file_of(holder, task).open("r+b") as file:
        file.seek(5 * MIB)
        (byte,) = file.read(1)
        file.seek(5 * MIB)
        file.write(bytes((byte ^ 8,)))
    if not alive:
        origin.pause()
        assert "connection refused" in cluster.get(child, origin.url("/f")).refusal
        origin.resume()
    got = cluster.get(child, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
    assert [(e["task"], e["piece"]) for e in holder.errors] == [(task, 1)]
    assert holder.tasks()[task].finished_piece_count == 2
    origin.pause()
    got = cluster.get(holder, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_peers"] == 4 * MIB


@pytest.mark.parametrize("how", ["no database", "a page"])
def test_a_journal_that_is_damaged(cluster: Cluster, origin: Origin, how: str) -> None:
    """Said in a line; it is moved aside, and all begins anew."""
    first = cluster.daemon("a", config=KEEPING)
    origin.put("/f", CONTENT)
    assert cluster.get(first, origin.url("/f")).bytes() == CONTENT.read()
    assert first.stop() == 0
    journal = first.content_dir.parent / "journal.db"
    with sqlite3.connect(journal) as db:
        (count,) = db.execute("SELECT count(*) FROM piece").fetchone()
        assert count == 3
    db.close()
    with journal.open("r+b") as file:
        file.seek(0 if how == "no database" else 4096)
        file.write(b"?" * 4096)
    second = cluster.daemon("a", config=KEEPING)
    (line,) = second.errors
    assert line["event"] == "journal damaged: begun anew"
    assert line["path"] == f"{journal}.damaged"
    assert Path(line["path"]).is_file()
    assert not second.tasks()
    assert not [path for path in second.content_dir.rglob("*") if path.is_file()]
    assert cluster.get(second, origin.url("/f")).bytes() == CONTENT.read()
    second.kill()
    origin.pause()
    third = cluster.daemon("a", config=KEEPING)
    assert not third.errors
    got = cluster.get(third, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_cache"] == CONTENT.size
