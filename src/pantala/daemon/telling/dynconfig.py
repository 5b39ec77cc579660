"""Which schedulers there are, and what is blocked: from a list, a file, or a manager.

A list wins. Without one a manager is asked, again and again, if there is one; else a file is read
that may be there, Dragonfly's local dynconfig: ``scheduler.addrs``, a list, wins over
``scheduler.addr``. Names are looked up anew at each refresh, so a scheduler may move. A range of
ports stands for a scheduler at each of them.

What is blocked, a manager says, or else the file, whoever names the schedulers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from pydantic import Field

from pantala.background import Loops
from pantala.core.blocking import BlockLists, read
from pantala.daemon.config import DaemonConfig
from pantala.errors import ConfigError, DragonflyError
from pantala.model.addresses import host_port, split_address, spread
from pantala.paths import DYNCONFIG
from pantala.settings import (
    Addresses,
    Catalogue,
    Root,
    Settings,
    if_present,
    read_settings,
)

from .manager import ManagerSource

#: Where the file lies unless ``dynconfig.path`` says otherwise. It need not exist.
DEFAULT_PATH: Final = Path(DYNCONFIG)

#: Seconds for looking up one name.
_LOOKUP_TIMEOUT: Final = 10.0
#: Seconds until the next try while no scheduler is known at all, or less if so configured.
_EAGER_INTERVAL: Final = 5.0

_log = structlog.stdlib.get_logger(__name__)


class _SchedulerAddresses(Settings):
    addr: Addresses | None = None
    addrs: tuple[Addresses, ...] = ()


class _File(Root):
    scheduler: _SchedulerAddresses = Field(default_factory=_SchedulerAddresses)
    client_config: dict[str, Any] = Field(default_factory=dict)
    seed_client_config: dict[str, Any] = Field(default_factory=dict)


#: Those that are ignored are a scheduler's, whose file may be the same.
_CATALOGUE: Final = Catalogue(
    _File,
    ignored=frozenset(
        {
            "applications",
            "schedulerClusterConfig",
            "schedulerClusterClientConfig",
            "seedPeerClusterConfig",
        }
    ),
)


class _Read(NamedTuple):
    """What a refresh has found.

    Attributes:
        names: ``host:port`` of all schedulers as they are written.
        lists: What is blocked; None: that could not be read.
        source: Where *lists* are from.
        unknown: Keys of the file that nobody knows.
    """

    names: tuple[str, ...]
    lists: BlockLists | None = BlockLists()
    source: str = ""
    unknown: tuple[str, ...] = ()


class Dynconfig:
    """The schedulers of this moment.

    Args:
        config: Of this daemon.
        addrs: ``host:port`` of schedulers, or ``unix:path``, instead of all that *config* says.
        on_change: Called with the new list whenever it changes, the first one included.
        on_lists: Called with what is blocked, and where that is from, whenever it was read.
    """

    def __init__(
        self,
        config: DaemonConfig,
        *,
        addrs: Sequence[str] = (),
        on_change: Callable[[tuple[str, ...]], None] | None = None,
        on_lists: Callable[[BlockLists, str], object] = lambda _lists, _source: None,
    ) -> None:
        self._own = tuple(addrs)
        self._listed = _all(config.scheduler.addrs)
        manager = config.manager.addr
        self._manager = ManagerSource(manager, config) if manager and not addrs else None
        self._path = config.dynconfig.path
        self._unused = self._unused_settings(config)
        self._seed = config.seed_peer.enable
        self._interval = config.dynconfig.refresh_interval
        self._on_change = on_change
        self._on_lists = on_lists
        #: What was wrong at the last refresh, so that it is logged once.
        self._problem = ""
        #: What each name stood for when it was last known.
        self._found: dict[str, tuple[str, ...]] = {}
        self._current: tuple[str, ...] = ()

    def _unused_settings(self, config: DaemonConfig) -> list[str]:
        if self._manager is not None:
            return [] if self._path is None else ["dynconfig.path"]
        return [] if config.manager.addr is None else ["manager.addr"]

    def current(self) -> tuple[str, ...]:
        """``ip:port`` of all schedulers, IPv6 in brackets, or ``unix:path``.

        Sorted, each once. May be empty.
        """
        return self._current

    async def start(self) -> None:
        """Read for the first time. A name that is not known yet is no error: it may come.

        Nor is it one that a manager does not answer: what it answered last counts.

        Raises:
            ConfigError: The file is malformed, or missing where it was asked for.
        """
        if self._unused:
            _log.warning("settings without effect", keys=self._unused)
        if self._manager is None:
            found = await asyncio.to_thread(self._read_file)
            if found.unknown:
                _log.warning("unknown dynconfig keys", keys=found.unknown)
            await self._take(found)
            known = bool(found.names)
        else:
            await self._remember(self._manager)
            await self.refresh()
            known = bool(self._current)
        if not known:
            _log.warning(
                "no scheduler: every download goes to the origin",
                todo="name one by scheduler.addrs, --scheduler or the dynconfig file, or a manager "
                "by manager.addr",
            )

    async def _remember(self, manager: ManagerSource) -> None:
        """Begin with what a manager said to an earlier life of this daemon."""
        known = await asyncio.to_thread(manager.remembered)
        if known is not None:
            names = self._listed or known.schedulers
            await self._take(_Read(names, known.lists, manager.name))

    def keep_reading(self, loops: Loops) -> None:
        """From now on, refresh every ``dynconfig.refreshInterval``."""

        async def turn() -> None:
            # It was read at the start: the waiting comes first.
            eager = self._problem and not self._current
            await asyncio.sleep(min(self._interval, _EAGER_INTERVAL) if eager else self._interval)
            await self.refresh()

        loops.keep(turn, "read the list of schedulers")

    async def refresh(self) -> None:
        """Look again. What cannot be read, or looked up, stays as it was."""
        try:
            if self._manager is not None:
                found = await self._ask(self._manager)
            else:
                found = await asyncio.to_thread(self._read_file)
        except DragonflyError as error:
            if self._listed and self._manager is not None:  # they do not hang on it
                await self._take(_Read(self._listed, None), str(error))
            else:
                self._report(str(error))
        else:
            await self._take(found)
            if self._manager is not None:
                await asyncio.to_thread(self._manager.keep)

    async def _ask(self, manager: ManagerSource) -> _Read:
        answer = await manager.ask()
        return _Read(self._listed or answer.schedulers, answer.lists, manager.name)

    def _read_file(self) -> _Read:
        """What the file says. Nothing is read for a daemon that has its own scheduler."""
        if self._own:
            return _Read(self._own)
        if self._path is None:
            self._path = if_present(DEFAULT_PATH)
        if self._path is None:
            return _Read(self._listed)
        # From now on the file is expected: that it vanishes is a failure like any other.
        file = read_settings(_CATALOGUE, self._path)
        scheduler = file.scheduler
        names = _all(scheduler.addrs or ((scheduler.addr,) if scheduler.addr else ()))
        part = "seedClientConfig" if self._seed else "clientConfig"
        try:
            lists = read(file.seed_client_config if self._seed else file.client_config)
        except ValueError as error:
            raise ConfigError(f"{self._path}: {part}: {error}") from None
        return _Read(self._listed or names, lists, f"{part} of {self._path}", file.unknown)

    async def _take(self, news: _Read, problem: str = "") -> None:
        """Use what was found; *problem*: what could not be, besides."""
        names = news.names
        if news.lists is not None:
            self._on_lists(news.lists, news.source)
        async with asyncio.TaskGroup() as group:
            lookups = [group.create_task(self._look_up(name)) for name in names]
        problems = [words for lookup in lookups if (words := lookup.result())]
        self._report("; ".join([problem, *problems] if problem else problems))
        found = {name: self._found[name] for name in names if name in self._found}
        new = tuple(sorted({address for addresses in found.values() for address in addresses}))
        if problems and not new:
            return  # old schedulers are better than none
        self._found = found
        if new != self._current:
            self._current = new
            _log.info("schedulers", addresses=new)
            if self._on_change is not None:
                self._on_change(new)

    async def _look_up(self, name: str) -> str:
        """Find out what *name* stands for; return what went wrong, ``""`` for nothing."""
        if name.startswith("unix:"):  # of this process; settings name no such thing
            self._found[name] = (name,)
            return ""
        host, port = split_address(name)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT):
                answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            return f"scheduler {name}: looking up the name took longer than {_LOOKUP_TIMEOUT:.0f} s"
        except (OSError, UnicodeError) as exc:
            return f"scheduler {name}: {getattr(exc, 'strerror', None) or exc}"
        self._found[name] = _addresses(answers, port)
        return ""

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            _log.warning("schedulers could not be refreshed", problem=problem, kept=self._current)
        self._problem = problem


def _all(texts: Sequence[str]) -> tuple[str, ...]:
    """What they name, with each port of a range."""
    return tuple(address for text in texts for address in spread(text))


def _addresses(answers: Sequence[tuple[Any, ...]], port: int) -> tuple[str, ...]:
    """``ip:port`` of a name's addresses: the IPv4 ones, or the IPv6 ones if it has no other."""
    for family in (socket.AF_INET, socket.AF_INET6):
        found = {answer[4][0] for answer in answers if answer[0] == family}
        if found:
            bare = (str(ipaddress.ip_address(ip.partition("%")[0])) for ip in found)
            return tuple(host_port(ip, port) for ip in bare)
    return ()
