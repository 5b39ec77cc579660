"""Dragonfly's manager as the one who says which schedulers there are, and what is blocked."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any, Final, NamedTuple

import structlog

from pantala import BUILD_VERSION
from pantala.core.blocking import BlockLists, read
from pantala.daemon.config import DaemonConfig
from pantala.errors import RemoteProtocolError, Unavailable
from pantala.model.addresses import host_port
from pantala.pb import manager_pb2
from pantala.rpc.manager import MOST, Manager, serving
from pantala.storage.answers import LastAnswer

_log = structlog.stdlib.get_logger(__name__)

#: The file in ``storage.dir`` that has the last good answer.
_FILE: Final = "manager.json"

#: What a manager calls a scheduler that keeps telling it that it is alive.
_ACTIVE: Final = "active"


class Found(NamedTuple):
    """What a manager has answered.

    Attributes:
        schedulers: ``ip:port`` of each, in the manager's order.
        lists: What is blocked; None: it cannot be read, and what was known holds.
    """

    schedulers: tuple[str, ...]
    lists: BlockLists | None


class ManagerSource:
    """Asks the manager at *address*, and keeps its last good answer in ``storage.dir``.

    Args:
        address: ``host:port``.
        config: Who asks.
    """

    def __init__(self, address: str, config: DaemonConfig) -> None:
        self.name = f"manager {address}"
        self._manager = Manager(address)
        seed = config.seed_peer.enable
        host = config.host
        source = manager_pb2.SEED_PEER_SOURCE if seed else manager_pb2.PEER_SOURCE
        self._question = manager_pb2.ListSchedulersRequest(
            source_type=source,
            hostname=host.hostname,
            ip=host.ip,
            idc=host.idc,
            location=host.location,
            version=BUILD_VERSION,
            scheduler_cluster_id=host.scheduler_cluster_id,
        )
        #: The part of a cluster's configuration that is for hosts like this one.
        self.part = "seed_client_config" if seed else "client_config"
        whose: dict[str, str | int] = {
            "manager": address,
            "scheduler_cluster_id": host.scheduler_cluster_id,
            "part": self.part,
        }
        self._last = LastAnswer(config.storage.dir / _FILE, whose)
        self._schedulers: tuple[str, ...] = ()
        self._config: object = None
        #: What it said last of what is blocked, and what that means.
        self._text: bytes | None = None
        self._lists: BlockLists | None = None
        #: What was wrong with the configuration, so that it is told of once.
        self._problem = ""

    def remembered(self) -> Found | None:
        """What it answered last, to an earlier life of this daemon perhaps. It may block."""
        kept = self._last.load()
        if kept is None:
            return None
        try:
            addresses = tuple(str(address) for address in kept["schedulers"])
            self._config = kept.get("config")
            lists = read(self._config)
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("last answer not used", of=self.name, why=f"damaged: {error}")
            return None
        self._schedulers = addresses
        return Found(addresses, lists)

    async def ask(self) -> Found:
        """Ask it.

        Raises:
            DragonflyError: It does not answer, or names no scheduler that serves.
        """
        answer = await self._manager.ask("ListSchedulers", self._question)
        count = len(answer.schedulers)
        if count > MOST:
            raise RemoteProtocolError(f"{self.name} names {count} schedulers, at most {MOST}")
        listed = {at: each for each in answer.schedulers if (at := _address(each))}
        if not listed:
            raise Unavailable(f"{self.name} names no scheduler for this host")
        addresses = list(listed)
        healthy = dict(zip(addresses, await serving(addresses), strict=True))
        first = next((at for at in addresses if healthy[at]), None)
        if first is None:
            raise Unavailable(f"of {len(listed)} schedulers that {self.name} names, none serves")
        cluster = listed[first].scheduler_cluster_id
        self._schedulers = tuple(
            at
            for at in addresses
            if listed[at].scheduler_cluster_id == cluster
            and (healthy[at] or self._is_about(at, listed[at].state))
        )
        text = bytes(getattr(listed[first].scheduler_cluster, self.part))
        if text != self._text:  # patterns may take a second, of which nobody shall notice anything
            self._text, self._lists = text, await asyncio.to_thread(self._read_lists, text)
        return Found(self._schedulers, self._lists)

    def keep(self) -> None:
        """Write down what it answered. It may block."""
        self._last.save({"schedulers": list(self._schedulers), "config": self._config})

    def _is_about(self, address: str, state: str) -> bool:
        """Whether one that is known is only away for a moment, as when it is started anew.

        Who answers is watched anyway; one that is taken from the list is not missed when it is
        back, until the next refresh.
        """
        return address in self._schedulers and state == _ACTIVE

    def _read_lists(self, text: bytes) -> BlockLists | None:
        """What is blocked for this host; None if that makes no sense."""
        try:
            config = _json(text)
            lists = read(config)
        except (ValueError, RecursionError) as error:
            if str(error) != self._problem:
                _log.warning(
                    "block lists not read: what was known holds",
                    source=self.name,
                    part=self.part,
                    why=str(error)[:300],
                )
            self._problem = str(error)
            return None
        self._problem = ""
        self._config = config
        return lists


def _json(text: bytes) -> Any:
    return json.loads(text) if text.strip() else None


def _address(scheduler: Any) -> str:
    """``ip:port``; ``""``: it has none that makes sense, and is left out."""
    try:
        ip = str(ipaddress.ip_address(scheduler.ip.strip("[]")))
    except ValueError:
        ip = ""
    if ip and 0 < scheduler.port < 65536:
        return host_port(ip, scheduler.port)
    _log.debug("a scheduler without an address", hostname=scheduler.hostname, ip=scheduler.ip)
    return ""
