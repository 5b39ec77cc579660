"""Whether daemons have survived what was done to them."""

from __future__ import annotations

from pantala.model.task import Kind

from .cluster import Cluster, Node, until
from .origin import Origin, Pattern


def check(cluster: Cluster, origin: Origin) -> None:
    """Every daemon that still runs is well.

    Nobody holds a lease, what is used is what its tasks are said to need, no file is there that
    is none of theirs, it has logged no error that it did not expect, and it serves the next user:
    a content as large as the whole store, for which everything must go that was ever reserved.
    """
    origin.release()
    origin.resume()
    for node in cluster.nodes:
        if node.alive:
            _check(cluster, origin, node)


def _check(cluster: Cluster, origin: Origin, node: Node) -> None:
    until(lambda: not node.store()["leased"], f"{node.log_path.name}: no lease held")
    store, tasks = node.store(), node.tasks()
    needed = sum(task.reserved_bytes for task in tasks.values() if Kind(task.type) is node.kind)
    assert store["used"] == needed, (store, needed)
    left = [path.name for path in node.contents.rglob("*") if path.is_file()]
    assert set(left) <= tasks.keys()
    content, path = Pattern(store["capacity"], seed=99), f"/unharmed/{node.pid}"
    origin.put(path, content)
    got = cluster.get(node, origin.url(path), "--overwrite", output=cluster.directory / "unharmed")
    assert got.code == 0, got.stderr
    assert got.bytes() == content.read()
    until(lambda: not node.store()["leased"], f"{node.log_path.name}: no lease held")
    node.delete(got.result["task_id"])
    assert not node.errors, node.errors
