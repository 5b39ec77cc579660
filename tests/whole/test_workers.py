"""``dfscheduler --workers``: real processes, which are killed."""

from __future__ import annotations

import json
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pantala.testing import ports
from pantala.testing.cluster import PATIENCE, Cluster, Program, until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

COUNT = 3


def pids(program: Program) -> dict[int, int]:
    """The process of each worker, by its number, as the log has it; the latest."""
    return {
        line["worker"]: line["pid"]
        for line in program.events
        if line.get("event") == "worker started"
    }


def healthy(port: int) -> bool:
    """Whether a scheduler there says so."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, suppress(grpc.RpcError):
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False


def runs(pid: int) -> bool:
    """Whether there is such a process, which has not just been left behind by nobody."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_one_is_killed(cluster: Cluster, origin: Origin) -> None:
    """The others go on, and it is there again, at its port; all daemons' downloads work."""
    origin.put("/a", Pattern(1 << 20))
    program = cluster.scheduler(workers=COUNT)
    first = cluster.scheduler_port
    assert program.ready["schedulers"] == f"127.0.0.1:{first}-{first + COUNT - 1}"
    a, b = cluster.daemons("a", "b")
    known = cluster.command("dfctl", a, "cache-task", "ls")
    assert known.code == 0
    before = pids(program)
    assert sorted(before) == list(range(COUNT))

    psutil.Process(before[1]).kill()
    gone = program.wait_for("worker ended; it is started anew")
    assert (gone["worker"], gone["signal"]) == (1, "SIGKILL")
    assert healthy(first)
    assert healthy(first + 2)
    until(lambda: pids(program)[1] != before[1], "another process")
    until(lambda: healthy(first + 1), "the worker again at its port")
    assert cluster.get(a, origin.url("/a")).bytes() == cluster.get(b, origin.url("/a")).bytes()
    assert pids(program) == before | {1: pids(program)[1]}
    listening = [line for line in program.events if line.get("event") == "listening"]
    assert {(line["worker"], line["port"]) for line in listening} == {
        (number, first + number) for number in range(COUNT)
    }
    assert not program.errors


def test_a_signal_without_a_name(cluster: Cluster) -> None:
    """It is a signal as any other."""
    program = cluster.scheduler(workers=2)
    number = signal.SIGRTMIN + 6
    before = pids(program)
    psutil.Process(before[1]).send_signal(number)
    gone = program.wait_for("worker ended; it is started anew")
    assert (gone["worker"], gone["signal"]) == (1, number)
    until(lambda: pids(program)[1] != before[1], "another process")


def test_one_cannot_be_started_for_a_while(cluster: Cluster) -> None:
    """The others go on, and it is there when it can be."""
    program = cluster.scheduler(workers=2)
    before = pids(program)
    few = (1, resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE)[1])
    allowed = resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, few)
    psutil.Process(before[1]).kill()
    told = program.wait_for("worker cannot be started; tried again")
    assert (told["worker"], told["why"]) == (1, "Too many open files")
    assert healthy(cluster.scheduler_port)
    resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, allowed)
    until(lambda: pids(program)[1] != before[1], "another process")
    until(lambda: healthy(cluster.scheduler_port + 1), "the worker again at its port")


def test_the_end_before_the_beginning(cluster: Cluster) -> None:
    """One ends that does not listen yet: the parent waits for the last, and does nothing else."""
    program = cluster.scheduler(workers=2)
    first = pids(program)
    psutil.Process(first[0]).suspend()
    psutil.Process(first[1]).kill()
    until(lambda: pids(program)[1] != first[1], "another process")
    parent = psutil.Process(program.process.pid)
    before = sum(parent.cpu_times()[:2])
    program.signal(signal.SIGTERM)
    until(lambda: not runs(pids(program)[1]), "the end of one")
    time.sleep(2.0)
    assert program.alive
    assert sum(parent.cpu_times()[:2]) < before + 0.5
    psutil.Process(first[0]).resume()
    assert program.process.wait(PATIENCE) == 0


