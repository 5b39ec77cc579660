"""Files that are imported: kept by so many hosts, and exported again, with real programs alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pantala.testing.cluster import Cluster, Got, Node, Program
from pantala.testing.origin import Pattern
from pantala.testing.redis_server import RedisServer

MIB = 1 << 20
PATIENCE = 20.0

CONFIG: dict[str, Any] = {
    "scheduler": {"announceInterval": "500ms"},
    "download": {"server": {"allowImportPath": True}},
}


def start(
    cluster: Cluster,
    *names: str,
    grace: str = "1s",
    port: int = 0,
    redis: RedisServer | None = None,
) -> tuple[Program, list[Node]]:
    """A scheduler that takes a silent host for lost after *grace*, and daemons."""
    sqlite = {"sqlite": {"path": str(cluster.directory / "s.db")}}
    settings = {
        "scheduler": {
            "gc": {"hostGCInterval": "200ms", "replicaInterval": "200ms", "replicaGrace": grace}
        },
        "database": {"redis": {"addrs": [redis.address]}} if redis else sqlite,
    }
    path = cluster.directory / "scheduler.yaml"
    path.write_text(json.dumps(settings))
    scheduler = cluster.scheduler("--config", str(path), port=port)
    return scheduler, cluster.daemons(*names, config=CONFIG)


def file(cluster: Cluster, content: Pattern, name: str = "file") -> Path:
    """A file of that content."""
    path = cluster.directory / name
    path.write_bytes(content.read())
    return path


def imported(cluster: Cluster, node: Node, path: Path, *arguments: str) -> str:
    """Import a file; the task's id."""
    got = cluster.command("dfcache", node, "import", str(path), *arguments)
    assert got.code == 0, got
    return str(got.result["id"])


def export(cluster: Cluster, node: Node, task: str, *arguments: str) -> Got:
    """Export a task."""
    output = cluster.directory / f"out.{time.monotonic_ns()}"
    return cluster.command("dfcache", node, "export", task, "-O", str(output), *arguments)


def same(got: Got, content: Pattern) -> None:
    """*got* is *content*, to the byte."""
    expected = hashlib.sha256(content.read()).digest()
    assert hashlib.sha256(got.bytes()).digest() == expected


def stat(cluster: Cluster, node: Node, task: str) -> dict[str, object]:
    """What the cluster knows of a task."""
    got = cluster.command("dfcache", node, "stat", task)
    assert got.code == 0, got
    return got.result


