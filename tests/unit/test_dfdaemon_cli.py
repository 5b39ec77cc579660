"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from pantala import BUILD_VERSION
from pantala.daemon.config import CATALOGUE, load
from pantala.paths import handoff_path_for


def dfdaemon(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Run it; return its status, output and errors."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DFDAEMON_")}
    done = subprocess.run(
        [sys.executable, "-m", "pantala.cli.dfdaemon", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | env,
    )
    return done.returncode, done.stdout, done.stderr


def checked(*arguments: str, **env: str) -> Any:
    """The settings that these arguments make."""
    status, output, errors = dfdaemon("--check", *arguments, **env)
    assert (status, errors) == (0, "")
    return json.loads(output)


def at(settings: Any, dotted: str) -> Any:
    """One of the settings."""
    for name in dotted.split("."):
        settings = settings[name]
    return settings


def test_version() -> None:
    """It says so, and stops."""
    assert dfdaemon("-V") == (0, f"dfdaemon {BUILD_VERSION}\n", "")


def test_help() -> None:
    """There are examples, and the environment's names."""
    for flag in ("--help", "-h"):
        status, output, _ = dfdaemon(flag)
        assert status == 0
        assert "  dfdaemon --scheduler 10.0.0.7:8002         no file needed\n" in output
        assert "DFDAEMON_CONFIG" in output


def test_help_asks_no_variable() -> None:
    """Whoever has set one wrongly reads here how it is set."""
    for name in ("DFDAEMON_CONSOLE", "DFDAEMON_LOG_MAX_FILES"):
        assert dfdaemon("--help", **{name: "x"})[0] == 0


def test_every_flag() -> None:
    """Each flag sets its key; relative paths are seen from here."""
    here = Path.cwd()
    settings = checked(
        *("--dynconfig", "d.yaml", "--scheduler", "10.0.0.1:1", "--scheduler", "[::1]:2"),
        *("--seed", "--ip", "10.9.9.9", "--hostname", "n", "--socket", "s.sock"),
        *("--data-dir", "data", "--cache-capacity", "2GiB", "--upload-port", "0"),
        *("--storage-port", "1", "--metrics-port", "2", "--health-port", "3"),
    )
    assert {
        key: at(settings, key)
        for key in (
            "dynconfig.path",
            "scheduler.addrs",
            "seedPeer.enable",
            "host.ip",
            "host.hostname",
            "download.server.socketPath",
            "download.server.handoffPath",
            "storage.dir",
            "storage.cacheCapacity",
            "upload.server.port",
            "storage.server.tcpPort",
            "metrics.server.port",
            "health.server.port",
        )
    } == {
        "dynconfig.path": f"{here}/d.yaml",
        "scheduler.addrs": ["10.0.0.1:1", "[::1]:2"],
        "seedPeer.enable": True,
        "host.ip": "10.9.9.9",
        "host.hostname": "n",
        "download.server.socketPath": f"{here}/s.sock",
        "download.server.handoffPath": f"{here}/s.handoff.sock",
        "storage.dir": f"{here}/data",
        "storage.cacheCapacity": 2 << 30,
        "upload.server.port": 0,
        "storage.server.tcpPort": 1,
        "metrics.server.port": 2,
        "health.server.port": 3,
    }


def test_file_environment_flag(tmp_path: Path) -> None:
    """The file comes from a flag or the environment; other flags win over it."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("upload: {server: {port: 1}}\nhost: {hostname: one}")
    two.write_text("upload: {server: {port: 2}}")
    by_environment = checked("--hostname", "flag", DFDAEMON_CONFIG=str(one))
    assert at(by_environment, "upload.server.port") == 1
    assert at(by_environment, "host.hostname") == "flag"
    both = checked("-c", str(two), DFDAEMON_CONFIG=str(one))
    assert at(both, "upload.server.port") == 2


def test_kubernetes_variables() -> None:
    """Variables that Kubernetes makes of a service's name are nobody's settings."""
    settings = checked(DFDAEMON_METRICS_PORT="tcp://10.0.0.1:80", DFDAEMON_HEALTH_PORT="x")
    assert at(settings, "metrics.server.port") == 4002


def test_check_hides_headers(tmp_path: Path) -> None:
    """Passwords for origins are not printed, which is said; as is what has no effect."""
    path = tmp_path / "c.yaml"
    path.write_text("backend: {requestHeader: {Authorization: hunter2}}\nproxy: {prefetch: true}")
    status, output, errors = dfdaemon("--check", "-c", str(path))
    assert status == 0
    assert errors.splitlines() == [
        "dfdaemon: backend.requestHeader is not shown: it may hold passwords",
        "dfdaemon: proxy.prefetch has no effect",
    ]
    assert "hunter2" not in output


def test_check_reads_the_authorities(tmp_path: Path) -> None:
    """As a start would; what is wrong with them is said by both."""
    for text, words in ((None, "No such file or directory"), ("x", "no certificate in PEM")):
        authorities, path = tmp_path / "ca.pem", tmp_path / "c.yaml"
        path.write_text(f"backend: {{caCert: {authorities}}}")
        if text is not None:
            authorities.write_text(text)
        flags = ("-c", str(path), "--socket", str(tmp_path / "d.sock"))
        for arguments in (flags, ("--check", *flags)):
            status, output, errors = dfdaemon(*arguments)
            assert (status, output) == (1, "")
            assert errors.startswith(f"dfdaemon: backend.caCert: {authorities}: ")
            assert words in errors.splitlines()[-1]


EVERYTHING = """
host: {idc: i, location: "a|b|ö 🐉", hostname: n, ip: 10.1.2.3, schedulerClusterID: 3}
network: {enableIPv6: true}
download:
  server:
    requestRateLimit: 1
    requestBufferSize: 2
    socketPath: /run/x/d.sock
    socketMode: "0040"
    handoffPath: /run/x/h.sock
    allowUsers: [0, 1000]
    allowOutputPath: false
    allowImportPath: false
  bandwidthLimit: 1GiB
  backToSourceBandwidthLimit: 2GB
  pieceTimeout: 1h 1m 0.3s
  pieceStallTimeout: 9ms
  collectedPieceTimeout: 7ns
  concurrentPieceCount: 3
  bypassSize: 5KiB
  cacheBypassSize: 4KiB
upload:
  server: {requestRateLimit: 4, requestBufferSize: 5, ip: "::1", port: 0}
  disableShared: true
  bandwidthLimit: 5MB
scheduler:
  addrs: ["10.0.0.1:1", "[::1]:2"]
  announceInterval: 1d
  scheduleTimeout: 1.1ms
  maxScheduleCount: 6
seedPeer: {enable: true, type: normal}
dynconfig: {path: /d.yaml, refreshInterval: 19us}
manager: {addr: "http://m:65003"}
storage:
  server: {ip: "fd00::1", tcpPort: 7}
  dir: /data
  keep: true
  cacheCapacity: 1GiB
  cacheOverflow: task
  cacheLockPages: true
  cachePinnedPercent: 7
backend:
  maxRetries: 0
  enableCacheTemporaryRedirect: false
  enableRevalidation: false
  cacheTemporaryRedirectTTL: 36500 days
  caCert: {authorities}
  insecureSkipVerify: true
  fileRoots: [/a, "/b c"]
proxy: {prefetchBandwidthLimit: 8}
gc:
  interval: 100ms
  policy:
    cacheTaskTTL: 2w
    taskTTL: 3w
    persistentTaskTTL: 4w
    persistentCacheTaskTTL: 5w
    diskThreshold: 1GiB
    diskHighThresholdPercent: 99
    diskLowThresholdPercent: 1
health: {enable: false, server: {ip: 10.0.0.1, port: 8}}
metrics: {enable: false, server: {ip: 10.0.0.2, port: 9}}
"""

#: What cannot be set to anything else, and what is not printed.
FIXED = {"download.protocol", "backend.requestHeader"}


def test_check_can_be_read_again(tmp_path: Path) -> None:
    """What is printed is a file that says the same, key by key."""
    path, printed = tmp_path / "c.yaml", tmp_path / "printed.yaml"
    authorities = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authorities))
    path.write_text(EVERYTHING.replace("{authorities}", str(authorities)))
    _, usual, _ = dfdaemon("--check")
    _, output, _ = dfdaemon("--check", "-c", str(path))
    said = CATALOGUE.keys() - CATALOGUE.ignored - CATALOGUE.refused.keys() - FIXED
    same = {key for key in said if at(json.loads(output), key) == at(json.loads(usual), key)}
    assert same == set()
    for text, original in ((output, load(path)), (usual, load(None))):
        printed.write_text(text)
        assert load(printed) == original


def test_personal(tmp_path: Path) -> None:
    """A personal daemon listens where only its user gets to."""
    settings = checked(
        "--personal", XDG_RUNTIME_DIR=str(tmp_path), XDG_CACHE_HOME=f"{tmp_path}/cache"
    )
    socket_path = f"{tmp_path}/pantala/dfdaemon.sock"
    assert at(settings, "download.server.socketPath") == socket_path
    assert at(settings, "download.server.handoffPath") == handoff_path_for(socket_path)
    assert at(settings, "download.server.socketMode") == "0600"
    assert at(settings, "host.ip") == "127.0.0.1"
    assert at(settings, "storage.dir").startswith(f"{tmp_path}/cache/pantala/")
    for server in ("upload", "storage"):
        assert at(settings, f"{server}.server.ip") == "127.0.0.1"
    assert at(settings, "upload.server.port") == at(settings, "storage.server.tcpPort") == 0
    assert at(settings, "upload.disableShared") is True
    assert at(settings, "seedPeer.enable") is False
    assert at(settings, "metrics.enable") is at(settings, "health.enable") is False
    assert (tmp_path / "pantala").stat().st_mode & 0o777 == 0o700


def test_personal_with_a_socket(tmp_path: Path) -> None:
    """With a socket of one's own no directory is made."""
    settings = checked(
        "--personal", "--socket", f"{tmp_path}/x.sock", XDG_RUNTIME_DIR=str(tmp_path)
    )
    assert at(settings, "download.server.socketPath") == f"{tmp_path}/x.sock"
    assert not (tmp_path / "pantala").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "/none.yaml"], "/none.yaml: cannot be read: No such file or directory"),
        (["--log-dir", "/proc/none"], "--log-dir: /proc/none: No such file"),
    ],
)
def test_mistakes(arguments: list[str], expected: str) -> None:
    """Each is one line, and status 1."""
    status, output, errors = dfdaemon(*arguments)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith(f"dfdaemon: {expected}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--upload-port", "70000"], "--upload-port: 70000: expected less than"),
        (["--ip", "foo"], "--ip: 'foo': expected an IP address"),
        (["--cache-capacity", "abc"], "--cache-capacity: 'abc' is not a size"),
        (["--scheduler", "a:1", "--scheduler", "foo"], "--scheduler: 'foo': expected host:port"),
        (["--personal", "--idle-timeout", "5"], "--idle-timeout: '5' is not a duration"),
        (["--personal", "--idle-timeout", "0s"], "--idle-timeout: 0 would end"),
        (["--idle-timeout", "5m"], "--idle-timeout is for a daemon that is --personal"),
        (["--log-max-file-size", "x"], "--log-max-file-size: 'x' is not a size"),
        (["--log-max-file-size", "0"], "--log-max-file-size: 0 would let the file grow"),
        (["-l", "loud"], "--log-level: 'loud': want one of trace, debug"),
        (["--personal", "--scheduler", "a:1"], "--personal has a scheduler of its own"),
        (
            ["--personal", "--seed", "--upload-port", "0"],
            "--personal listens on no port, and serves nobody else: leave out --seed, --upl",
        ),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_wrong_usage(arguments: list[str], expected: str, check: bool) -> None:  # noqa: FBT001  a parameter of the test
    """One line that names the flag, and status 2; ``--check`` finds the same."""
    status, output, errors = dfdaemon(*arguments, *(["--check"] if check else []))
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"dfdaemon: {expected}")


