"""How hosts, peers, tasks and pieces are named.

    host    ip-hostname            seed: ip-hostname-seed
    peer    ip-hostname-unique     seed: ip-hostname-unique-seed
    task    SHA-256, 64 hex digits, of what decides the content
    piece   task-number

Every peer computes task ids for itself, so what is hashed, and how a URL is written before it
is hashed, is part of the protocol: both follow Dragonfly's client to the byte. (Its scheduler
sorts query parameters; ids travel as the client made them.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote_plus

from ada_url import URL

from pantala.errors import InvalidRequest

from .filtered import DEFAULT_FILTERED_QUERY_PARAMS
from .task import Kind

__all__ = [
    "DEFAULT_FILTERED_QUERY_PARAMS",
    "check_task_id",
    "check_url",
    "credentials_id",
    "host_id",
    "normalise_url",
    "peer_id",
    "persistent_cache_task_id",
    "persistent_task_id",
    "piece_id",
    "task_id",
]

_TASK_ID: Final = re.compile(r"[0-9a-f]{64}")
_NO_HOST: Final = re.compile(r"\s*https?:/*(/{3}|$|[?#])", re.IGNORECASE)


def host_id(ip: str, hostname: str, *, seed: bool) -> str:
    """A host's id. An IPv6 address stands without brackets."""
    return _with_seed(f"{ip}-{hostname}", seed=seed)


def peer_id(ip: str, hostname: str, unique: str, *, seed: bool) -> str:
    """A peer's id.

    Args:
        ip: The host's, as in :func:`host_id`.
        hostname: Likewise.
        unique: Told apart by this: a fresh random UUID for each download.
        seed: The host is a seed.
    """
    return _with_seed(f"{ip}-{hostname}-{unique}", seed=seed)


def _with_seed(name: str, *, seed: bool) -> str:
    return f"{name}-seed" if seed else name


def piece_id(task_id: str, number: int) -> str:
    """A piece's id."""
    return f"{task_id}-{number}"


def check_task_id(text: str) -> str:
    """*text*, if it is a task id. Ids become names and keys: check them where they enter.

    Raises:
        InvalidRequest: Not exactly 64 lower-case hexadecimal digits.
    """
    if _TASK_ID.fullmatch(text) is None:
        raise InvalidRequest(f"task id {text[:100]!r}: want 64 lower-case hexadecimal digits")
    return text


def task_id(
    kind: Kind,
    url: str,
    *,
    tag: str | None = None,
    application: str | None = None,
    piece_length: int | None = None,
    filtered_query_params: Collection[str] = (),
    revision: str | None = None,
    content: str | None = None,
) -> str:
    """The id of a task that comes to be by download.

    Digest, range, headers and priority are no part of a content's identity.

    Args:
        kind: Part of the identity, unless *content* is given.
        url: Where the content comes from, see :func:`normalise_url`.
        tag: Tells apart what the URL does not; ``""`` and None are the same.
        application: Likewise.
        piece_length: What the caller asked for, bytes; never a computed one.
        filtered_query_params: Names of query parameters to leave out.
        revision: Of a model hub's URL.
        content: Decides alone, if given. Tasks of two kinds then have the same id.

    Raises:
        InvalidRequest: *url* cannot be parsed.
    """
    if content is not None:
        return _hash(content)
    length = "" if piece_length is None else str(piece_length)
    normal = normalise_url(url, filtered_query_params)
    return _hash(normal, tag or "", application or "", revision or "", length, kind.name)


def persistent_task_id(url: str, region: str, endpoint: str) -> str:
    """The id of a persistent task, whose bytes lie in an object store.

    Args:
        url: The object's key or URL, as it is: not normalised.
        region: Of the object store.
        endpoint: Of the object store.
    """
    return _hash(url, region, endpoint, Kind.PERSISTENT.name)


def persistent_cache_task_id(
    chunks: Iterable[bytes],
    tag: str | None = None,
    application: str | None = None,
    piece_length: int | None = None,
) -> str:
    """The id of a persistent cache task, which comes to be by import of a file.

    Args:
        chunks: The file's bytes, in order.
        tag: As for :func:`task_id`, like the rest.
        application: Likewise.
        piece_length: Likewise.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    length = "" if piece_length is None else str(piece_length)
    for part in (tag or "", application or "", length, Kind.PERSISTENT_CACHE.name):
        digest.update(part.encode())
    return digest.hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def check_url(url: str) -> str:
    """*url*, if it can be parsed: check it where it enters, whoever brings it.

    Raises:
        InvalidRequest: It cannot. The message does not repeat it, as it may hold a password.
    """
    _parsed(url)
    return url


def _parsed(url: str) -> URL:
    try:
        # The rules take the next part for the host where there is none: nobody means that.
        if _NO_HOST.match(url):
            raise ValueError(url)  # noqa: TRY301  answered like what cannot be parsed
        return URL(url)
    except ValueError:
        raise InvalidRequest(
            "the URL cannot be parsed: want scheme://host/path, such as https://example.com/file"
        ) from None


def credentials_id(url: str, filtered: Collection[str], headers: Mapping[str, str]) -> str:
    """A name for what one caller asks an origin with and others may not; ``""``: with nothing.

    That is user and password, the query parameters that are no part of the content's identity, and
    headers, but for a range. The name does not give them away.

    Raises:
        InvalidRequest: *url* cannot be parsed.
    """
    parsed = _parsed(url)
    query = parse_qsl(parsed.search.removeprefix("?"), keep_blank_values=True, errors="replace")
    own = [(key, value) for key, value in query if key in filtered]
    sent = sorted((k.lower(), v) for k, v in headers.items() if k.lower() != "range")
    if not (parsed.username or parsed.password or own or sent):
        return ""
    return _hash(repr((parsed.username, parsed.password, own, sent)))


def normalise_url(url: str, filtered: Collection[str] = ()) -> str:
    """*url* as it is hashed: parsed by the WHATWG rules and written again.

    Host and scheme in lower case, no default port, no dot segments; the query in its original
    order but form-encoded anew, without the parameters named in *filtered*; no slash at the
    end if that is the whole path.

    Raises:
        InvalidRequest: It cannot be parsed. The message does not repeat the URL, which may
            hold a password.

    >>> normalise_url("HTTPS://Example.COM:443/")
    'https://example.com'
    >>> normalise_url("https://example.com/f?q=a%20b~&ns=x&flag", {"ns"})
    'https://example.com/f?q=a+b%7E&flag='
    """
    parsed = _parsed(url)
    parsed.search = _filter_query(parsed.search, filtered)
    normal: str = parsed.href
    return normal.rstrip("/") if parsed.pathname == "/" else normal


def _filter_query(search: str, filtered: Collection[str]) -> str:
    """A URL's ``?query`` without the parameters in *filtered*; ``""`` when none remain."""
    pairs = parse_qsl(search.removeprefix("?"), keep_blank_values=True, errors="replace")
    kept = [f"{_form(key)}={_form(value)}" for key, value in pairs if key not in filtered]
    return "?" + "&".join(kept) if kept else ""


def _form(text: str) -> str:
    """*text* as ``application/x-www-form-urlencoded``, where Python spares ``~`` but not ``*``."""
    return quote_plus(text, safe="*").replace("~", "%7E")
