"""``dfdaemon``: run the daemon of a machine."""

from __future__ import annotations

import hashlib
import logging
import logging.handlers
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import structlog
import typer

from pantala.daemon.config import DEFAULT_PATH, DaemonConfig, load
from pantala.errors import ConfigError, DragonflyError, UsageError
from pantala.logs import LEVELS, setup_logging
from pantala.model.units import parse_duration, parse_size
from pantala.paths import cache_dir, make_runtime_dir, personal_socket
from pantala.settings import if_present

from ._options import Check, Port, Strict, tell_why, version_flag
from ._process import program
from ._settings import settings_json
from ._text import flag_names

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

_EPILOG: Final = """
Examples:

\b
  dfdaemon                                   use /etc/dragonfly/dfdaemon.yaml, if it is there
  dfdaemon --scheduler 10.0.0.7:8002         no file needed
  dfdaemon -c my.yaml --cache-capacity 8GiB  flags win over the file
  dfdaemon -c my.yaml --check                show what would be used, and stop
"""

#: When a personal daemon quits, unless it is told otherwise.
_IDLE: Final = "5m"

Number = TypeVar("Number", int, float)

_log = structlog.stdlib.get_logger(__name__)
_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _env(name: str) -> str:
    return f"DFDAEMON_{name}"


# Only some flags have an environment variable, those of Dragonfly's daemon. Names such as
# DFDAEMON_METRICS_PORT are dangerous: Kubernetes sets them, to something else, in every
# container beside a service named dfdaemon-metrics.
_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar=_env("CONFIG"),
        help=f"YAML file of settings. Default: {DEFAULT_PATH}, if it is there.",
    ),
]
_DynconfigPath = Annotated[
    Path | None,
    typer.Option(envvar=_env("DYNCONFIG"), help="YAML file that names the schedulers."),
]
_Scheduler = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="A scheduler, instead of that file. Repeatable."),
]
_Seed = Annotated[bool, typer.Option("--seed", help="Be a seed: first to ask the origin.")]
_Ip = Annotated[str | None, typer.Option(help="Address under which others reach this host.")]
_Hostname = Annotated[str | None, typer.Option(help="Name of this host.")]
_Socket = Annotated[Path | None, typer.Option(help="Unix socket for programs on this host.")]
_DataDir = Annotated[Path | None, typer.Option(help="Directory for content kept on disk.")]
_Capacity = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory for cache tasks: auto, 2GiB …, or 0 for none."),
]
_Level = Annotated[
    str,
    typer.Option("--log-level", "-l", envvar=_env("LOG_LEVEL"), help="trace … error."),
]
_LogDir = Annotated[
    Path | None,
    typer.Option(envvar=_env("LOG_DIR"), help="Log to dfdaemon.log in this directory."),
]
_LogFiles = Annotated[
    int, typer.Option(envvar=_env("LOG_MAX_FILES"), min=2, help="Log files to keep.")
]
_LogSize = Annotated[
    str, typer.Option(envvar=_env("LOG_MAX_FILE_SIZE"), metavar="SIZE", help="Of one log file.")
]
_Console = Annotated[
    bool, typer.Option("--console", envvar=_env("CONSOLE"), help="Log to standard error anyway.")
]
_Personal = Annotated[
    bool,
    typer.Option(
        "--personal", help="For this user alone: with its own scheduler, until it is idle."
    ),
]
_Idle = Annotated[
    str | None,
    typer.Option(metavar="TIME", help=f"When a personal daemon quits. Default: {_IDLE}."),
]
_Version = Annotated[bool, version_flag("dfdaemon")]


@_app.command(epilog=_EPILOG)
def _command(
    *,
    config: _Config = None,
    dynconfig: _DynconfigPath = None,
    scheduler: _Scheduler = None,
    seed: _Seed = False,
    ip: _Ip = None,
    hostname: _Hostname = None,
    socket: _Socket = None,
    data_dir: _DataDir = None,
    cache_capacity: _Capacity = None,
    upload_port: Port = None,
    storage_port: Port = None,
    metrics_port: Port = None,
    health_port: Port = None,
    log_level: _Level = "info",
    log_dir: _LogDir = None,
    log_max_files: _LogFiles = 6,
    log_max_file_size: _LogSize = "1GiB",
    console: _Console = False,
    personal: _Personal = False,
    idle_timeout: _Idle = None,
    check: Check = False,
    strict: Strict = False,
    version: _Version = False,
) -> None:
    """Run a Dragonfly daemon: get content from peers, and give it to them."""
    # Typer wants a parameter for each flag; from here on they are a mapping.
    raise typer.Exit(_main(locals()))


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


