"""Several schedulers share the tasks; one is killed, and the others know what it knew."""

from __future__ import annotations

import pytest

from pantala.core.beliefs import owner
from pantala.testing.cluster import Cluster, Node, Program, until
from pantala.testing.origin import Origin, Pattern

pytestmark = pytest.mark.usefixtures("kind", "unharmed")

MIB = 1 << 20
FILES = 12


def _address(scheduler: Program) -> str:
    return f"127.0.0.1:{scheduler.ready['port']}"


def _addresses(schedulers: list[Program]) -> frozenset[str]:
    return frozenset(map(_address, schedulers))


def _all(schedulers: list[Program]) -> dict[str, list[str]]:
    return {"addrs": [_address(each) for each in schedulers]}


def _fill(cluster: Cluster, origin: Origin, node: Node) -> dict[str, int]:
    """*node* has all files; the ids of their tasks, and which they are."""
    found = {}
    for number in range(FILES):
        origin.put(f"/{number}", Pattern(1000, seed=number))
        got = cluster.get(node, origin.url(f"/{number}"))
        assert got.code == 0, got
        found[str(got.result["task_id"])] = number
    return found


def _owners(tasks: dict[str, int], schedulers: list[Program]) -> dict[str, set[int]]:
    """Files by the address of the scheduler that they belong to."""
    addresses = _addresses(schedulers)
    found: dict[str, set[int]] = {address: set() for address in addresses}
    for task, number in tasks.items():
        found[owner(task, addresses) or ""].add(number)
    return found


def test_one_of_three_is_killed(cluster: Cluster, origin: Origin) -> None:
    """Whoever begins that moment waits for another, who has heard what is held; not the origin."""
    schedulers = [cluster.scheduler() for _ in range(3)]
    terms = {"config": {"scheduler": _all(schedulers)}, "scheduler": False}
    holder, child = cluster.daemons("a", "b", **terms)
    tasks = _fill(cluster, origin, holder)
    victim = max(schedulers, key=lambda s: len(_owners(tasks, schedulers)[_address(s)]))
    assert _owners(tasks, schedulers)[_address(victim)]
    origin.pause()
    victim.kill()
    begun = [cluster.begin(child, origin.url(f"/{number}")) for number in range(FILES)]
    for number, each in enumerate(begun):
        assert cluster.finish(*each).bytes() == Pattern(1000, seed=number).read()


def test_all_parents_go_with_their_scheduler(cluster: Cluster, origin: Origin) -> None:
    """Another knows another, and is asked before the origin."""
    schedulers = [cluster.scheduler() for _ in range(2)]
    everywhere = {"scheduler": _all(schedulers)}
    slow = {"bandwidthLimit": "4MiB"}
    parent = cluster.daemon("a", scheduler=False, config=everywhere | {"upload": slow})
    content, url = Pattern(10 * MIB, seed=1), origin.url("/f")
    origin.put("/f", content)
    task = cluster.get(parent, url).result["task_id"]
    home = owner(task, _addresses(schedulers))
    first, second = sorted(schedulers, key=lambda each: _address(each) != home)
    other = cluster.daemon("b", scheduler=False, config={"scheduler": _all([second])})
    assert cluster.get(other, url).result["bytes_from_origin"] == content.size
    origin.pause()
    one_by_one = {"concurrentPieceCount": 1}
    child = cluster.daemon("c", scheduler=False, config=everywhere | {"download": one_by_one})
    download = cluster.begin(child, url)
    until(lambda: any(t.finished_piece_count for t in child.tasks().values()), "a piece here")
    first.kill()
    parent.kill()
    assert cluster.finish(*download).bytes() == content.read()
