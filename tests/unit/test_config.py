"""Settings: what a file may say, and what is said about the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from pantala.daemon.config import CATALOGUE, DaemonConfig, load
from pantala.errors import ConfigError
from pantala.model.addresses import manager_address, split_address
from pantala.settings import camel, nearest_key

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

#: A file such as Dragonfly's documentation shows, with every section of its client.
STOCK = """
host: {idc: z1, location: eu, schedulerClusterID: 3}
server:
  pluginDir: /usr/local/lib/dragonfly/plugins/dfdaemon/
  cacheDir: /var/cache/dragonfly/dfdaemon/
  adaptiveRateLimit: {bucketCount: 50, bucketInterval: 200ms, cpuThreshold: 100}
download:
  server: {socketPath: /var/run/dragonfly/dfdaemon.sock, requestRateLimit: 400}
  protocol: tcp
  bandwidthLimit: 50GB
  pieceTimeout: 6m
  concurrentPieceCount: 16
upload:
  server: {port: 4000}
  client:
  disableShared: false
  bandwidthLimit: 10Gib
manager: {addr: "http://manager.example:65003"}
scheduler: {announceInterval: 5m, scheduleTimeout: 3h, maxScheduleCount: 5}
seedPeer: {enable: true, type: super}
dynconfig: {refreshInterval: 1m}
storage:
  server: {tcpPort: 4005, quicPort: 4006}
  dir: /var/lib/dragonfly/
  keep: true
  writeBufferSize: 524288
  cacheCapacity: 64MiB
backend: {requestHeader: {X-Who: me}, enableHickoryDNS: true, putTimeout: 900s}
gc: {interval: 900s, policy: {taskTTL: 20days, distHighThresholdPercent: 90}}
proxy:
  server: {port: 4001, basicAuth: {username: u, password: p}}
  rules: [{regex: blobs/sha256.*}]
  registryMirror: {addr: https://index.docker.io}
security: {enable: false}
health: {server: {port: 4003}}
metrics: {server: {ip: 127.0.0.1, port: 4002}}
stats: {server: {port: 4004}}
tracing: {protocol: grpc, headers: {a: b}}
network: {enableIPv6: false}
"""


def write(tmp_path: Path, text: str) -> Path:
    """A settings file with *text* in it."""
    path = tmp_path / "dfdaemon.yaml"
    path.write_text(text)
    return path


def problems(path: Path | None, overrides: Mapping[str, object] | None = None) -> list[str]:
    """The lines of the error that strict loading gives, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, strict=True)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_defaults() -> None:
    """Without a file there are the defaults of the documentation."""
    config = load(None)
    assert config.download.server.socket_path == Path("/var/run/dragonfly/dfdaemon.sock")
    assert config.download.server.handoff_path == Path("/var/run/dragonfly/dfdaemon.handoff.sock")
    assert config.download.server.socket_mode == 0o660
    assert config.download.server.request_rate_limit == 4000
    assert config.upload.server.request_buffer_size == 4000
    assert config.download.bandwidth_limit == 50_000_000_000
    assert config.gc.policy.cache_task_ttl == 3600
    assert config.upload.server.port == 4000
    assert config.storage.server.tcp_port == 4005
    assert config.storage.cache_overflow == "error"
    assert config.ignored == ()
    assert 0 < config.storage.cache_capacity <= psutil.virtual_memory().total // 4


