"""Whether daemons have survived what was done to them."""

from __future__ import annotations

from pantala.model.task import Kind

from .cluster import Cluster, Node, until
from .origin import Origin, Pattern


def look(cluster: Cluster, origin: Origin) -> None:
    """Every daemon that still runs seems well; of those who share one, each test should ask.

    Nobody holds a lease, what is used is what its tasks are said to need, no file is there that
    is none of theirs, and it has logged no error that it did not expect.
    """
    origin.release()
    origin.resume()
    for node in _alive(cluster):
        _wait_until_unused(node)
        store, tasks = node.store(), node.tasks()
        ours = [task for task in tasks.values() if Kind(task.type) is node.kind]
        assert store["used"] == sum(task.reserved_bytes for task in ours), (store, ours)
        left = [path.name for path in node.content_dir.rglob("*") if path.is_file()]
        assert set(left) <= tasks.keys()
        assert not node.errors, node.errors


def check(cluster: Cluster, origin: Origin) -> None:
    """Every daemon that still runs is well.

    That is what :func:`look` sees, and that it serves the next user: a file as large as the
    whole store, for which everything must go that was ever reserved.
    """
    look(cluster, origin)
    for node in _alive(cluster):
        content, path = Pattern(node.store()["capacity"], seed=99), f"/unharmed/{node.pid}"
        origin.put(path, content)
        output = cluster.directory / "unharmed"
        got = cluster.get(node, origin.url(path), "--overwrite", output=output)
        assert got.code == 0, got.stderr
        assert got.bytes() == content.read()
        _wait_until_unused(node)
        node.delete(got.result["task_id"])
        assert not node.errors, node.errors


def _alive(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.nodes if node.alive]


def _wait_until_unused(node: Node) -> None:
    until(lambda: not node.store()["leased"], f"{node.log_path.name}: no lease held")
