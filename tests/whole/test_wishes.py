"""What is wanted of a cluster changes while its scheduler runs: a real one, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from pantala.pb import common_pb2, scheduler_pb2
from pantala.testing.cluster import PATIENCE, Cluster, Program, StartFailed, until
from pantala.testing.origin import Origin, Pattern

MIB = 1 << 20


def _start(cluster: Cluster, wishes: dict[str, Any]) -> tuple[Program, Path]:
    """A scheduler that reads its dynconfig ten times a second."""
    path = cluster.directory / "dynconfig.yaml"
    _write(path, wishes)
    settings = cluster.directory / "scheduler.yaml"
    settings.write_text(json.dumps({"dynConfig": {"refreshInterval": "100ms"}}))
    return cluster.scheduler("--config", str(settings), "--dynconfig", str(path)), path


def _write(path: Path, wishes: dict[str, Any] | str) -> None:
    """At once, as a mounted ConfigMap changes."""
    new = path.with_suffix(".new")
    new.write_text(wishes if isinstance(wishes, str) else json.dumps(wishes))
    new.replace(path)


def _said(scheduler: Program, event: str) -> list[dict[str, Any]]:
    return [line for line in scheduler.events if line.get("event") == event]


def _wait_for(scheduler: Program, event: str, count: int) -> dict[str, Any]:
    until(lambda: len(_said(scheduler, event)) >= count, f"{event!r} said {count} times")
    return _said(scheduler, event)[-1]


def _app(value: int) -> dict[str, Any]:
    urls = [{"regex": "/private/", "value": value}]
    return {"applications": [{"name": "app", "priority": {"urls": urls}}]}


def test_an_application_is_forbidden_and_allowed_again(cluster: Cluster, origin: Origin) -> None:
    """By URL, on every node, cold or held; the origin is not asked."""
    scheduler, path = _start(cluster, {})
    a, b = cluster.daemons("a", "b")
    origin.put("/private/x", Pattern(6 * MIB, 1))
    origin.put("/private/cold", Pattern(6 * MIB, 2))
    origin.put("/x", Pattern(6 * MIB, 3))
    app = ("--application", "app", "--priority", "0")
    cluster.get(a, origin.url("/private/x"), *app).bytes()
    _write(path, _app(1))
    assert _wait_for(scheduler, "what is wanted of the cluster", 1)["applications"] == 1
    asked = origin.count()
    for name in ("x", "cold"):
        got = cluster.get(b, origin.url(f"/private/{name}"), *app)
        assert "LEVEL1 are forbidden" in got.refusal
    assert origin.count() == asked
    cluster.get(b, origin.url("/x"), *app).bytes()
    cluster.get(b, origin.url("/private/cold")).bytes()
    _write(path, _app(2))
    _wait_for(scheduler, "what is wanted of the cluster", 2)
    asked = origin.count()
    got = cluster.get(b, origin.url("/private/x"), *app)
    assert got.bytes() == Pattern(6 * MIB, 1).read()
    assert "LEVEL2 allows only peers" in cluster.get(b, origin.url("/private/cold"), *app).refusal
    assert origin.count() == asked
    _write(path, {})
    _wait_for(scheduler, "what is wanted of the cluster", 3)
    cluster.get(b, origin.url("/private/cold"), *app).bytes()
    assert not scheduler.errors


def test_limits_and_a_bad_file(cluster: Cluster, origin: Origin) -> None:
    """Limits count for hosts that are known. A bad file changes nothing, and is told of once."""
    scheduler, path = _start(cluster, {"schedulerClusterConfig": {"candidateParentLimit": 1}})
    nodes = cluster.daemons("a", "b", "c")
    origin.put("/x", Pattern(6 * MIB, 1))
    for node in nodes:
        cluster.get(node, origin.url("/x")).bytes()
    with grpc.insecure_channel(f"127.0.0.1:{cluster.scheduler_port}") as channel:
        stub = cluster.scheduler_stub(channel)

        def parents(name: str) -> int:
            return _parents(stub, task, name)

        (task,) = nodes[0].tasks()
        assert parents("1") == 1
        _write(path, {"schedulerClusterConfig": {"candidateParentLimit": 2}})
        said = _wait_for(scheduler, "what is wanted of the cluster", 2)
        assert said["candidate_parent_limit"] == 2
        assert parents("2") == 2
        _write(path, "schedulerClusterConfig: {candidateParentLimit: 200}")
        why = _wait_for(scheduler, "what is wanted of the cluster cannot be read", 1)["why"]
        assert why.startswith(f"{path}: schedulerClusterConfig.candidateParentLimit = 200: ")
        path.unlink()
        _wait_for(scheduler, "what is wanted of the cluster cannot be read", 2)
        assert parents("3") == 2
        _write(path, {"schedulerClusterConfig": {"jobRateLimit": 1}})
        _wait_for(scheduler, "what is wanted of the cluster can be read again", 1)
        _wait_for(scheduler, "what is wanted of the cluster", 3)
        assert parents("4") == 3
        job = scheduler_pb2.StatFileRequest(url=origin.url("/x"))
        codes = [_code(stub, job) for _ in range(5)]
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
    assert len(_said(scheduler, "what is wanted of the cluster cannot be read")) == 2
    assert not scheduler.errors


def _code(stub: Any, job: scheduler_pb2.StatFileRequest) -> grpc.StatusCode | None:
    try:
        stub.StatFile(job, timeout=PATIENCE)
    except grpc.RpcError as error:
        return error.code()
    return None


def _parents(stub: Any, task_id: str, peer_id: str) -> int:
    """How many parents a new peer of a stock daemon is given, which hears of no partners."""
    host_id = "stock"
    host = common_pb2.Host(id=host_id, ip="127.0.0.1", port=9, download_port=9, hostname="stock")
    stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=host), timeout=PATIENCE)
    held = stub.StatCacheTask(
        scheduler_pb2.StatCacheTaskRequest(host_id=host_id, task_id=task_id), timeout=PATIENCE
    )
    register = scheduler_pb2.RegisterCachePeerRequest(
        url=held.url,
        type=common_pb2.CACHE,
        actual_content_length=held.content_length,
        actual_piece_length=held.pieces[0].length,
        actual_piece_count=held.piece_count,
    )
    first = scheduler_pb2.AnnounceCachePeerRequest(
        host_id=host_id, task_id=task_id, peer_id=peer_id, register_cache_peer_request=register
    )
    answers = stub.AnnounceCachePeer(iter([first]), timeout=PATIENCE)
    answer = next(answers)
    answers.cancel()
    return len(answer.normal_cache_task_response.candidate_parents)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("applications: [{name: a, priority: {value: 9}}]", "applications[0].priority.value = 9"),
        ("a: [", "not YAML"),
        (None, "No such file"),
    ],
)
def test_a_first_file_that_makes_no_sense(cluster: Cluster, text: str | None, why: str) -> None:
    """The scheduler says so in one line, and does not start."""
    path = cluster.directory / "dynconfig.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartFailed) as failed:
        cluster.scheduler("--dynconfig", str(path))
    (line,) = str(failed.value).splitlines()
    assert line.startswith(f"dfscheduler: {path}: ")
    assert why in line