def test_stock_file(tmp_path: Path) -> None:
    """A file written for Dragonfly's client loads, and what has no effect is listed."""
    config = load(write(tmp_path, STOCK))
    assert config.upload.bandwidth_limit == 10 << 30
    assert config.download.concurrent_piece_count == 16
    assert config.download.piece_timeout == 360
    assert config.storage.cache_capacity == 64 << 20
    assert config.backend.request_header == {"X-Who": "me"}
    assert config.host.scheduler_cluster_id == 3
    assert config.manager.addr == "manager.example:65003"
    assert config.gc.policy.task_ttl == 20 * 86400
    # Stock files, and their authors, misspell it.
    assert config.gc.policy.disk_high_threshold_percent == 90
    assert config.ignored == (
        "backend.enableHickoryDNS",
        "backend.putTimeout",
        "proxy.registryMirror.addr",
        "proxy.rules",
        "proxy.server.basicAuth.password",
        "proxy.server.basicAuth.username",
        "proxy.server.port",
        "security.enable",
        "server.adaptiveRateLimit.bucketCount",
        "server.adaptiveRateLimit.bucketInterval",
        "server.adaptiveRateLimit.cpuThreshold",
        "server.cacheDir",
        "server.pluginDir",
        "stats.server.port",
        "storage.server.quicPort",
        "storage.writeBufferSize",
        "tracing.headers",
        "tracing.protocol",
    )


def test_every_key_is_documented() -> None:
    """The documentation names all and only the keys that are known."""
    named = set(re.findall(r"^\| `(\w+\.[\w.]+|console)`", DOCS.read_text(), re.MULTILINE))
    assert named == CATALOGUE.keys() | CATALOGUE.aliases.keys()


@pytest.mark.parametrize("text", ["", "# nothing\n", "storage:\n", "storage: {dir: null}"])
def test_nothing_said(tmp_path: Path, text: str) -> None:
    """An empty file, an empty section and a null all mean the defaults."""
    assert load(write(tmp_path, text)) == load(None)


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Each problem has its line, and says where, what and what instead."""
    text = """