def until_kept(cluster: Cluster, node: Node, task: str, number: int) -> float:
    """Wait until so many hosts keep a task; the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        got = cluster.command("dfcache", node, "stat", task)
        # A daemon whose scheduler has just come back may not have met it yet.
        if got.code == 0 and got.result["current_persistent_replica_count"] == number:
            return time.monotonic() - began
        time.sleep(0.1)  # it happens in other processes
    raise AssertionError(stat(cluster, node, task))


def holders(nodes: Sequence[Node], task: str) -> list[Node]:
    """Those of *nodes* that have all of a task."""
    return [n for n in nodes if task in n.tasks() and n.tasks()[task].HasField("finished_at")]


def test_a_holder_is_lost_for_good(cluster: Cluster) -> None:
    """Two replicas on three daemons; the third fetches what is missing."""
    _, nodes = start(cluster, "a", "b", "c")
    content = Pattern(9 * MIB + 17, 3)
    task = imported(cluster, nodes[0], file(cluster, content), "--persistent-replica-count", "2")
    until_kept(cluster, nodes[0], task, 2)
    first, second = holders(nodes, task)
    (third,) = [node for node in nodes if node not in (first, second)]
    first.kill()
    deadline = time.monotonic() + PATIENCE
    while holders([third], task) != [third]:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # it happens in other processes
    until_kept(cluster, second, task, 2)
    second.kill()
    same(export(cluster, third, task, "--digest", f"sha256:{content.digest()}"), content)


def test_export_anywhere(cluster: Cluster) -> None:
    """A host that keeps nothing fetches it from one that does; its copy may go again."""
    _, nodes = start(cluster, "a", "b", "c")
    content = Pattern(5 * MIB, 4)
    path = file(cluster, content)
    task = imported(cluster, nodes[0], path, "--persistent-replica-count", "1", "--tag", "t")
    assert stat(cluster, nodes[2], task) == {
        **stat(cluster, nodes[0], task),
        "id": task,
        "tag": "t",
        "state": "Succeeded",
        "content_length": content.size,
        "current_persistent_replica_count": 1,
    }
    same(export(cluster, nodes[1], task), content)
    same(export(cluster, nodes[2], task, "--transfer-from-dfdaemon"), content)
    linked = export(cluster, nodes[1], task, "--force-hard-link")
    same(linked, content)
    assert linked.path.stat().st_nlink == 2
    assert stat(cluster, nodes[0], task)["current_replica_count"] == 3

    # The file itself is a user's again, and nothing of the task's.
    path.write_bytes(b"other")
    same(export(cluster, nodes[2], task), content)


def test_a_copy_that_is_dropped_is_made_up_for(cluster: Cluster) -> None:
    """Whoever removes a replica from a host, the scheduler hears of it and asks another."""
    _, nodes = start(cluster, "a", "b", "c")
    content = Pattern(MIB, 5)
    task = imported(cluster, nodes[0], file(cluster, content), "--persistent-replica-count", "2")
    until_kept(cluster, nodes[0], task, 2)
    gone, left = holders(nodes, task)
    assert cluster.command("dfctl", gone, "persistent-cache-task", "rm", task).code == 0
    assert gone.tasks() == {}
    until_kept(cluster, left, task, 2)
    assert len(holders(nodes, task)) == 2
    same(export(cluster, gone, task), content)

    # From all of them, it is gone for good.
    assert cluster.command("dfctl", left, "persistent-cache-task", "rm", "--swarm", task).code == 0
    assert holders(nodes, task) == []
    assert "not found" in export(cluster, gone, task).refusal


def test_restarts(cluster: Cluster) -> None:
    """Replicas and who has them outlive every process."""
    scheduler, nodes = start(cluster, "a", "b", grace="60s")
    content = Pattern(6 * MIB, 6)
    task = imported(cluster, nodes[0], file(cluster, content), "--persistent-replica-count", "2")
    until_kept(cluster, nodes[0], task, 2)
    scheduler.kill()
    for node in nodes:
        node.kill()
    _, (a, b) = start(cluster, "a", "b", grace="60s")
    until_kept(cluster, a, task, 2)
    assert stat(cluster, a, task)["current_replica_count"] == 2
    assert holders([a, b], task) == [a, b]
    a.kill()
    same(export(cluster, b, task), content)


def test_without_a_scheduler(cluster: Cluster) -> None:
    """Nothing is given, for it may be another file's by now; it is there again with a scheduler."""
    scheduler, (a, b) = start(cluster, "a", "b")
    content = Pattern(MIB, 7)
    path = file(cluster, content)
    task = imported(cluster, a, path, "--persistent-replica-count", "1")
    scheduler.kill()
    for node in (a, b):
        assert "scheduler" in export(cluster, node, task).refusal
    assert "scheduler" in cluster.command("dfcache", a, "stat", task).stderr
    got = cluster.command("dfcache", a, "import", str(path), "--tag", "new")
    assert got.code == 1
    assert "scheduler" in got.stderr
    assert list(a.tasks()) == [task]
    start(cluster, port=int(scheduler.ready["port"]))
    until_kept(cluster, a, task, 1)
    same(export(cluster, a, task), content)


def test_a_scheduler_that_is_restarted_in_the_middle(cluster: Cluster) -> None:
    """The import goes on, and ends when there is a scheduler to hear of it."""
    scheduler, (a, b) = start(cluster, "a", "b", grace="60s")
    content = Pattern(200 * MIB, 8)
    path = file(cluster, content)
    begun = cluster.begin_command(
        "dfcache", a, "import", str(path), "--content-for-calculating-task-id", "x"
    )
    until_begun(a)
    scheduler.kill()
    start(cluster, grace="60s", port=int(scheduler.ready["port"]))
    got = cluster.finish(*begun)
    assert got.code == 0, got
    task = str(got.result["id"])
    until_kept(cluster, a, task, 2)
    same(export(cluster, b, task), content)


def until_begun(node: Node) -> None:
    """Wait until some of an import is here."""
    deadline = time.monotonic() + PATIENCE
    while not any(task.finished_piece_count for task in node.tasks().values()):
        assert time.monotonic() < deadline


