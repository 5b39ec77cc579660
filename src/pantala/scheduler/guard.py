"""Addresses that jobs keep away from.

A job names URLs that machines of the cluster will ask. Who may name them need not be one who may
reach all that these machines can: above all not the service at 169.254.169.254 by which clouds
hand out credentials. So names are resolved here, and what they stand for is looked at; what the
scheduler opens itself is opened at the address that was looked at, and so is each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ada_url import URL

from pantala.errors import Forbidden
from pantala.model.ids import check_url

from .turns import in_turns

#: Seconds for a name server, and names that are looked up at once. A look-up cannot be given up, so
#: they have threads of their own, that none of them holds up what has nothing to do with jobs.
_RESOLVE: Final = 5.0
_AT_ONCE: Final = 8

#: IPv6 addresses that stand for one of IPv4, in their last 32 bits.
_EMBEDDED: Final = tuple(map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96")))

#: What says in a request that opens a special origin where that is.
_ENDPOINTS: Final = ("endpoint", "base_url")


class Guard:
    """Knows which addresses no job may name.

    Args:
        networks: That they are in.
        setting: That says so, for messages.
    """

    def __init__(self, networks: Iterable[str], setting: str) -> None:
        self._networks = tuple(map(ipaddress.ip_network, networks))
        self._setting = setting
        self._threads = ThreadPoolExecutor(_AT_ONCE, "look up")

    async def check(
        self, urls: Iterable[str], access: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Raise Forbidden if one of *urls*, or of the origins in *access*, must not be named.

        A name that nobody here can resolve passes: the hosts may know it. They ask a name server
        once more, which may say something else by then.

        Raises:
            InvalidRequest: A URL makes no sense.
            Forbidden: One leads to an address that is kept away from.
        """
        told = [
            str(each[key])
            for each in (access or {}).values()
            for key in _ENDPOINTS
            if each.get(key)
        ]
        hosts = {host for host in map(host_of, (*urls, *told)) if host}
        await in_turns(sorted(hosts), _AT_ONCE, self._check_host)

    async def _check_host(self, host: str) -> None:
        with suppress(OSError, UnicodeError):
            await self.addresses(host)

    async def addresses(self, host: str) -> list[str]:
        """All that *host* stands for.

        Raises:
            Forbidden: One of them is kept away from.
            OSError: It stands for none, or that could not be found out in time.
        """
        look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(_RESOLVE):
                found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except TimeoutError:  # callers have limits of their own, and would take it for theirs
            raise OSError(f"its name was not found out within {_RESOLVE:g} s") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        self._check(host, addresses)
        return addresses

    def _check(self, host: str, addresses: Sequence[str]) -> None:
        for text in addresses:
            for address in _meant(text):
                if any(address in network for network in self._networks):
                    shown = host if host == str(address) else f"{host} ({address})"
                    raise Forbidden(f"jobs keep away from {shown}: see {self._setting}")


def host_of(url: str) -> str:
    """The host that *url* names, as a name server or a socket wants it; ``""`` if it names none.

    Raises:
        InvalidRequest: It cannot be parsed.
    """
    if "://" not in url:  # an endpoint may be given without
        url = f"http://{url}"
    check_url(url)
    name: str = URL(url).hostname
    return name.strip("[]")


def _meant(text: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """An address, and the one of IPv4 that it stands for."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if any(address in network for network in _EMBEDDED):
        return [address, ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address]
