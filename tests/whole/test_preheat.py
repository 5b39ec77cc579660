"""Preheating with real processes: of each file on each host that is told which is so."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.testing.cluster import Cluster, Got, Node, Program, until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

FILES, SIZE = 16, 1 << 20
HOSTS = ("a", "b", "c", "d")


@pytest.fixture
def slow() -> Iterator[Origin]:
    """An origin that takes seconds for all files."""
    with Origin(rate=4 << 20) as origin:
        for number in range(FILES):
            origin.put(f"/{number}", Pattern(SIZE, seed=number))
        yield origin


def rows(got: Got) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What ``dfctl`` has printed: a row for each pair, and the last one."""
    *pairs, last = map(json.loads, got.stdout.splitlines())
    return pairs, last


def name_of(row: dict[str, Any]) -> str:
    """Of the daemon, in its cluster."""
    name: str = row["hostname"].partition(".")[0]
    return name


def whole(node: Node) -> set[str]:
    """Ids of the tasks of which it has everything."""
    return {one for one, task in node.tasks().items() if task.HasField("finished_at")}


def test_a_host_that_is_killed_meanwhile(
    kind: Kind, cluster: Cluster, scheduler: Program, slow: Origin
) -> None:
    """What it had is done, the rest of its pairs has failed; all of the others' are done."""
    nodes = dict(zip(HOSTS, cluster.daemons(*HOSTS), strict=True))
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    ids = {task_id(kind, url): url for url in urls}
    begun = cluster.begin_preheat(*urls, "--scope", "all_peers", "--concurrent-task-count", "3")
    victim = nodes.pop("b")
    until(lambda: len(whole(victim)) >= 5, "five files on the host that is to be killed")
    victim.kill()
    got = cluster.finish(*begun)

    assert got.code == 1, got
    pairs, last = rows(got)
    assert len(pairs) == FILES * len(HOSTS)
    assert {row["url"] for row in pairs} == set(urls)
    done = [row for row in pairs if row["state"] == "done"]
    failed = [row for row in pairs if row["state"] == "failed"]
    assert (last["done"], last["failed"]) == (len(done), len(failed))
    assert {name_of(row) for row in failed} == {victim.name}
    assert all(row["reason"] for row in failed)
    assert 0 < len(failed) < FILES  # its last word on some may have been lost
    for node in nodes.values():
        said = {row["task_id"] for row in done if name_of(row) == node.name}
        assert said == set(ids) == whole(node)
    assert all(row["received"] == row["content_length"] == SIZE for row in done)
    # Each byte was read once, but for what the killed host was just reading.
    assert slow.sent() <= FILES * SIZE + 4 * SIZE
    assert not scheduler.errors


def test_a_caller_that_is_stopped(
    kind: Kind, cluster: Cluster, scheduler: Program, slow: Origin
) -> None:
    """The job begins nothing more, and all that is about it ends."""
    (node,) = cluster.daemons("a")
    urls = [slow.url(f"/{number}") for number in range(FILES)]
    flags = ("--scope", "all_peers", "--concurrent-task-count", "1")
    process, path = cluster.begin_preheat(*urls, *flags)
    until(lambda: len(whole(node)) >= 2, "two files")
    process.send_signal(signal.SIGINT)
    got = cluster.finish(process, path)

    assert got.code == 130
    assert got.stderr == "dfctl: stopped by SIGINT: hosts may finish what they have begun\n"
    scheduler.wait_for("job ended")
    assert len(node.tasks()) < FILES
    assert kind.name in scheduler.log