def test_a_daemon_that_is_killed_in_the_middle(cluster: Cluster) -> None:
    """Nothing of the import is left, here or at the scheduler, and it can be begun anew."""
    _, (a, b) = start(cluster, "a", "b")
    content = Pattern(200 * MIB, 9)
    path = file(cluster, content)
    words = ("import", str(path), "--content-for-calculating-task-id", "x")
    begun = cluster.begin_command("dfcache", a, *words)
    until_begun(a)
    a.kill()
    assert cluster.finish(*begun).code == 1
    (a,) = start_again(cluster, "a")
    assert a.tasks() == {}
    stored = cluster.directory / "a.data" / "content"
    assert [path for path in stored.rglob("*") if path.is_file()] == []
    other = Pattern(3 * MIB, 10)
    path.write_bytes(other.read())
    task = imported_in_time(cluster, b, path, *words[2:])
    same(export(cluster, a, task), other)


def test_a_daemon_and_its_scheduler_are_killed_in_the_middle(cluster: Cluster) -> None:
    """A scheduler that has not seen the start finds out that nobody carries the import on."""
    scheduler, (a, b) = start(cluster, "a", "b", grace="60s")
    content = Pattern(200 * MIB, 9)
    path = file(cluster, content)
    words = ("import", str(path), "--content-for-calculating-task-id", "x")
    begun = cluster.begin_command("dfcache", a, *words)
    until_begun(a)
    a.kill()
    scheduler.kill()
    assert cluster.finish(*begun).code == 1
    start(cluster, grace="60s", port=int(scheduler.ready["port"]))
    start_again(cluster, "a")
    other = Pattern(3 * MIB, 10)
    path.write_bytes(other.read())
    task = imported_in_time(cluster, b, path, *words[2:])
    same(export(cluster, b, task), other)


