"""Whether daemons have survived what was done to them."""

from __future__ import annotations

from .cluster import Cluster, Node, until
from .origin import Origin, Pattern


def check(cluster: Cluster, origin: Origin) -> None:
    """Every daemon that still runs is well.

    Nobody holds a lease, what is used is what its tasks are said to need, it has logged no error
    that it did not expect, and it serves the next user: a content as large as its whole store,
    for which everything must go that was ever reserved.
    """
    origin.release()
    origin.resume()
    for node in cluster.nodes:
        if node.alive:
            _check(cluster, origin, node)


def _check(cluster: Cluster, origin: Origin, node: Node) -> None:
    until(lambda: not node.store()["leased"], f"{node.log_path.name}: no lease held")
    store = node.store()
    needed = sum(task.reserved_bytes for task in node.tasks().values())
    assert store["used"] == needed, (store, needed)
    content, path = Pattern(store["capacity"], seed=99), f"/unharmed/{node.pid}"
    origin.put(path, content)
    got = cluster.get(node, origin.url(path), "--overwrite", output=cluster.directory / "unharmed")
    assert got.code == 0, got.stderr
    assert got.bytes() == content.read()
    until(lambda: not node.store()["leased"], f"{node.log_path.name}: no lease held")
    node.delete(got.result["task_id"])
    assert not node.errors, node.errors
