"""A daemon as its command line wants it. Imported when that has been read: it is slow."""

from __future__ import annotations

import hashlib
import logging
import logging.handlers
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from pantala.daemon.config import DaemonConfig, load
from pantala.errors import ConfigError, UsageError
from pantala.logs import LEVELS, setup_logging
from pantala.model.units import parse_duration, parse_size
from pantala.paths import DAEMON_SETTINGS, cache_dir, make_runtime_dir, personal_socket
from pantala.settings import if_present

from ._options import IDLE
from ._settings import settings_json
from ._text import flag_names

if TYPE_CHECKING:  # it may be __main__, and would be imported a second time
    from .dfdaemon import Options

#: Settings of a personal daemon: nothing that other machines, or other users, can reach. It
#: listens on no port: those of the loopback interface are open to every user of the machine.
_PERSONAL: Final[dict[str, object]] = {
    "host.ip": "127.0.0.1",
    "download.server.socketMode": "0600",
    "upload.disableShared": True,
    "upload.server.ip": "127.0.0.1",
    "upload.server.port": 0,
    "storage.server.ip": "127.0.0.1",
    "storage.server.tcpPort": 0,
    "seedPeer.enable": False,
    "metrics.enable": False,
    "health.enable": False,
}

Number = TypeVar("Number", int, float)

_log = structlog.stdlib.get_logger(__name__)

#: Flags that are settings, by the key that each one sets.
_KEYS: Final = {
    "dynconfig": "dynconfig.path",
    "scheduler": "scheduler.addrs",
    "seed": "seedPeer.enable",
    "ip": "host.ip",
    "hostname": "host.hostname",
    "socket": "download.server.socketPath",
    "data_dir": "storage.dir",
    "cache_capacity": "storage.cacheCapacity",
    "upload_port": "upload.server.port",
    "storage_port": "storage.server.tcpPort",
    "metrics_port": "metrics.server.port",
    "health_port": "health.server.port",
}

#: Flags that are about other machines.
_FOR_OTHERS: Final = {
    key: f"--{name.replace('_', '-')}"
    for name, key in _KEYS.items()
    if name.endswith("_port") or name == "seed"
}


#: Flags that are paths, which are seen from where the program was started.
_PATHS: Final = frozenset({"dynconfig", "socket", "data_dir"})


def run(options: Options) -> int:
    """Do what the command line says; the exit status.

    Raises:
        DragonflyError: Why not.
    """
    idle, log_size = _idle_timeout(options), _log_size(options)
    if options.log_level.lower() not in LEVELS:
        wanted = ", ".join(LEVELS)
        raise UsageError(f"--log-level: {options.log_level!r}: want one of {wanted}")
    config = _settings(options)
    if options.check:
        _check(config)
        return 0
    _start_logging(options, log_size)
    if config.ignored:
        _log.warning("settings without effect", keys=config.ignored)
    if config.unknown:
        _log.warning("unknown settings", keys=config.unknown)
    from pantala.daemon import process  # noqa: PLC0415  gRPC: --check need not wait for it

    return process.run(config, personal_idle=idle)


def _idle_timeout(options: Options) -> float | None:
    """Seconds; None: it goes on until it is told to stop."""
    given = options.idle_timeout
    if not options.personal:
        if given is not None:
            raise UsageError("--idle-timeout is for a daemon that is --personal: no other quits")
        return None
    seconds = _parse("idle_timeout", IDLE if given is None else given, parse_duration)
    if seconds == 0:
        raise UsageError("--idle-timeout: 0 would end the daemon before its first request")
    return seconds


def _log_size(options: Options) -> int:
    size = _parse("log_max_file_size", options.log_max_file_size, parse_size)
    if size == 0:
        raise UsageError("--log-max-file-size: 0 would let the file grow without end")
    return size


def _settings(options: Options) -> DaemonConfig:
    # A flag that was not given is None or False; a port may be given as 0.
    values = {
        key: str(Path(value).absolute()) if name in _PATHS else value
        for name, key in _KEYS.items()
        if (value := getattr(options, name)) is not None and value is not False
    }
    path = None if options.config is None else Path(options.config)
    strict = options.strict or options.check
    if not options.personal:
        path = path or if_present(Path(DAEMON_SETTINGS))
        return load(path, values, flag_names(_KEYS), strict=strict)
    if values.keys() & {"scheduler.addrs", "dynconfig.path"}:
        raise UsageError(
            "--personal has a scheduler of its own: leave out --scheduler, --dynconfig"
        )
    if values.keys() & _FOR_OTHERS.keys():
        flags = ", ".join(f for key, f in _FOR_OTHERS.items() if key in values)
        raise UsageError(
            f"--personal listens on no port, and serves nobody else: leave out {flags}"
        )
    if options.socket is None:
        make_runtime_dir()
        values["download.server.socketPath"] = personal_socket()
    # Every socket is a daemon, and one machine may have many users.
    name = hashlib.sha256(str(values["download.server.socketPath"]).encode()).hexdigest()[:12]
    unique = {
        "host.hostname": f"{socket.gethostname()}-personal-{name}",
        "storage.dir": str(Path(cache_dir(), name)),
    }
    # The machine's file is for the machine's daemon.
    return load(path, _PERSONAL | unique | values, flag_names(_KEYS), strict=strict)


def _check(config: DaemonConfig) -> None:
    """Print *config*, after what only a start would find out about it."""
    if config.backend.ca_cert is not None:
        from pantala.sources.http import (  # noqa: PLC0415  slow, and few name authorities
            HttpSettings,
            HttpSource,
        )

        HttpSource(HttpSettings(ca_cert=config.backend.ca_cert)).close()
    sys.stdout.write(_as_json(config) + "\n")
    if config.backend.request_header:
        sys.stderr.write("dfdaemon: backend.requestHeader is not shown: it may hold passwords\n")
    for key in config.ignored:
        sys.stderr.write(f"dfdaemon: {key} has no effect\n")


def _as_json(config: DaemonConfig) -> str:
    """As a file may say it, but for headers, which may hold passwords."""
    hidden = {"backend": {"request_header"}}
    tree = config.model_dump(mode="json", by_alias=True, exclude=hidden)
    tree["download"]["server"]["socketMode"] = f"{config.download.server.socket_mode:04o}"
    return settings_json(tree)


def _parse(name: str, text: str, parse: Callable[[str], Number]) -> Number:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from None


def _start_logging(options: Options, size: int) -> None:
    """To standard error; or, with ``--log-dir`` and without ``--console``, to a rolling file.

    Args:
        options: The command line.
        size: Bytes of one file.
    """
    folder = None if options.console or options.log_dir is None else Path(options.log_dir)
    setup_logging(options.log_level, json=folder is not None)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        to_file = logging.handlers.RotatingFileHandler(
            folder / "dfdaemon.log", maxBytes=size, backupCount=options.log_max_files - 1
        )
    except OSError as exc:
        raise ConfigError(f"--log-dir: {folder}: {exc.strerror or exc}") from exc
    root = logging.getLogger()
    for to_stderr in root.handlers[:]:
        to_file.setFormatter(to_stderr.formatter)
        root.removeHandler(to_stderr)
    root.addHandler(to_file)
