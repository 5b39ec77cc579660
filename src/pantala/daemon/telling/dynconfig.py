"""Which schedulers there are: from a list, or from a file that is read again and again.

The file is Dragonfly's local dynconfig: ``scheduler.addrs``, a list, wins over
``scheduler.addr``. Names are looked up anew at each refresh, so a scheduler may move.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import Field

from pantala.background import Loops
from pantala.daemon.config import DaemonConfig
from pantala.errors import ConfigError
from pantala.model.addresses import host_port
from pantala.settings import (
    Address,
    Catalogue,
    Root,
    Settings,
    if_present,
    read_settings,
    split_address,
)

#: Where the file lies unless ``dynconfig.path`` says otherwise. It need not exist.
DEFAULT_PATH: Final = Path("/etc/dragonfly/dynconfig.yaml")

#: Seconds for looking up one name.
_LOOKUP_TIMEOUT: Final = 10.0
#: Seconds until the next try while no scheduler is known at all, or less if so configured.
_EAGER_INTERVAL: Final = 5.0

_log = structlog.stdlib.get_logger(__name__)


class _SchedulerAddresses(Settings):
    addr: Address | None = None
    addrs: tuple[Address, ...] = ()


class _File(Root):
    scheduler: _SchedulerAddresses = Field(default_factory=_SchedulerAddresses)


_CATALOGUE: Final = Catalogue(_File, ignored=frozenset({"clientConfig", "seedClientConfig"}))


class Dynconfig:
    """The schedulers of this moment.

    Args:
        config: Of this daemon. Its ``scheduler.addrs`` win over the file.
        addrs: ``host:port`` of schedulers, or ``unix:path``, instead of what *config* says.
        on_change: Called with the new list whenever it changes, the first one included.
    """

    def __init__(
        self,
        config: DaemonConfig,
        *,
        addrs: Sequence[str] = (),
        on_change: Callable[[tuple[str, ...]], None] | None = None,
    ) -> None:
        self._fixed = tuple(addrs) or config.scheduler.addrs
        self._path = config.dynconfig.path
        self._interval = config.dynconfig.refresh_interval
        self._on_change = on_change
        #: What was wrong at the last refresh, so that it is logged once.
        self._problem = ""
        #: What each name stood for when it was last known.
        self._found: dict[str, tuple[str, ...]] = {}
        self._current: tuple[str, ...] = ()

    def current(self) -> tuple[str, ...]:
        """``ip:port`` of all schedulers, IPv6 in brackets, or ``unix:path``.

        Sorted, each once. May be empty.
        """
        return self._current

    async def start(self) -> None:
        """Read for the first time. A name that is not known yet is no error: it may come.

        Raises:
            ConfigError: The file is malformed, or missing where it was asked for.
        """
        names, file = await asyncio.to_thread(self._names)
        if file.ignored:
            _log.warning("dynconfig keys without effect", keys=file.ignored)
        if file.unknown:
            _log.warning("unknown dynconfig keys", keys=file.unknown)
        await self._take(names)
        if not names:
            _log.warning(
                "no scheduler: every download goes to the origin",
                todo="name one by scheduler.addrs, --scheduler or the dynconfig file",
            )

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
            names, _ = await asyncio.to_thread(self._names)
        except ConfigError as error:
            self._report(str(error))
        else:
            await self._take(names)

    def _names(self) -> tuple[tuple[str, ...], _File]:
        """``host:port`` of all schedulers as they are written, and the file; empty if unread."""
        if self._fixed:
            return self._fixed, _File()
        if self._path is None:
            self._path = if_present(DEFAULT_PATH)
        if self._path is None:
            return (), _File()
        # From now on the file is expected: that it vanishes is a failure like any other.
        file = read_settings(_CATALOGUE, self._path)
        scheduler = file.scheduler
        return scheduler.addrs or ((scheduler.addr,) if scheduler.addr else ()), file

    async def _take(self, names: tuple[str, ...]) -> None:
        async with asyncio.TaskGroup() as group:
            lookups = [group.create_task(self._look_up(name)) for name in names]
        problems = [words for lookup in lookups if (words := lookup.result())]
        self._report("; ".join(problems))
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


def _addresses(answers: Sequence[tuple[Any, ...]], port: int) -> tuple[str, ...]:
    """``ip:port`` of a name's addresses: the IPv4 ones, or the IPv6 ones if it has no other."""
    for family in (socket.AF_INET, socket.AF_INET6):
        found = {answer[4][0] for answer in answers if answer[0] == family}
        if found:
            bare = (str(ipaddress.ip_address(ip.partition("%")[0])) for ip in found)
            return tuple(host_port(ip, port) for ip in bare)
    return ()
