"""A scheduler as its command line wants it. Imported when that has been read: it is slow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pantala.core.sched.priorities import Priorities
from pantala.logs import setup_logging
from pantala.paths import DYNCONFIG, SCHEDULER_SETTINGS
from pantala.scheduler.config import SchedulerConfig, load
from pantala.scheduler.wishes_file import WishesFile
from pantala.scheduler.workers import Place, keep
from pantala.settings import if_present

from ._settings import settings_json
from ._text import flag_names

if TYPE_CHECKING:  # it may be __main__, and would be imported a second time
    from .dfscheduler import Options

#: Flags that are settings, by the key that each one sets.
_KEYS: Final = {
    "port": "server.port",
    "workers": "server.workers",
    "listen_ip": "server.listenIP",
    "advertise_ip": "server.advertiseIP",
    "log_level": "server.logLevel",
    "dynconfig": "dynConfig.path",
}


def run(options: Options) -> int:
    """Do what the command line says; the exit status.

    Raises:
        DragonflyError: Why not.
    """
    config = _settings(options)
    path = config.dyn_config.path
    # Who has a manager reads no file.
    source = None
    if config.manager.addr is None:
        source = WishesFile(path or Path(DYNCONFIG), asked_for=path is not None)
    if options.check:
        _check(config, source)
        return 0
    setup_logging(config.server.log_level, json=options.json_logs)
    place: Place | None = None
    if config.server.workers > 1:
        place = keep(config)
        if place is None:
            return 0
        config = place.config
        place.end_with_parent()
        always = {"worker": place.number}
        setup_logging(config.server.log_level, json=options.json_logs, always=always)
    # gRPC: --check need not wait for it, and workers are forked before it is there.
    from pantala.scheduler import process  # noqa: PLC0415  it imports gRPC

    process.run(config, source, place)
    return 0


def _settings(options: Options) -> SchedulerConfig:
    values = {
        key: value for name, key in _KEYS.items() if (value := getattr(options, name)) is not None
    }
    given = options.config
    path = if_present(Path(SCHEDULER_SETTINGS)) if given is None else Path(given)
    return load(path, values, flag_names(_KEYS), strict=options.strict or options.check)


def _check(config: SchedulerConfig, source: WishesFile | None) -> None:
    """Print the settings; say of both files what counts for nothing."""
    lines = [] if source is None else list(_odd_wishes(source))
    tree = config.model_dump(mode="json", by_alias=True)
    sys.stdout.write(settings_json(tree, numbers=frozenset({"requestRateLimit"})) + "\n")
    for line in (*(f"{key} has no effect" for key in config.without_effect), *lines):
        sys.stderr.write(f"dfscheduler: {line}\n")


def _odd_wishes(source: WishesFile) -> Iterator[str]:
    """What of a file counts for nothing, a line each."""
    wishes, foreign, unknown = source.load()
    for key in (*foreign, *unknown):
        yield f"{source.path}: {key} has no effect"
    for line in Priorities(wishes.applications).skipped:
        yield f"{source.path}: {line}: skipped"