def _main(given: Mapping[str, Any]) -> int:
    """Do what the command line says; return the exit status."""
    try:
        idle, log_size = _idle_timeout(given), _log_size(given)
        if given["log_level"].lower() not in LEVELS:
            wanted = ", ".join(LEVELS)
            raise UsageError(f"--log-level: {given['log_level']!r}: want one of {wanted}")
        config = _settings(given)
        if given["check"]:
            _check(config)
            return 0
        _start_logging(given, log_size)
        if config.ignored:
            _log.warning("settings without effect", keys=config.ignored)
        if config.unknown:
            _log.warning("unknown settings", keys=config.unknown)
        from pantala.daemon import process  # noqa: PLC0415  slow, and --help needs none of it

        return process.run(config, personal_idle=idle)
    except DragonflyError as error:
        return tell_why("dfdaemon", error)


def _idle_timeout(given: Mapping[str, Any]) -> float | None:
    """Seconds; None: it goes on until it is told to stop."""
    if not given["personal"]:
        if given["idle_timeout"] is not None:
            raise UsageError("--idle-timeout is for a daemon that is --personal: no other quits")
        return None
    seconds = _parse(given, "idle_timeout", parse_duration, _IDLE)
    if seconds == 0:
        raise UsageError("--idle-timeout: 0 would end the daemon before its first request")
    return seconds


def _log_size(given: Mapping[str, Any]) -> int:
    size = _parse(given, "log_max_file_size", parse_size)
    if size == 0:
        raise UsageError("--log-max-file-size: 0 would let the file grow without end")
    return size


def _settings(given: Mapping[str, Any]) -> DaemonConfig:
    # A flag that was not given is None, [] or False; a port may be given as 0.
    values = {
        key: str(value.absolute()) if isinstance(value, Path) else value
        for name, key in _KEYS.items()
        if (value := given[name]) is not None and value is not False and value != []
    }
    path: Path | None = given["config"]
    strict = given["strict"] or given["check"]
    if not given["personal"]:
        return load(path or if_present(DEFAULT_PATH), values, flag_names(_KEYS), strict=strict)
    if values.keys() & {"scheduler.addrs", "dynconfig.path"}:
        raise UsageError(
            "--personal has a scheduler of its own: leave out --scheduler, --dynconfig"
        )
    if values.keys() & _FOR_OTHERS.keys():
        flags = ", ".join(f for key, f in _FOR_OTHERS.items() if key in values)
        raise UsageError(
            f"--personal listens on no port, and serves nobody else: leave out {flags}"
        )
    if given["socket"] is None:
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
    typer.echo(_as_json(config))
    if config.backend.request_header:
        typer.echo("dfdaemon: backend.requestHeader is not shown: it may hold passwords", err=True)
    for key in config.ignored:
        typer.echo(f"dfdaemon: {key} has no effect", err=True)


def _as_json(config: DaemonConfig) -> str:
    """As a file may say it, but for headers, which may hold passwords."""
    hidden = {"backend": {"request_header"}}
    tree = config.model_dump(mode="json", by_alias=True, exclude=hidden)
    tree["download"]["server"]["socketMode"] = f"{config.download.server.socket_mode:04o}"
    return settings_json(tree)


def _parse(
    given: Mapping[str, Any], name: str, parse: Callable[[str], Number], default: str = ""
) -> Number:
    try:
        return parse(default if given[name] is None else given[name])
    except ValueError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from None


def _start_logging(given: Mapping[str, Any], size: int) -> None:
    """To standard error; or, with ``--log-dir`` and without ``--console``, to a rolling file.

    Args:
        given: The command line.
        size: Bytes of one file.
    """
    folder: Path | None = None if given["console"] else given["log_dir"]
    setup_logging(given["log_level"], json=folder is not None)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        to_file = logging.handlers.RotatingFileHandler(
            folder / "dfdaemon.log", maxBytes=size, backupCount=given["log_max_files"] - 1
        )
    except OSError as exc:
        raise ConfigError(f"--log-dir: {folder}: {exc.strerror or exc}") from exc
    root = logging.getLogger()
    for to_stderr in root.handlers[:]:
        to_file.setFormatter(to_stderr.formatter)
        root.removeHandler(to_stderr)
    root.addHandler(to_file)


def main() -> None:
    """The program. Ends the process with its exit status."""
    with program("dfdaemon"):
        _app(prog_name="dfdaemon")


if __name__ == "__main__":
    main()
