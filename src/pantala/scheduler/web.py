"""Asking web servers that a job names: small answers, and never an address that is kept away from.

The name is resolved, the addresses are looked at, and one of those is connected to: a name server
that says something else a moment later changes nothing. Each redirect is another URL. What is sent
where is what a source of ours would send there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ada_url import URL

from pantala.errors import OriginError, SourceUnreachable
from pantala.model.urls import public_url
from pantala.sources.http_target import REDIRECTS, Target, first_target

from .guard import Guard, host_of

#: Seconds for one question, redirects and all.
_LIMIT: Final = 60.0

#: Bytes of headers, and of an answer: registries take manifests of 4 MiB.
_MAX_HEAD: Final = 64 << 10
_MAX_BODY: Final = 4 << 20

_MAX_REDIRECTS: Final = 5

_PORTS: Final = {"http:": 80, "https:": 443}

#: Sent where the caller says nothing else.
_DEFAULTS: Final = {"Accept-Encoding": "identity", "User-Agent": "pantala"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Web:
    """Asks.

    Args:
        guard: Knows where not.
        context: For TLS.
    """

    def __init__(self, guard: Guard, context: ssl.SSLContext) -> None:
        self._guard = guard
        self._context = context

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a GET, whatever its status.

        Raises:
            InvalidRequest: The URL is none of HTTP, or a header cannot be sent.
            Forbidden: The URL, or where it redirects to, leads where no job must.
            SourceUnreachable: No answer came, or not in time.
            OriginError: What came is none, or too much, or redirects in a circle.
        """
        shown = public_url(url)
        try:
            async with asyncio.timeout(_LIMIT):
                return await self._follow(first_target(url, headers, defaults=_DEFAULTS))
        except TimeoutError:
            raise SourceUnreachable(f"{shown}: no answer within {_LIMIT:g} s") from None
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise OriginError(f"{shown}: TLS: {why}") from error
        except (OSError, EOFError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise SourceUnreachable(f"{shown}: {why}") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise OriginError(f"{shown}: what it sent is no answer of HTTP") from error

    async def _follow(self, target: Target) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._ask(target)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or not location:
                return answer
            target = target.redirected(location)
        raise OriginError(f"{target.name}: more than {_MAX_REDIRECTS} redirects")

    async def _ask(self, target: Target) -> Answer:
        parsed = URL(target.url)
        reader, writer = await self._connect(parsed)
        try:
            sent = {"Host": target.host, **target.headers, "Connection": "close"}
            lines = [f"GET {parsed.pathname}{parsed.search} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in sent.items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            await writer.drain()
            return await _read(reader)
        finally:
            writer.close()

    async def _connect(self, parsed: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = host_of(parsed.href)
        port = int(parsed.port or _PORTS[parsed.protocol])
        addresses = await self._guard.addresses(host)
        tls = parsed.protocol == "https:"
        for number, address in enumerate(addresses, 1):
            try:
                return await asyncio.open_connection(
                    address,
                    port,
                    ssl=self._context if tls else None,
                    server_hostname=host if tls else None,
                    limit=_MAX_HEAD,
                )
            except ssl.SSLError:
                raise
            except OSError:
                if number == len(addresses):
                    raise
        raise OSError("its name has no address")


async def _read(reader: asyncio.StreamReader) -> Answer:
    status = 100
    headers: dict[str, str] = {}
    while 100 <= status < 200:  # of those the last one counts
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, number, *_ = f"{head[0]} ".split(" ", 2)
        if not version.startswith("HTTP/1."):
            raise ValueError(version)
        status, headers = int(number), {}
        for line in filter(None, head[1:]):
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(line)
            key = name.strip().lower()
            headers[key] = ", ".join(filter(None, (headers.get(key), value.strip())))
    return Answer(status, headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = bytearray()  # which grows in place, however small the chunks are
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            _check_size(len(parts) + size)
            parts += (await reader.readexactly(size + 2))[:size]
        return bytes(parts)
    if "content-length" in headers:
        size = int(headers["content-length"])
        _check_size(size)
        return await reader.readexactly(size)
    body = await reader.read(_MAX_BODY + 1)
    while more := await reader.read(_MAX_BODY + 1 - len(body)):
        body += more
    _check_size(len(body))
    return body


def _check_size(size: int) -> None:
    if not 0 <= size <= _MAX_BODY:
        raise OriginError(f"an answer of {size} bytes: want at most {_MAX_BODY}")