def imported_in_time(cluster: Cluster, node: Node, path: Path, *arguments: str) -> str:
    """Import a file as soon as the scheduler has noticed that the import before came to nothing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        got = cluster.command("dfcache", node, "import", str(path), *arguments)
        if got.code == 0:
            return str(got.result["id"])
        assert "imports it now" in got.stderr or "no scheduler" in got.stderr, got
        assert time.monotonic() < deadline


def start_again(cluster: Cluster, name: str, rate: str | None = None) -> list[Node]:
    """A daemon of that name, as it was, but that it may receive so many bytes a second."""
    config = json.loads((cluster.directory / f"{name}.yaml").read_text())
    if rate is not None:
        config["download"]["bandwidthLimit"] = rate
    return [cluster.daemon(name, config=config)]


def test_another_file_by_the_same_name(cluster: Cluster) -> None:
    """A host that was away has the old one, and gives away the new one."""
    _, (a, b) = start(cluster, "a", "b")
    name = "--content-for-calculating-task-id", "x", "--persistent-replica-count", "1"
    old, new = Pattern(5 * MIB, 11), Pattern(5 * MIB, 12)
    task = imported(cluster, a, file(cluster, old), *name)
    same(export(cluster, b, task), old)
    b.kill()
    assert cluster.command("dfctl", a, "persistent-cache-task", "rm", "--swarm", task).code in {
        0,
        1,
    }
    assert imported(cluster, a, file(cluster, new), *name) == task
    (b,) = start_again(cluster, "b")
    assert task in b.tasks()
    same(export(cluster, b, task), new)
    again = cluster.command("dfcache", b, "import", str(file(cluster, old)), *name)
    assert "is here already" in again.stderr


def test_bad_input(cluster: Cluster) -> None:
    """One line for each, and nothing is changed by it."""
    _, (a,) = start(cluster, "a")
    directory = cluster.directory / "d"
    directory.mkdir()
    words = {
        "no such file": str(cluster.directory / "none"),
        "no file": str(directory),
    }
    for expected, wrong in words.items():
        got = cluster.command("dfcache", a, "import", wrong)
        assert got.code == 2
        assert expected in got.stderr.splitlines()[-1]
    got = export(cluster, a, "f" * 64)
    assert got.refusal.endswith(f": task {'f' * 64} not found")
    path = file(cluster, Pattern(MIB, 13))
    task = imported(cluster, a, path, "--persistent-replica-count", "1")
    refused = export(cluster, a, task, "--digest", "sha256:" + "0" * 64)
    assert "sha256" in refused.refusal
    same(export(cluster, a, task), Pattern(MIB, 13))
    assert len(a.tasks()) == 1


def slow(cluster: Cluster, name: str) -> Node:
    """A daemon that takes seconds to receive a few MiB."""
    download = {**CONFIG["download"], "bandwidthLimit": "4MiB"}
    return cluster.daemon(name, config={**CONFIG, "download": download})


def test_a_host_that_is_killed_while_it_fetches_a_replica(cluster: Cluster) -> None:
    """Another fetches it, or it goes on when it is back; nobody keeps half of it."""
    _, (a,) = start(cluster, "a")
    b = slow(cluster, "b")
    content = Pattern(12 * MIB, 14)
    task = imported(cluster, a, file(cluster, content), "--persistent-replica-count", "2")
    until_begun(b)
    b.kill()
    assert stat(cluster, a, task)["current_persistent_replica_count"] == 1
    (b,) = start_again(cluster, "b", rate="1GiB")
    until_kept(cluster, b, task, 2)
    assert holders([a, b], task) == [a, b]
    a.kill()
    same(export(cluster, b, task), content)


def test_the_only_holder_is_killed_while_others_fetch_from_it(cluster: Cluster) -> None:
    """It has all of it when it is back, and then there are as many as were wanted."""
    _, (a,) = start(cluster, "a", grace="60s")
    b = slow(cluster, "b")
    content = Pattern(12 * MIB, 15)
    task = imported(cluster, a, file(cluster, content), "--persistent-replica-count", "2")
    until_begun(b)
    a.kill()
    (a,) = start_again(cluster, "a")
    assert holders([a], task) == [a]
    until_kept(cluster, b, task, 2)
    a.kill()
    same(export(cluster, b, task), content)


def test_killed_in_the_middle_of_an_export(cluster: Cluster) -> None:
    """It is told in a line, and leaves nothing where the file was to be; then it can be had."""
    _, (a,) = start(cluster, "a")
    b = slow(cluster, "b")
    content = Pattern(12 * MIB, 16)
    task = imported(cluster, a, file(cluster, content), "--persistent-replica-count", "1")
    for flags in ((), ("--transfer-from-dfdaemon",)):
        output = cluster.directory / f"out{len(flags)}"
        words = ("export", task, "-O", str(output), *flags)
        begun = cluster.begin_command("dfcache", b, *words)
        until_begun(b)
        b.kill()
        assert "b.sock" in cluster.finish(*begun).refusal
        (b,) = start_again(cluster, "b")
        assert cluster.command("dfctl", b, "persistent-cache-task", "rm", task).code in {0, 1}
    b.kill()
    (b,) = start_again(cluster, "b", rate="1GiB")
    same(export(cluster, b, task), content)


def test_a_disk_that_was_lost(cluster: Cluster) -> None:
    """A host that comes back without its replica is not counted for long."""
    _, nodes = start(cluster, "a", "b", grace="60s")
    a, b = nodes
    content = Pattern(MIB, 17)
    task = imported(cluster, a, file(cluster, content), "--persistent-replica-count", "2")
    until_kept(cluster, a, task, 2)
    b.kill()
    shutil.rmtree(cluster.directory / "b.data")
    (b,) = start_again(cluster, "b")
    deadline = time.monotonic() + PATIENCE
    while holders([b], task) != [b]:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # it happens in other processes
    until_kept(cluster, a, task, 2)
    a.kill()
    same(export(cluster, b, task), content)


def test_redis_gone_and_back(cluster: Cluster, tmp_path: Path) -> None:
    """An import waits for it, an export is refused in words; nothing is lost."""
    with RedisServer(tmp_path) as redis:
        _, (a, b) = start(cluster, "a", "b", redis=redis)
        kept = Pattern(3 * MIB, 18)
        first = imported(cluster, a, file(cluster, kept), "--persistent-replica-count", "1")
        content = Pattern(200 * MIB, 19)
        path = file(cluster, content, "large")
        words = ("import", str(path), "--content-for-calculating-task-id", "x")
        begun = cluster.begin_command("dfcache", a, *words)
        deadline = time.monotonic() + PATIENCE
        while not any(not task.HasField("finished_at") for task in a.tasks().values()):
            assert time.monotonic() < deadline
        redis.kill()
        for _ in range(2):  # and the scheduler is there for all else
            for node in (a, b):
                assert "edis" in export(cluster, node, first).refusal
        assert cluster.command("dfcache", b, "stat", first).code == 1
        redis.start()
        got = cluster.finish(*begun)
        assert got.code == 0, got
        task = str(got.result["id"])
        until_kept(cluster, a, task, 2)
        same(export(cluster, b, task), content)
        same(export(cluster, b, first), kept)
