"""scheduler/config.py: Dragonfly's YAML for a scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest

from pantala.core.sched.rules import Limits
from pantala.errors import ConfigError
from pantala.scheduler.config import load

SAMPLE = """
server:
  advertiseIP: 10.0.0.1
  advertisePort: 8002
  listenIP: 127.0.0.1
  port: 8003
  host: h
  requestRateLimit: 100
  logDir: /var/log/dragonfly
  logLevel: debug
scheduler:
  algorithm: default
  backToSourceCount: 3
  retryBackToSourceLimit: 2
  retryLimit: 10
  retryInterval: 10s
  gc:
    pieceDownloadTimeout: 5s
    peerGCInterval: 1m30s
    peerTTL: 5m
    taskGCInterval: 30s
    hostGCInterval: 1h
    hostTTL: 2h
dynConfig:
  refreshInterval: 1m
host: {idc: a, location: b}
manager:
  addr: 127.0.0.1:65003
  schedulerClusterID: 1
  keepAlive: {interval: 5s}
seedPeer:
  taskDownloadTimeout: 12h
database:
  redis: {addrs: ["127.0.0.1:6379"], password: secret, brokerDB: 1}
job: {enable: true, globalWorkerNum: 1, redis: {host: 127.0.0.1}}
metrics: {enable: true, addr: ":9000", enableHost: true}
network: {enableIPv6: false}
console: true
pprofPort: -1
tracing: {protocol: grpc, endpoint: "x:1", service-name: scheduler}
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scheduler.yaml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    """Those of Dragonfly's scheduler, and of our limits."""
    config = load(None)
    assert (config.server.listen_ip, config.server.port) == ("0.0.0.0", 8002)
    assert config.server.request_rate_limit == 4000
    assert config.limits() == Limits()
    assert config.scheduler.gc.peer_gc_interval == 10
    assert config.seed_peer.task_download_timeout == 36000
    assert (config.metrics.enable, config.metrics.addr) == (False, ":8000")
    assert config.ignored == ()


def test_a_stock_file_loads(tmp_path: Path) -> None:
    """What it says is taken; what means nothing here is listed."""
    config = load(_file(tmp_path, SAMPLE))
    assert (config.server.listen_ip, config.server.port) == ("127.0.0.1", 8003)
    limits = config.limits()
    assert (limits.back_to_source, limits.origin_failures, limits.patience) == (3, 2, 100)
    assert (limits.piece_timeout, limits.peer_ttl, limits.host_ttl) == (5, 300, 7200)
    assert config.scheduler.gc.peer_gc_interval == 90
    assert config.seed_peer.task_download_timeout == 12 * 3600
    assert config.metrics.addr == ":9000"
    assert (config.manager.addr, config.manager.keep_alive.interval) == ("127.0.0.1:65003", 5)
    assert (config.host.idc, config.host.location) == ("a", "b")
    assert config.without_effect == config.ignored
    assert "job.redis" in config.ignored
    assert "database.redis.brokerDB" in config.ignored
    assert "tracing.service-name" in config.ignored
    assert "server.port" not in config.ignored