storage: {cacheCapacty: 1GiB, dir: relative, server: {tcpPort: 70000}}
hots: {ip: 10.0.0.1}
upload: {cacheCapacity: 1GiB}
proxy: {servr: {port: 1}}
download: 5
gc: {interval: 900, policy: {cacheTaskTTL: 0s}}
"""
    assert problems(write(tmp_path, text)) == [
        "unknown key storage.cacheCapacty; did you mean storage.cacheCapacity?",
        "unknown key hots; did you mean host?",
        "unknown key upload.cacheCapacity; did you mean storage.cacheCapacity?",
        "unknown key proxy.servr; did you mean proxy.server?",
        "download: expected a section, that is, keys of its own",
        "storage.server.tcpPort = 70000: expected less than or equal to 65535",
        "storage.dir = 'relative': expected an absolute path",
        "gc.interval = 900: expected a duration with its unit, such as 30s or 1h 30m",
        "gc.policy.cacheTaskTTL = '0s': expected greater than 0",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("upload.server.caCert", "/ca.pem", "TLS is not available yet"),
        ("upload.client.key", "/key.pem", "TLS is not available yet"),
        ("scheduler.cert", "/cert.pem", "TLS is not available yet"),
        ("manager.caCert", "/ca.pem", "TLS is not available yet"),
        ("manager.addr", "https://m:65003", "TLS to a manager is not available yet"),
        ("manager.addr", "http://m", "expected http://host:port, such as http://manager:65003"),
        ("manager.addr", "ftp://m:1", "expected http://host:port, such as http://manager:65003"),
        ("download.protocol", "quic", "only tcp is available in this version"),
        ("storage.cacheOverflow", "disk", "'error' or 'task'"),
        ("storage.cacheCapacity", "-1", "is not a size"),
        ("storage.cacheCapacity", -1, "is not a size"),
        ("storage.cacheCapacity", True, "expected a size"),
        ("storage.cacheCapacity", 1.5, "expected a size"),
        ("storage.keep", "yes", "expected a valid boolean"),
        ("download.bandwidthLimit", 0, "expected greater than 0"),
        ("download.concurrentPieceCount", 0, "greater than or equal to 1"),
        ("download.concurrentPieceCount", True, "expected a valid integer"),
        ("download.pieceTimeout", "1000000 days", "expected less than"),
        ("download.server.socketMode", 432, "octal digits in quotes"),
        ("download.server.socketMode", "0888", "octal digits in quotes"),
        ("download.server.socketMode", "1777", "permissions only"),
        ("download.server.allowOutputPath", "maybe", "expected 'auto', True or False"),
        ("download.server.allowUsers", ["no-such-user"], "name of a user of this machine"),
        ("download.server.allowUsers", [-1], "a user's number"),
        ("download.server.handoffPath", "/" + "x" * 107, "107 bytes"),
        ("download.server.handoffPath", "run/x.sock", "expected an absolute path"),
        ("host.ip", "0.0.0.0", "that others can reach"),
        ("host.ip", "here", "expected an IP address"),
        ("host.hostname", "", "at least 1"),
        ("upload.server.port", -1, "greater than or equal to 0"),
        ("upload.server.port", "4000", "expected a valid integer"),
        ("scheduler.addrs", ["10.0.0.1"], "expected host:port"),
        ("seedPeer.type", "weak", "expected 'normal' or 'super'"),
    ],
)
def test_wrong_value(key: str, value: object, expected: str) -> None:
    """One line names the key, and what is expected of it."""
    (line,) = problems(None, {key: value})
    assert expected in line
    assert key in line


def test_source_of_a_problem(tmp_path: Path) -> None:
    """A wrong flag is not blamed on the file."""
    path = write(tmp_path, "storage: {cacheCapacity: 1GiB, keep: 3}")
    assert problems(path, {"storage.cacheCapacity": "lots"}) == [
        "storage.keep = 3: expected a valid boolean",
        (
            "command line: storage.cacheCapacity: 'lots' is not a size: "
            "want bytes, such as 4MiB, 50GB or 1048576"
        ),
    ]


def test_override_wins(tmp_path: Path) -> None:
    """A flag wins over the file, also where the file says nothing of the section."""
    path = write(tmp_path, "storage: {cacheCapacity: 1GiB}\nupload:\n")
    config = load(path, {"storage.cacheCapacity": "2GiB", "upload.server.port": 0})
    assert config.storage.cache_capacity == 2 << 30
    assert config.upload.server.port == 0


def test_override_in_a_section_that_is_none(tmp_path: Path) -> None:
    """A flag does not paper over a file that makes no sense."""
    path = write(tmp_path, "storage: 5")
    assert problems(path, {"storage.dir": "/x"}) == [
        "storage: expected a section, that is, keys of its own"
    ]


def test_checked_values_that_are_right() -> None:
    """What has a check of its own also passes it."""
    config = load(
        None,
        {
            "download.server.socketMode": "0600",
            "download.server.allowOutputPath": False,
            "download.protocol": "tcp",
            "storage.cacheOverflow": "error",
            "scheduler.addrs": ["[::1]:8002"],
        },
    )
    assert config.download.server.socket_mode == 0o600
    assert config.download.server.allow_output_path is False
    assert config.download.protocol == "tcp"
    assert config.storage.cache_overflow == "error"
    assert config.scheduler.addrs == ("[::1]:8002",)


def test_capacity_off_and_auto() -> None:
    """0 is none at all; auto is what is taken without the key."""
    assert load(None, {"storage.cacheCapacity": 0}).storage.cache_capacity == 0
    auto = load(None, {"storage.cacheCapacity": "auto"})
    assert auto.storage.cache_capacity == load(None).storage.cache_capacity


def test_handoff_follows_the_socket() -> None:
    """The hand-off socket lies beside the gRPC socket unless it is set."""
    config = load(None, {"download.server.socketPath": "/run/x/d.sock"})
    assert config.download.server.handoff_path == Path("/run/x/d.handoff.sock")
    both = {"download.server.socketPath": "/run/d.sock", "download.server.handoffPath": "/run/h"}
    assert load(None, both).download.server.handoff_path == Path("/run/h")


def test_ipv6() -> None:
    """With IPv6, servers listen on its unspecified address unless told otherwise."""
    config = load(None, {"network.enableIPv6": True, "metrics.server.ip": "127.0.0.1"})
    assert config.upload.server.ip == "::"
    assert config.storage.server.ip == "::"
    assert config.health.server.ip == "::"
    assert config.metrics.server.ip == "127.0.0.1"
    assert ":" in config.host.ip


def test_users_by_name_and_number() -> None:
    """Names become numbers at start, so that a mistake is found at once."""
    config = load(None, {"download.server.allowUsers": ["root", 1234]})
    assert config.download.server.allow_users == (0, 1234)


@pytest.mark.parametrize(
    ("seed", "host_type", "suffix"),
    [({}, 0, ""), ({"enable": True}, 1, "-seed"), ({"enable": True, "type": "normal"}, 0, "-seed")],
)
def test_who_we_are(tmp_path: Path, seed: dict[str, object], host_type: int, suffix: str) -> None:
    """Id and type of a host follow from address, name and role."""
    text = f"host: {{ip: 10.1.2.3, hostname: n}}\nseedPeer: {str(seed).replace('True', 'true')}"
    config = load(write(tmp_path, text))
    assert (config.host_id, config.host_type) == (f"10.1.2.3-n{suffix}", host_type)


def test_secrets_stay_secret(tmp_path: Path) -> None:
    """Headers for origins appear in no message and in no repr."""
    config = load(write(tmp_path, "backend: {requestHeader: {Authorization: Bearer hunter2}}"))
    assert "hunter2" not in repr(config)
    (line,) = problems(write(tmp_path, "backend: {requestHeader: {accept-Encoding: gzip}}"))
    assert line.startswith("backend.requestHeader: accept-encoding decides which content")
    (line,) = problems(write(tmp_path, "backend: {requestHeader: Bearer hunter2}"))
    assert line == "backend.requestHeader: expected a mapping of keys to values"
    (line,) = problems(write(tmp_path, "backend: {requestHeader: {Pin: 4711}}"))
    assert line == "backend.requestHeader.Pin: expected a valid string"
    assert "hunter2" not in problems(write(tmp_path, "backend: {a: 'hunter2"))[0]


def test_case_and_empty_text(tmp_path: Path) -> None:
    """Keys may differ in case, as in Dragonfly's charts; empty text is as good as no key."""
    text = """
Download: {server: {requestbufferSize: 20, handoffPath: ''}}
host: {idc: '', IP: '', hostname: ''}
backend: {requestHeader: {X-Empty: '', x-empty: a}}
upload: {server: {caCert: ''}}
"""
    config = load(write(tmp_path, text), strict=True)
    assert config.download.server.request_buffer_size == 20
    assert config.host == load(None).host
    assert config.backend.request_header == {"X-Empty": "", "x-empty": "a"}
    twice = "storage: {keep: true, Keep: false}"
    assert problems(write(tmp_path, twice)) == [
        "key storage.keep appears twice, once as storage.Keep"
    ]