def test_all_know_all_hosts(cluster: Cluster) -> None:
    """``dfctl hosts`` asks all of a range, and does without one that is away."""
    program = cluster.scheduler(workers=COUNT)
    cluster.daemons("a", "b")
    command = ("hosts", "--scheduler-endpoint", cluster.schedulers, "--json")
    process = cluster._begin("pantala.cli.dfctl", command)
    got = cluster.finish(process, cluster.directory)
    assert got.code == 0, got
    assert len(got.result["hosts"]) == 2
    assert got.result["unanswered"] == {}
    program.stop()
    got = cluster.finish(cluster._begin("pantala.cli.dfctl", command), cluster.directory)
    assert got.code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_stop(cluster: Cluster, number: int) -> None:
    """With the parent, each as a scheduler does; also if they are told by others, too."""
    program = cluster.scheduler(workers=COUNT)
    workers = pids(program)
    for pid in workers.values():
        psutil.Process(pid).send_signal(number)
    program.signal(number)
    assert program.process.wait(PATIENCE) == 0
    assert not any(map(runs, workers.values()))
    stopped = [line["worker"] for line in program.events if line.get("event") == "stopped"]
    assert sorted(stopped) == list(range(COUNT))


@pytest.mark.parametrize("hangs", [False, True])
def test_the_parent_is_killed(cluster: Cluster, *, hangs: bool) -> None:
    """Nobody is left, and the ports are free; a worker that cannot think is no exception."""
    program = cluster.scheduler(workers=COUNT)
    workers = pids(program)
    if hangs:  # what is stopped does nothing, until somebody lets it: it must end then
        psutil.Process(workers[1]).suspend()
    program.kill()
    until(lambda: sum(map(runs, workers.values())) == (1 if hangs else 0), "the end of the others")
    if hangs:
        psutil.Process(workers[1]).resume()
        until(lambda: not runs(workers[1]), "the end of the last")
    cluster.scheduler(workers=COUNT, port=cluster.scheduler_port)


def test_a_port_is_taken(cluster: Cluster) -> None:
    """One line, exit status 1, and no worker is left."""
    with ports.port(COUNT) as first:
        one = cluster.scheduler(port=first + 1)
        flags = ("--port", str(first), "--listen-ip", "127.0.0.1", "--workers", str(COUNT))
        program = cluster.start("pantala.cli.dfscheduler", *flags, name="second")
        assert program.process.wait(PATIENCE) == 1
        (line,) = program.log.splitlines()
        assert line.startswith(f"dfscheduler: cannot listen on 127.0.0.1:{first + 1}: Address alr")
        assert one.alive


def test_one_that_ends_again_and_again(cluster: Cluster) -> None:
    """In the end all stop, with exit status 1, and words."""
    program = cluster.scheduler(workers=2)
    workers = pids(program)
    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE * 3
    while program.alive and time.monotonic() < deadline:
        pid = pids(program)[1]
        if pid not in killed:
            killed.add(pid)
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        time.sleep(0.05)
    assert program.process.wait(PATIENCE) == 1
    (line,) = [line for line in program.log.splitlines() if line.startswith("dfscheduler: ")]
    assert line.startswith("dfscheduler: worker 1 has ended 8 times")
    assert "SIGKILL" in line
    assert len(killed) == 8
    assert not runs(workers[0])


def test_metrics_of_each(cluster: Cluster, tmp_path: Path) -> None:
    """At consecutive ports, which must not be those of the schedulers."""
    path = tmp_path / "with metrics.yaml"
    with ports.port(COUNT) as first:
        metrics = {"enable": True, "addr": f"127.0.0.1:{first}"}
        database = {"sqlite": {"path": str(tmp_path / "s.db")}}
        path.write_text(json.dumps({"metrics": metrics, "database": database}))
        program = cluster.scheduler("--config", str(path), workers=COUNT)
        for number in range(COUNT):
            with urlopen(f"http://127.0.0.1:{first + number}/metrics", timeout=PATIENCE) as answer:
                assert b"dragonfly_scheduler_" in answer.read()
        program.stop()
        with pytest.raises(URLError):
            urlopen(f"http://127.0.0.1:{first}/metrics", timeout=PATIENCE)
