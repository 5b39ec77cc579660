"""What goes into a request to an HTTP origin, and where a redirect leads. No I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import ada_url

from pantala.errors import InvalidRequest, OriginError
from pantala.model.headers import NOT_THE_CALLERS, negotiates

#: Redirects that we follow; a GET stays a GET with all of them.
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

# Go along to another origin, besides those that negotiate a representation. Any other header may
# be a credential, and is for the server that it was meant for.
_FOLLOW: Final = frozenset({"cache-control", "pragma", "user-agent"})

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Target:
    """One hop: a URL without credentials in it, and the headers to send there.

    Attributes:
        name: Scheme, host and path, for messages; queries may be signed, so they stay out.
    """

    url: str
    origin: str
    name: str
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        """Host, and the port if it is not the scheme's."""
        return self.origin.partition("://")[2]

    def redirected(self, location: str) -> Target:
        """Where *location* leads from here.

        When scheme, host or port differ, all headers stay behind that may hold a credential.

        Raises:
            OriginError: It leads nowhere, or away from HTTP.
        """
        try:
            url, authorization = _parse(_utf8(location), base=self.url)
        except InvalidRequest as exc:
            raise OriginError(f"{self.name} redirects to what is no http or https URL") from exc
        headers = dict(self.headers)
        if url.origin != self.origin:
            headers = {k: v for k, v in headers.items() if _may_follow(k)}
        if authorization:
            headers = _without(headers, "authorization") | {"Authorization": authorization}
        return _target(url, headers)


def first_target(url: str, headers: Mapping[str, str], *, defaults: Mapping[str, str]) -> Target:
    """The first hop of a request.

    Credentials in the URL become an ``Authorization`` header, unless the caller gave one.

    Args:
        url: As the caller gave it.
        headers: The caller's. Those that belong to one connection, and ``Range``, are dropped.
        defaults: Headers to add where the caller gave none of that name.

    Raises:
        InvalidRequest: The URL is none, or a header cannot be sent.
    """
    parsed, authorization = _parse(url)
    sent = _sendable(headers)
    own = {"Authorization": authorization} if authorization else {}
    for name, value in (*own.items(), *_sendable(defaults).items()):
        if name.lower() not in {known.lower() for known in sent}:
            sent[name] = value
    return _target(parsed, sent)


def _parse(url: str, base: str | None = None) -> tuple[ada_url.URL, str | None]:
    """The URL without credentials and fragment, and the credentials as a header's value."""
    if _CONTROL.search(url):
        raise InvalidRequest("a URL must not hold control characters")
    try:
        parsed = ada_url.URL(url, base=base)
    except ValueError:
        parsed = None
    if parsed is None or parsed.protocol not in {"http:", "https:"}:
        # The URL is left out: it may hold a password, which would be printed.
        raise InvalidRequest("the URL of an HTTP origin is malformed; want http://host/path")
    authorization = None
    if parsed.username or parsed.password:
        pair = unquote_to_bytes(parsed.username) + b":" + unquote_to_bytes(parsed.password)
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    parsed.username = parsed.password = parsed.hash = ""
    return parsed, authorization


def _utf8(location: str) -> str:
    """*location* as it was meant: HTTP libraries read headers as Latin-1, servers write UTF-8."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _may_follow(name: str) -> bool:
    return name.lower() in _FOLLOW or negotiates(name)


def _target(url: ada_url.URL, headers: Mapping[str, str]) -> Target:
    return Target(url.href, url.origin, f"{url.origin}{url.pathname}", headers)


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers* less those that are not ours to forward."""
    dropped = set(NOT_THE_CALLERS)
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            # Without the value: it may be a secret.
            raise InvalidRequest(f"request header {name[:100]!r} cannot be sent in HTTP")
        if name.lower() == "connection":
            dropped.update(token.strip().lower() for token in value.split(","))
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() != name}