def test_unknown_keys_are_told(tmp_path: Path) -> None:
    """Unless the reading is strict, they are no error. What is wrong besides still is."""
    text = "hots: {ip: 10.0.0.1}\n7: x\nstorage: {keep: true}"
    config = load(write(tmp_path, text))
    assert config.unknown == ("unknown key hots; did you mean host?", "unknown key 7")
    assert config.storage.keep
    with pytest.raises(ConfigError, match=r"storage\.keep") as caught:
        load(write(tmp_path, "hots: {}\nstorage: {keep: 1}"))
    assert "hots" not in str(caught.value)


def test_a_list_is_called_one(tmp_path: Path) -> None:
    """Not by the name that Python has for it."""
    (line,) = problems(write(tmp_path, "scheduler: {addrs: '1.2.3.4:8002'}"))
    assert line == "scheduler.addrs = '1.2.3.4:8002': expected a list"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", "expected a mapping of keys to values at the top"),
        ("just words", "expected a mapping of keys to values at the top"),
        ("a: [", "not YAML at line"),
        ("host: {}\nhost: {}", "not YAML at line 2: key host appears twice"),
        ("storage: {keep: true, keep: false}", "key keep appears twice"),
        ("a: " + "[" * 5000, "not YAML: nested too deeply"),
        ("a: &a {b: *a}", "an alias stands for what it is a part of"),
        ("#" * ((4 << 20) + 1), "larger than 4194304 bytes"),
        (
            "a0: &a0 {x: 1, y: 2}\n"
            + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40)),
            "more than 1000000 values, with those that aliases stand for",
        ),
        ("? {a: b}\n: c", "not YAML at line 1"),
        ("host: !!python/object:os.system {}", "not YAML at line 1"),
        ("host: \x00", "not YAML"),
        ("7: x", "unknown key 7"),
    ],
)
def test_no_settings_at_all(tmp_path: Path, text: str, expected: str) -> None:
    """What is not a mapping of settings is one line."""
    (line,) = problems(write(tmp_path, text))
    assert expected in line