def test_overrides_win(tmp_path: Path) -> None:
    """The command line over the file."""
    config = load(_file(tmp_path, "server: {port: 1}"), {"server.port": 0})
    assert config.server.port == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scheduler: {retryLimits: 1}", r"unknown key scheduler\.retryLimits.*retryLimit\?"),
        ("server: {prot: 1}", r"unknown key server\.prot.*server\.port\?"),
        ("server: {port: 70000}", r"server\.port = 70000"),
        ("server: {requestRateLimit: 0}", r"server\.requestRateLimit.*greater than 0"),
        ("server: {logLevel: loud}", r"server\.logLevel.*debug"),
        ("scheduler: {retryInterval: 5}", r"scheduler\.retryInterval.*unit"),
        (
            "scheduler: {algorithm: plugin}",
            r"algorithm = 'plugin': plugins are not supported: expected default or legacy",
        ),
        ("scheduler: {algorithm: ml}", r"algorithm = 'ml': expected default or legacy"),
        ("scheduler: {algorithm: [legacy]}", r"scheduler\.algorithm: expected default or legacy"),
        ("dynConfig: {refreshInterval: 0s}", r"dynConfig\.refreshInterval.*greater than 0"),
        ("scheduler: {candidateParentLimit: 21}", r"candidateParentLimit = 21"),
        ("metrics: {addr: '8000'}", r"metrics\.addr.*host:port"),
        ("manager: {tls: {caCert: a}}", r"manager\.tls\.caCert: TLS is not available"),
        ("manager: {addr: 'https://m:1'}", r"manager\.addr.*TLS to a manager is not available"),
        ("manager: {addr: m}", r"manager\.addr = 'm': expected http://host:port"),
        ("server: {tls: {caCert: a}}", r"server\.tls\.caCert: TLS is not available"),
        ("seedPeer: {tls: {cert: a}}", r"seedPeer\.tls\.cert: TLS is not available"),
        ("[]", "mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    """The file, the key, and what would do."""
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path, strict=True)
    assert str(path) in str(caught.value)


def test_what_is_wanted_while_it_runs(tmp_path: Path) -> None:
    """Where that is read, and how often; and by which formula parents are compared."""
    config = load(None)
    assert (config.dyn_config.path, config.dyn_config.refresh_interval) == (None, 60)
    assert config.limits().algorithm == "default"
    text = "dynConfig: {refreshInterval: 5s, path: /x.yaml}\nscheduler: {algorithm: legacy}"
    config = load(_file(tmp_path, text))
    assert (config.dyn_config.path, config.dyn_config.refresh_interval) == (Path("/x.yaml"), 5)
    assert config.limits().algorithm == "legacy"


def test_passwords_are_not_repeated(tmp_path: Path) -> None:
    """Not even when they are of the wrong type."""
    config = load(_file(tmp_path, "database: {redis: {password: hunter2}}"))
    assert config.database.redis.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.model_dump(mode="json"))
    assert "hunter2" not in str(config.ignored)


def test_no_file_for_records(tmp_path: Path) -> None:
    """There is a word for that; a null means the default, as everywhere in a file."""

    def path_of(text: str) -> Path | None:
        return load(_file(tmp_path, f"database: {{sqlite: {{path: {text}}}}}")).database.sqlite.path

    assert path_of("none") is None
    assert path_of("null") == path_of("") == Path("/var/lib/dragonfly/scheduler.db")
    assert path_of("/x/y.db") == Path("/x/y.db")
    none = load(None, {"database.sqlite.path": None})
    assert none.database.sqlite.path is None
    assert none.model_dump(mode="json")["database"]["sqlite"] == {"path": "none"}


def test_ports_of_workers() -> None:
    """Consecutive; those that the system chose stay."""
    config = load(None, {"server.port": 8100, "server.workers": 3, "metrics.addr": "[::1]:9000"})
    one = config.of_worker(2, 0, 0)
    assert (one.server.port, one.metrics.addr) == (8102, "[::1]:9002")
    free = load(None, {"server.port": 0, "server.workers": 3, "metrics.addr": ":0"})
    assert free.of_worker(2, 0, 0).server.port == 0
    assert free.of_worker(2, 0, 0).metrics.addr == ":0"
    again = free.of_worker(2, 4711, 4712)
    assert (again.server.port, again.metrics.addr) == (4711, ":4712")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server.workers": 0}, "server.workers = 0: expected greater than or equal to 1"),
        ({"server.workers": 65}, "server.workers = 65: expected less than or equal to 64"),
        ({"server.workers": 3, "server.port": 65534}, "3 workers want ports above 65535"),
        (
            {"server.workers": 3, "metrics.enable": True},
            "metrics.addr has the ports 8000-8002, and server.port 8002-8004: both want 8002",
        ),
    ],
)
def test_workers_that_cannot_be(settings: dict[str, object], words: str) -> None:
    """There is one line that says which setting, and why."""
    with pytest.raises(ConfigError) as caught:
        load(None, settings)
    assert words in str(caught.value)
