"""Jobs that outlive their scheduler, with real processes: killed, started anew, taken over."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.testing.cluster import Cluster, Got, Node, Program, until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin
from pantala.testing.redis_server import RedisServer

FILES, SIZE = 16, 1 << 20
HOSTS = ("a", "b", "c")


@pytest.fixture
def slow() -> Iterator[Origin]:
    """An origin that takes seconds for all files."""
    with Origin(rate=2 << 20) as origin:
        for number in range(FILES):
            origin.put(f"/{number}", Pattern(SIZE, seed=number))
        yield origin


def whole(node: Node) -> set[str]:
    """Ids of the tasks of which it has everything."""
    return {one for one, task in node.tasks().items() if task.HasField("finished_at")}


def dfctl(cluster: Cluster, *arguments: str) -> Got:
    """Run it to its end."""
    words = (*arguments, "--scheduler-endpoint", cluster.schedulers)
    return cluster.finish(cluster._begin("pantala.cli.dfctl", words), cluster.directory)


def job(cluster: Cluster) -> dict[str, Any]:
    """The only one, if it has begun."""
    got = dfctl(cluster, "job", "ls", "--json")
    assert got.code == 0, got
    (one,) = got.result["jobs"] or [{"done": 0, "state": ""}]
    return dict(one)


def check(cluster: Cluster, nodes: list[Node], urls: list[str], got: Got) -> None:
    """What dfctl has said, what the scheduler says, and what is there, are the same."""
    ids = {task_id(cluster.kind, url) for url in urls}
    assert got.code == 0, got
    *pairs, last = map(json.loads, got.stdout.splitlines())
    assert last["done"] == FILES * len(nodes)
    assert len({(row["url"], row["host_id"]) for row in pairs}) == FILES * len(nodes)
    shown = dfctl(cluster, "job", "show", last["job_id"], "--json").result
    assert shown["job"]["state"] == "ended"
    assert (shown["job"]["done"], shown["job"]["failed"]) == (FILES * len(nodes), 0)
    assert {row["state"] for row in shown["pairs"]} == {"done"}
    assert {(row["url"], row["host_id"]) for row in shown["pairs"]} == {
        (row["url"], row["host_id"]) for row in pairs
    }
    for node in nodes:
        assert whole(node) == ids


def times_asked(node: Node) -> dict[str, int]:
    """How often a host was asked for each URL, as far as its own log tells."""
    found: dict[str, int] = {}
    for line in node.events:
        if line.get("event") == "download finished":
            found[line["url"]] = found.get(line["url"], 0) + 1
    return found


def test_a_scheduler_is_killed_and_started_anew(
    kind: Kind, cluster: Cluster, scheduler: Program, slow: Origin
) -> None:
    """The job is carried on, dfctl stays with it, and what was done is not asked again."""
    del kind
    nodes = cluster.daemons(*HOSTS)
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    begun = cluster.begin_preheat(
        *urls, "--scope", "all_peers", "--durable", "--concurrent-task-count", "2"
    )
    until(lambda: all(len(whole(node)) >= 4 for node in nodes), "four files on each host")
    until(lambda: job(cluster)["done"] >= 9, "that they are told of")
    before = job(cluster)["done"]
    scheduler.kill()
    anew = cluster.scheduler(port=cluster.scheduler_port)
    got = cluster.finish(*begun, patience=90)

    check(cluster, nodes, urls, got)
    assert "goes on, and is looked for again" in got.stderr
    carried = anew.wait_for("job carried on")
    assert carried["pending"] <= FILES * len(nodes) - before + 2 * len(nodes)
    assert not anew.errors
    for node in nodes:  # none but those that were under way, or not written yet, twice
        assert sum(count > 1 for count in times_asked(node).values()) <= 4


def test_another_worker_takes_over(cluster: Cluster, slow: Origin) -> None:
    """One of several dies for good, as far as the job can tell."""
    program = cluster.scheduler(workers=3)
    nodes = cluster.daemons(*HOSTS)
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    begun = cluster.begin_preheat(*urls, "--scope", "all_peers", "--durable")
    until(lambda: job(cluster)["done"] >= 6, "two files on each host")
    (began,) = [line for line in program.events if line.get("event") == "job"]
    pids = [line["pid"] for line in program.events if line.get("event") == "worker started"]
    psutil.Process(pids[began["worker"]]).kill()
    got = cluster.finish(*begun, patience=90)
    check(cluster, nodes, urls, got)
    carried = [line for line in program.events if line.get("event") == "job carried on"]
    assert len(carried) == 1


def test_one_that_hangs_and_comes_back(cluster: Cluster, slow: Origin) -> None:
    """Another has taken over by then: it stops, and neither undoes nor doubles what was done."""
    program = cluster.scheduler(workers=2)
    nodes = cluster.daemons(*HOSTS)
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    begun = cluster.begin_preheat(*urls, "--scope", "all_peers", "--durable")
    until(lambda: job(cluster)["done"] >= 6, "two files on each host")
    (began,) = [line for line in program.events if line.get("event") == "job"]
    pids = [line["pid"] for line in program.events if line.get("event") == "worker started"]
    owner = psutil.Process(pids[began["worker"]])
    owner.suspend()
    carried = program.wait_for("job carried on")
    assert carried["worker"] != began["worker"]
    owner.resume()
    check(cluster, nodes, urls, cluster.finish(*begun, patience=90))
    ends = [line for line in program.events if line.get("event") == "job ended"]
    how = {line["worker"]: line.get("interrupted", "") for line in ends}
    assert "another scheduler carries it on" in how[began["worker"]]
    assert how[carried["worker"]] == ""
    assert not program.errors


def test_by_redis_and_another_scheduler(cluster: Cluster, slow: Origin, tmp_path: Path) -> None:
    """Schedulers of other machines, as far as they know: one goes on with what one began."""
    with RedisServer(tmp_path) as redis:
        path = tmp_path / "redis.yaml"
        path.write_text(json.dumps({"database": {"redis": {"addrs": [redis.address]}}}))
        first = cluster.scheduler("--config", str(path))
        one = cluster.schedulers
        second = cluster.scheduler("--config", str(path))
        cluster.schedulers = f"{one},{cluster.schedulers}"
        several = {"scheduler": {"addrs": cluster.schedulers.split(",")}}
        nodes = cluster.daemons(*HOSTS, config=several, scheduler=False)
        urls = [slow.url(f"/{number}") for number in range(FILES)]
        begun = cluster.begin_preheat(*urls, "--scope", "all_peers", "--durable")
        until(lambda: job(cluster)["done"] >= 6, "two files on each host")
        first.kill()
        got = cluster.finish(*begun, patience=90)
        check(cluster, nodes, urls, got)
        assert second.wait_for("job carried on")


def test_a_job_that_ends_with_its_caller(cluster: Cluster, slow: Origin) -> None:
    """Its scheduler is killed: dfctl says that the job is gone, and what to do."""
    scheduler = cluster.scheduler()
    (node,) = cluster.daemons("a")
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    begun = cluster.begin_preheat(*urls, "--scope", "all_peers", "--concurrent-task-count", "1")
    until(lambda: len(whole(node)) >= 2, "two files")
    scheduler.kill()
    got = cluster.finish(*begun)
    assert got.code == 1
    assert "has ended with it, and what hosts have begun they may finish: say it once" in got.stderr
    cluster.scheduler(port=cluster.scheduler_port)
    assert dfctl(cluster, "job", "ls", "--json").result["jobs"] == []


def test_who_waits_is_stopped(cluster: Cluster, scheduler: Program, slow: Origin) -> None:
    """The job goes on, by the id that is told."""
    (node,) = cluster.daemons("a")
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    process, path = cluster.begin_preheat(*urls, "--scope", "all_peers", "--durable")
    until(lambda: len(whole(node)) >= 2, "two files")
    process.send_signal(signal.SIGINT)
    got = cluster.finish(process, path)
    assert got.code == 130
    known = job(cluster)
    assert got.stderr == f"dfctl: stopped by SIGINT: job {known['id']} goes on\n"
    until(lambda: job(cluster)["state"] == "ended", "the end of the job")
    assert len(whole(node)) == FILES
    text = dfctl(cluster, "job", "show", known["id"][:5]).stdout.splitlines()
    assert len(text) == FILES + 2
    assert text[-1] == f"{FILES} done, 0 failed, 0 pending, 16.0 MiB"
    assert known["id"] in dfctl(cluster, "job", "ls").stdout
    assert dfctl(cluster, "job", "show", "ffff").code == 1
    assert not scheduler.errors
