"""Resolving images: which blobs an image is, and with what a registry lets somebody have them.

Credentials go to the registry, and to where it sends for tokens; what comes of them goes to the
hosts, in the header Authorization. Neither is part of a task's identity, or of a line of the log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from pantala.errors import InvalidRequest, OriginError
from pantala.model.images import (
    ACCEPT,
    Challenge,
    Reference,
    blobs,
    choose,
    is_index,
    local_platform,
    parse_challenge,
    parse_platform,
    read_manifest,
)
from pantala.model.urls import public_url

from .guard import Guard
from .orders import ImageAccess
from .web import Answer, Web

#: An index may list indexes.
_MAX_DEPTH: Final = 4

_AUTHORIZATION: Final = "Authorization"


@dataclass(frozen=True, slots=True)
class Image:
    """What is to be fetched.

    Attributes:
        urls: Of its blobs.
        headers: That they are asked for with, beside the caller's own.
    """

    urls: tuple[str, ...]
    headers: Mapping[str, str]


async def resolve(
    guard: Guard,
    reference: Reference,
    access: ImageAccess,
    headers: Mapping[str, str],
    chain: Collection[bytes] = (),
) -> Image:
    """The blobs of an image.

    Args:
        guard: Knows where not to ask.
        reference: Which.
        access: With what.
        headers: The caller's own. An Authorization among them is used as it is.
        chain: Certificates, DER, that vouch for the registry beside those that the machine trusts.

    Raises:
        InvalidRequest: There is no such image, none for that platform, or it is refused.
        Forbidden: The registry, or where it sends us to, is one to keep away from.
        OriginError: The registry could not be asked, or makes no sense.
    """
    wanted = (
        parse_platform(access.platform)
        if access.platform
        else local_platform(platform.system(), platform.machine())
    )
    visit = _Visit(Web(guard, _context(access, chain)), reference, access, headers)
    manifest = await visit.manifest(reference)
    for _ in range(_MAX_DEPTH):
        if not is_index(manifest):
            urls = tuple(map(reference.blob_url, blobs(manifest)))
            return Image(urls, visit.token)
        digest = choose(manifest, wanted)
        below = Reference(reference.scheme, reference.registry, reference.repository, digest)
        manifest = await visit.manifest(below)
    raise InvalidRequest(f"{reference.manifest_url}: an index of indexes of indexes, and so on")


class _Visit:
    """Some questions to one registry."""

    def __init__(
        self, web: Web, reference: Reference, access: ImageAccess, headers: Mapping[str, str]
    ) -> None:
        self._web = web
        self._reference = reference
        self._access = access
        self._headers = headers
        #: What it wants to see, once we know.
        self.token: dict[str, str] = {}

    async def manifest(self, reference: Reference) -> Mapping[str, Any]:
        """A manifest, which is what its digest says if that is its name."""
        url = reference.manifest_url
        answer = await self._get(url)
        given = any(name.lower() == "authorization" for name in self._headers)
        if answer.status == 401 and not given and not self.token:
            challenge = parse_challenge(answer.headers.get("www-authenticate", ""))
            if challenge is not None:
                self.token = {_AUTHORIZATION: await self._authorization(challenge)}
                answer = await self._get(url)
        _check(answer, url)
        if reference.digest is not None:
            _check_digest(answer.body, reference.digest)
        return read_manifest(answer.body)

    async def _get(self, url: str) -> Answer:
        own = {name: value for name, value in self._headers.items() if name.lower() != "accept"}
        return await self._web.get(url, {**own, **self.token, "Accept": ACCEPT})

    async def _authorization(self, challenge: Challenge) -> str:
        """What the registry wants to see in the header of that name."""
        basic = self._basic()
        if challenge.scheme == "basic":
            if basic is None:
                raise InvalidRequest(
                    f"registry {self._reference.registry}: it wants a user name and a password"
                )
            return basic
        if basic is not None and self._reference.scheme == "https" != challenge.realm[:5]:
            raise InvalidRequest(
                f"registry {self._reference.registry}: it would have a password sent without TLS"
            )
        asked = {
            "service": challenge.service,
            "scope": challenge.scope or f"repository:{self._reference.repository}:pull",
        }
        query = urlencode({name: value for name, value in asked.items() if value})
        url = f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{query}"
        answer = await self._web.get(url, {} if basic is None else {_AUTHORIZATION: basic})
        realm = public_url(challenge.realm)
        _check(answer, realm)
        try:
            told = json.loads(answer.body)
            token = told.get("token") or told.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise OriginError(f"{realm}: it gives no token")
        return f"Bearer {token}"

    def _basic(self) -> str | None:
        if self._access.username is None:
            return None
        pair = f"{self._access.username}:{self._access.password or ''}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _check(answer: Answer, url: str) -> None:
    """Whether it is what was asked for. What else it says is not repeated."""
    if answer.status == 200:
        return
    if 400 <= answer.status < 500 and answer.status not in (408, 429):
        raise InvalidRequest(f"{url}: the registry answers {answer.status}")
    raise OriginError(f"{url}: the registry answers {answer.status}", status=answer.status)


def _check_digest(data: bytes, digest: str) -> None:
    algorithm, _, encoded = digest.partition(":")
    if algorithm not in ("sha256", "sha512"):
        raise InvalidRequest(f"digest {digest[:100]}: want sha256 or sha512")
    if hashlib.new(algorithm, data).hexdigest() != encoded:
        raise InvalidRequest(f"the registry sent something else for {digest[:100]}")


def _context(access: ImageAccess, chain: Collection[bytes]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for certificate in chain:
        context.load_verify_locations(cadata=certificate)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