def test_unreadable(tmp_path: Path) -> None:
    """A missing file, a directory, a pipe and bytes that are no text are each one line."""
    assert problems(tmp_path / "none.yaml") == ["cannot be read: No such file or directory"]
    assert problems(tmp_path) == ["cannot be read: Is a directory"]
    os.mkfifo(tmp_path / "pipe")
    assert problems(tmp_path / "pipe") == ["a pipe, and nobody writes into it"]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(os.urandom(16) + b"\xff\xfe\x80")
    assert len(problems(binary)) == 1


def test_immutable() -> None:
    """Nobody changes settings on the way."""
    config = load(None)
    with pytest.raises(ValueError, match="frozen"):
        config.storage.keep = True
    assert isinstance(config, DaemonConfig)


def test_anchors_merge(tmp_path: Path) -> None:
    """YAML's merge key is no duplicate."""
    text = "health: &h {server: {ip: 127.0.0.1}}\nmetrics: {<<: *h, enable: false}"
    config = load(write(tmp_path, text))
    assert (config.metrics.server.ip, config.metrics.enable) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b:1", ("a.b", 1)), ("10.0.0.1:8002", ("10.0.0.1", 8002)), ("[::1]:80", ("::1", 80))],
)
def test_split_address(text: str, expected: tuple[str, int]) -> None:
    """Host and port, IPv6 without its brackets."""
    assert split_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a", ":1", "a:", "a:0", "a:65536", "::1:80", "[a]:1", "[]:1", "a:²", "a:-1", "a:+1"],
)
def test_no_address(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="expected host:port"):
        split_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://m.example:65003", "m.example:65003"),
        ("HTTP://m.example:65003/", "m.example:65003"),
        ("m.example:65003", "m.example:65003"),
        ("http://[fd00::1]:65003", "[fd00::1]:65003"),
    ],
)
def test_manager_address(text: str, expected: str) -> None:
    """As Dragonfly's daemons write it, or as its schedulers do."""
    assert manager_address(text) == expected


def test_names() -> None:
    """Python's names become those of Dragonfly's files."""
    assert camel("back_to_source_bandwidth_limit") == "backToSourceBandwidthLimit"
    assert camel("scheduler_cluster_id") == "schedulerClusterID"
    assert nearest_key("storage.x", frozenset({"host.ip"})) is None


def test_watermarks_are_in_order(tmp_path: Path) -> None:
    """And no key is there by two names."""
    text = "gc: {policy: {diskHighThresholdPercent: 50, diskLowThresholdPercent: 60}}"
    assert problems(write(tmp_path, text)) == [
        "gc.policy: diskLowThresholdPercent is above diskHighThresholdPercent"
    ]
    text = "gc: {policy: {diskThreshold: 1GiB, distThreshold: 2GiB}}"
    assert problems(write(tmp_path, text)) == [
        "key gc.policy.diskThreshold appears twice, once as gc.policy.distThreshold"
    ]
