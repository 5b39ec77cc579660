"""``dfscheduler``: run a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pantala.errors import DragonflyError
from pantala.logs import setup_logging
from pantala.scheduler.config import DEFAULT_PATH, SchedulerConfig, load
from pantala.settings import if_present

from ._options import Check, Port, Strict, tell_why, version_flag
from ._process import program
from ._settings import settings_json
from ._text import flag_names

_EPILOG: Final = """
Examples:

\b
  dfscheduler                                use /etc/dragonfly/scheduler.yaml, if it is there
  dfscheduler --port 0 --listen-ip 127.0.0.1 any free port; the log says which
  dfscheduler --config my.yaml --json-logs   flags win over the file
  dfscheduler --config my.yaml --check       show what would be used, and stop
"""

_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="SCHEDULER_CONFIG",
        help=f"YAML file of settings. Default: {DEFAULT_PATH}, if it is there.",
    ),
]
_Listen = Annotated[str | None, typer.Option(metavar="IP", help="Address to listen on.")]
_Advertise = Annotated[
    str | None, typer.Option(metavar="IP", help="Address for daemons; shown in the log.")
]
_Level = Annotated[str | None, typer.Option("--log-level", "-l", help="trace … error.")]
_Json = Annotated[bool, typer.Option("--json-logs", help="Log JSON lines on a terminal too.")]
_Version = Annotated[bool, version_flag("dfscheduler")]

#: Flags that are settings, by the key that each one sets.
_KEYS: Final = {
    "port": "server.port",
    "listen_ip": "server.listenIP",
    "advertise_ip": "server.advertiseIP",
    "log_level": "server.logLevel",
}


@_app.command(epilog=_EPILOG)
def _command(
    *,
    config: _Config = None,
    port: Port = None,
    listen_ip: _Listen = None,
    advertise_ip: _Advertise = None,
    log_level: _Level = None,
    json_logs: _Json = False,
    check: Check = False,
    strict: Strict = False,
    version: _Version = False,
) -> None:
    """Run a Dragonfly scheduler: tell peers from which others to get content."""
    # Typer wants a parameter for each flag; from here on they are a mapping.
    raise typer.Exit(_main(locals()))


def _main(given: Mapping[str, Any]) -> int:
    """Do what the command line says; return the exit status."""
    try:
        config = _settings(given)
        if given["check"]:
            _check(config)
            return 0
        setup_logging(config.server.log_level, json=given["json_logs"])
        from pantala.scheduler import app  # noqa: PLC0415  slow, and --help needs none of it

        app.run(config)
    except DragonflyError as error:
        return tell_why("dfscheduler", error)
    return 0


def _settings(given: Mapping[str, Any]) -> SchedulerConfig:
    values = {key: given[name] for name, key in _KEYS.items() if given[name] is not None}
    strict = given["strict"] or given["check"]
    path = given["config"] or if_present(DEFAULT_PATH)
    return load(path, values, flag_names(_KEYS), strict=strict)


def _check(config: SchedulerConfig) -> None:
    tree = config.model_dump(mode="json", by_alias=True)
    typer.echo(settings_json(tree, numbers=frozenset({"requestRateLimit"})))
    for key in config.ignored:
        typer.echo(f"dfscheduler: {key} has no effect", err=True)


def main() -> None:
    """The program. Ends the process with its exit status."""
    with program("dfscheduler"):
        _app(prog_name="dfscheduler")


if __name__ == "__main__":
    main()