def test_several_mistakes(tmp_path: Path) -> None:
    """Each has a line of its own."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\nstorage: {dir: x}")
    status, _, errors = dfdaemon("-c", str(path), "--strict")
    assert status == 1
    assert errors.splitlines() == [
        f"dfdaemon: {path}: unknown key a",
        f"dfdaemon: {path}: storage.dir = 'x': expected an absolute path",
    ]
    status, _, errors = dfdaemon("-c", str(path), "--ip", "x")
    assert status == 1  # flags alone are not at fault
    assert "dfdaemon: --ip: 'x': expected an IP address" in errors.splitlines()
    status, _, errors = dfdaemon("--upload-port", "-1", "--ip", "x")
    assert (status, errors.count("\n")) == (2, 2)


@pytest.mark.parametrize("console", [False, True])
def test_log_file(tmp_path: Path, console: bool) -> None:  # noqa: FBT001  a parameter of the test
    """Logs go to files of limited number and size; or to standard error, if so wished."""
    script = f"""
import structlog
from pantala.cli._daemon_run import _start_logging
from pantala.cli.dfdaemon import Options
_start_logging(Options(console={console}, log_dir={str(tmp_path / "a" / "b")!r},
    log_level="info", log_max_files=2), 1024)
for n in range(50):
    structlog.stdlib.get_logger("x").info("hello", n=n)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    files = {path.name: path.read_text() for path in (tmp_path / "a" / "b").glob("*")}
    if console:
        assert not files
        lines = done.stderr.splitlines()
    else:
        assert done.stderr == ""
        assert files.keys() == {"dfdaemon.log", "dfdaemon.log.1"}
        assert all(len(text) <= 1024 for text in files.values())
        lines = files["dfdaemon.log"].splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["n"]) == ("hello", 49)


@pytest.mark.parametrize(
    ("arguments", "env", "expected"),
    [
        (["--bogus"], {}, "unrecognized arguments: --bogus"),
        (["--conf", "x"], {}, "unrecognized arguments: --conf x"),
        (["extra"], {}, "unrecognized arguments: extra"),
        (["--upload-port", "x"], {}, "argument --upload-port: 'x': want a whole number"),
        (["--log-max-files", "1"], {}, "argument --log-max-files: '1': want 2 or more"),
        ([], {"DFDAEMON_LOG_MAX_FILES": "1"}, "DFDAEMON_LOG_MAX_FILES: '1': want 2 or more"),
        ([], {"DFDAEMON_CONSOLE": "x"}, "DFDAEMON_CONSOLE: want true or false, not 'x'"),
    ],
)
def test_usage(arguments: list[str], env: dict[str, str], expected: str) -> None:
    """A flag that does not exist, or a value that none can have, is a mistake of another kind."""
    status, output, errors = dfdaemon(*arguments, **env)
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1] == f"dfdaemon: error: {expected}"
