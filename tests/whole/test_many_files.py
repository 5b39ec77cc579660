"""``dfget`` with many URLs, at a daemon that runs."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pantala.testing.cluster import Cluster, Got
from pantala.testing.origin import Origin
from pantala.testing.origin_server import Fault
from pantala.testing.program import Node, until

MIB = 1 << 20


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """A daemon of a machine's."""
    cluster.capacity = "64MiB"
    return cluster.daemon("a")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the files go; not made."""
    return tmp_path / "out"


def fetch(cluster: Cluster, node: Node, out: Path, *arguments: str) -> Got:
    """Run ``dfget`` of CACHE tasks, with JSON."""
    words = ["--cache", "-O", f"{out}/", *arguments]
    return cluster.command("dfget", node, *words)


def lines(got: Got) -> list[dict[str, object]]:
    """What was printed, a line each."""
    return [json.loads(line) for line in got.stdout.splitlines()]


def listed(path: Path, urls: Sequence[str]) -> str:
    """A file with these URLs; its name."""
    path.write_text("".join(f"{url}\n" for url in urls))
    return str(path)


def test_two_hundred(cluster: Cluster, node: Node, origin: Origin, out: Path) -> None:
    """All come, small ones and large, cold and hot, over as many connections as jobs."""
    contents = {f"f{n:03d}": os.urandom(n * 100) for n in range(198)}
    contents |= {"large": os.urandom(5 * MIB), "larger": os.urandom(6 * MIB)}
    for name, content in contents.items():
        origin.put(f"/{name}", content)
    urls = listed(out.with_name("urls"), [origin.url(f"/{name}") for name in contents])
    for hot in (False, True):
        asked = origin.count()
        got = fetch(cluster, node, out, "-i", urls, "-j", "3", "--overwrite")
        assert (got.code, got.stderr) == (0, "")
        assert {path.name: path.read_bytes() for path in out.iterdir()} == contents
        told = {str(line["url"]): line for line in lines(got)}
        assert len(told) == len(contents)
        one = told[origin.url("/f007")]
        assert one["output"] == f"{out}/f007"
        assert one["content_length"] == one["length"] == 700
        if hot:
            assert all(line["bytes_from_cache"] == line["length"] for line in told.values())
            assert origin.count() == asked


def test_one_that_fails_does_not_keep_the_others(
    cluster: Cluster, node: Node, origin: Origin, out: Path
) -> None:
    """Each is told of; what was there before stays."""
    gone = Origin()
    refused = gone.url("/refused")
    gone.stop()
    names = [f"f{n}" for n in range(12)]
    for name in names:
        origin.put(f"/{name}", name.encode() * 1000)
    out.mkdir()
    (out / "f3").write_text("former")
    urls = [origin.url(f"/{name}") for name in names]
    urls[5:5] = [origin.url("/missing"), refused]
    got = fetch(cluster, node, out, *urls, "-j", "2")
    assert got.code == 1
    errors = sorted(got.stderr.splitlines())
    assert len(errors) == 3
    assert f"dfget: {out}/f3 exists already: use --overwrite to replace it" in errors
    assert any(line.startswith(f"dfget: {out}/missing: ") and "404" in line for line in errors)
    assert any(line.startswith(f"dfget: {out}/refused: ") for line in errors)
    failed = {line["url"]: line for line in lines(got) if "error" in line}
    assert set(failed) == {origin.url("/f3"), origin.url("/missing"), refused}
    missing = failed[origin.url("/missing")]
    assert missing.keys() == {"url", "output", "error"}
    error = missing["error"]
    assert isinstance(error, dict)
    assert error["status_code"] == 404
    assert (out / "f3").read_text() == "former"
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert all((out / n).read_bytes() == n.encode() * 1000 for n in names if n != "f3")


def test_ctrl_c_in_the_midst(cluster: Cluster, node: Node, origin: Origin, out: Path) -> None:
    """What is whole stays, what is not leaves nothing behind, and it ends at once."""
    for name in ("a", "b"):
        origin.put(f"/{name}", name.encode() * 1000)
    for name in ("slow", "slower", "never"):
        origin.put(f"/{name}", os.urandom(9 * MIB))
        origin.fault(f"/{name}", Fault(stall_after=MIB))
    urls = [origin.url(f"/{name}") for name in ("a", "b", "slow", "slower", "never")]
    words = ["--cache", "-O", f"{out}/", "-j", "2", *urls]
    process, _ = cluster.begin_command("dfget", node, *words)
    until(lambda: origin.sent("/slow") >= MIB and origin.sent("/slower") >= MIB, "under way")
    process.send_signal(signal.SIGINT)
    got = cluster.finish(process, out)
    assert got.code == 128 + signal.SIGINT
    told = re.fullmatch(
        f"dfget: stopped by SIGINT; the daemon goes on with the download: dfctl cache-task rm "
        f"-e {node.socket} (\\w{{64}}) (\\w{{64}}) stops that\n",
        got.stderr,
    )
    assert told, got.stderr
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    *done, stopped = lines(got)
    assert sorted(str(line["url"]) for line in done) == urls[:2]
    assert stopped.keys() == {"error"}
    assert origin.count("/never") == 0
    assert cluster.command("dfctl", node, "cache-task", "rm", *told.groups()).code == 0
    origin.release()
    assert cluster.command("dfctl", node, "cache-task", "ls").result["used_bytes"] < 2 * MIB


@pytest.mark.parametrize("cache", [True, False])
def test_ctrl_c_of_one(
    cluster: Cluster, node: Node, origin: Origin, out: Path, *, cache: bool
) -> None:
    """It says how to stop the daemon, and that does."""
    origin.put("/slow", os.urandom(9 * MIB))
    origin.fault("/slow", Fault(stall_after=MIB))
    words = [origin.url("/slow"), "-O", str(out), *["--cache"] * cache]
    process, _ = cluster.begin_command("dfget", node, *words)
    until(lambda: origin.sent("/slow") >= MIB, "under way")
    process.send_signal(signal.SIGINT)
    got = cluster.finish(process, out)
    assert got.code == 128 + signal.SIGINT
    kind = "cache-task" if cache else "task"
    told = re.search(f": dfctl ({kind}) (rm) -e {node.socket} (\\w{{64}}) stops that\n", got.stderr)
    assert told, got.stderr
    assert cluster.command("dfctl", node, *told.groups()).code == 0
    origin.release()
    assert cluster.command("dfctl", node, kind, "ls").result["tasks"] == []


def test_a_list_that_comes_through_a_pipe(
    cluster: Cluster, node: Node, origin: Origin, out: Path
) -> None:
    """It is read to its end before anything is asked."""
    for name in "ab":
        origin.put(f"/{name}", name.encode() * 1000)
    fifo = out.with_name("fifo")
    os.mkfifo(fifo)
    words = ["--cache", "-O", f"{out}/", "-j", "1", "-i", str(fifo)]
    process, _ = cluster.begin_command("dfget", node, *words)
    with fifo.open("w") as pipe:
        pipe.write(f"{origin.url('/a')}\n")
        pipe.flush()
        assert not out.exists()
        pipe.write(f"{origin.url('/b')}\n")
    assert cluster.finish(process, out).code == 0
    assert (out / "b").read_bytes() == b"b" * 1000


def test_no_daemon(cluster: Cluster, node: Node, origin: Origin, out: Path) -> None:
    """Is told of once, not for each file."""
    node.kill()
    got = fetch(cluster, node, out, *(origin.url(f"/{name}") for name in "abc"))
    assert got.code == 1
    assert got.stderr.count("no daemon at") == 1
    (line,) = lines(got)
    assert line.keys() == {"error"}


@pytest.mark.parametrize("kind", ["cache-task", "task"])
def test_what_dfget_got_by_a_url_dfctl_knows_by_it(
    cluster: Cluster, origin: Origin, out: Path, kind: str
) -> None:
    """With the same flags; and by the beginning of its id."""
    cluster.scheduler()
    other = cluster.daemon("b")
    origin.put("/a", b"a" * 1000)
    url, flags = origin.url("/a?X-Amz-Signature=1"), ("--tag", "t", "-H", "Accept: text/plain")
    words = [url, "-O", str(out), *flags, *["--cache"] * (kind == "cache-task")]
    got = cluster.command("dfget", other, *words).result
    again = origin.url("/a?X-Amz-Signature=2")
    assert cluster.command("dfctl", other, kind, "stat", again).code == 1
    for name in ((again, *flags), (got["task_id"][:8],)):
        found = cluster.command("dfctl", other, kind, "stat", *name).result
        assert found["id"] == got["task_id"]
    removed = cluster.command("dfctl", other, kind, "rm", again, *flags).result
    assert removed["removed"] == [origin.url("/a")]
    assert cluster.command("dfctl", other, kind, "ls").result["tasks"] == []
