"""Configuration of stock Dragonfly, as its charts and its compose example have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from pantala.testing.cluster import Cluster, Node

STOCK = Path(__file__).parents[1] / "golden" / "stock-configs"
DAEMONS = [*sorted(STOCK.glob("*client.yaml")), STOCK / "chart-seed.yaml"]
SCHEDULERS = sorted(STOCK.glob("*scheduler.yaml"))


def check(program: str, *arguments: str) -> tuple[int, str, str]:
    """``--check``, as a process: status, output, errors."""
    command = [sys.executable, "-m", f"pantala.cli.{program}", "--check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def warnings(program: Node, event: str) -> list[dict[str, object]]:
    """Its warnings of this name."""
    return [e for e in program.events if e.get("event") == event and e["level"] == "warning"]


def test_there_are_six() -> None:
    """None is forgotten."""
    assert (len(DAEMONS), len(SCHEDULERS)) == (4, 2)


@pytest.mark.parametrize("path", DAEMONS, ids=lambda path: path.stem)
def test_a_daemon_starts(cluster: Cluster, path: Path) -> None:
    """It says once what has no effect, and that it has no scheduler; and is strictly right."""
    node = cluster.daemon("stock", "--config", str(path), scheduler=False)
    (without,) = warnings(node, "settings without effect")
    assert "proxy.rules" in str(without["keys"])
    assert not warnings(node, "unknown settings")
    assert len(warnings(node, "no scheduler: every download goes to the origin")) == 1
    with urlopen(f"http://127.0.0.1:{node.ports['metrics']}/metrics", timeout=30) as answer:
        assert b"\ndragonfly_client_schedulers 0.0\n" in answer.read()
    status, output, _ = check("dfdaemon", "--config", str(path))
    assert status == 0
    chosen = json.loads(output)
    if "chart" in path.name:  # they spell it requestbufferSize
        assert chosen["upload"]["server"]["requestBufferSize"] in {1000, 50}
    assert chosen["seedPeer"]["enable"] is ("seed" in path.name)


@pytest.mark.parametrize("path", SCHEDULERS, ids=lambda path: path.stem)
def test_a_scheduler_starts(cluster: Cluster, tmp_path: Path, path: Path) -> None:
    """Empty texts are as good as nothing; and what it prints is a file again."""
    mine = tmp_path / "scheduler.yaml"
    mine.write_text(path.read_text().replace("addr: :8000", "addr: 127.0.0.1:0"))
    program = cluster.scheduler("--config", str(mine))
    assert "unknown settings" not in program.log
    assert "network.enableIPv6" in str(program.wait_for("settings without effect")["keys"])
    status, output, errors = check("dfscheduler", "--config", str(mine))
    assert (status, "manager" in errors) == (0, False)
    again = tmp_path / "again.yaml"
    again.write_text(output)
    assert check("dfscheduler", "--config", str(again)) == (0, output, "")


def test_a_daemon_with_a_scheduler_says_nothing_of_the_kind(cluster: Cluster) -> None:
    """The gauge counts those that are known."""
    cluster.scheduler()
    node = cluster.daemon("one")
    assert not warnings(node, "no scheduler: every download goes to the origin")
    with urlopen(f"http://127.0.0.1:{node.ports['metrics']}/metrics", timeout=30) as answer:
        assert b"\ndragonfly_client_schedulers 1.0\n" in answer.read()


def test_a_key_that_nobody_knows(cluster: Cluster, tmp_path: Path) -> None:
    """A warning with the key that was probably meant; by --check and --strict an error."""
    path = tmp_path / "dfdaemon.yaml"
    path.write_text("storage: {cacheCapacty: 1GiB}\nfuture: {thing: 1}\n")
    lines = [
        "unknown key storage.cacheCapacty; did you mean storage.cacheCapacity?",
        "unknown key future",
    ]
    node = cluster.daemon("lenient", "--config", str(path), scheduler=False)
    (warned,) = warnings(node, "unknown settings")
    assert warned["keys"] == lines
    command = [sys.executable, "-m", "pantala.cli.dfdaemon", "--config", str(path)]
    for flag in ("--check", "--strict"):
        done = subprocess.run(
            [*command, flag], capture_output=True, text=True, timeout=60, check=False
        )
        said = [line.removeprefix(f"dfdaemon: {path}: ") for line in done.stderr.splitlines()]
        assert (done.returncode, done.stdout, said) == (1, "", lines)
