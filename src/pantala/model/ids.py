"""How hosts, peers, tasks and pieces are named.

    host    ip-hostname            seed: ip-hostname-seed
    peer    ip-hostname-unique     seed: ip-hostname-unique-seed
    task    SHA-256, 64 hex digits, of what decides the content
    piece   task-number

Every peer computes task ids for itself, so what is hashed, and how a URL is written before it
is hashed, is part of the protocol. For the kinds that stock peers fetch, both follow Dragonfly's
client to the byte, who writes one field after the other, so that two tasks may have one id. For
CACHE the id is ours to define, and has the fields framed (docs/adr/0009-identity.md). (Dragonfly's
scheduler sorts query parameters; ids travel as the client made them.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote_plus, unquote_plus

from ada_url import URL

from pantala.errors import InvalidRequest
from pantala.model.urls import fault_of

from .filtered import DEFAULT_FILTERED_QUERY_PARAMS
from .headers import representation
from .notation import check_task_id, parse_digest
from .task import DownloadRequest, Kind

__all__ = [
    "DEFAULT_FILTERED_QUERY_PARAMS",
    "Identity",
    "check_task_id",
    "check_url",
    "credentials_id",
    "host_id",
    "identify",
    "identity_of",
    "normalise_url",
    "peer_id",
    "persistent_cache_task_id",
    "persistent_task_id",
    "piece_id",
    "task_id",
]

#: What our fingerprints begin with, lest they be those of something else that is hashed.
_DOMAIN: Final = "pantala identity 1"

_BLOB: Final = re.compile(r"://.+/v2/.+/blobs/([^?]+)")
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


class Identity(NamedTuple):
    """What makes a task this one and no other.

    Attributes:
        task_id: Its name, as it travels. Of the contract's kinds, others may have the same.
        fingerprint: SHA-256 in hex of all that makes it; no other identity has the same.
    """

    task_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Fields:
    """What an identity is made of; the names are those of :func:`identify`."""

    kind: Kind
    url: str
    tag: str = ""
    application: str = ""
    revision: str = ""
    piece_length: str = ""
    filtered: Collection[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def identify(
    kind: Kind,
    url: str,
    *,
    tag: str | None = None,
    application: str | None = None,
    piece_length: int | None = None,
    filtered_query_params: Collection[str] = (),
    revision: str | None = None,
    content: str | None = None,
    blob_digest: bool = False,
    request_header: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a task that comes to be by download.

    Digest, range, credentials and priority are no part of it.

    Args:
        kind: Part of the identity.
        url: Where the content comes from.
        tag: Tells apart what the URL does not; ``""`` and None are the same.
        application: Likewise.
        piece_length: What the caller asked for, bytes; never a computed one.
        filtered_query_params: Names of query parameters to leave out.
        revision: Of a model hub's URL.
        content: Stands for all of the above but *kind*, if given.
        blob_digest: Where the URL is that of an image's blob, the digest in it stands for all.
        request_header: The caller's. What negotiates a representation is part of the identity,
            though not of the contract's ids, see :func:`~pantala.model.headers.representation`.

    Raises:
        InvalidRequest: *url* cannot be parsed, or its digest makes no id, or a text is none.
    """
    given = _Fields(
        kind,
        url,
        tag or "",
        application or "",
        revision or "",
        "" if piece_length is None else str(piece_length),
        filtered_query_params,
        request_header or {},
    )
    try:
        if content is not None:
            return _BY_CONTENT.get(kind, _contract_by_content)(given, content)
        if blob_digest and (blob := _BLOB.search(url)):
            return _contract_by_blob(given, blob[1])
        return _BY_URL.get(kind, _contract_by_url)(given)
    except UnicodeEncodeError:
        raise InvalidRequest("URL, tag, application and the like must be UTF-8") from None


def identity_of(request: DownloadRequest) -> Identity:
    """The identity of the task that *request* is for. Raises InvalidRequest, see above."""
    return identify(
        request.kind,
        request.url,
        tag=request.tag,
        application=request.application,
        piece_length=request.piece_length,
        filtered_query_params=request.filtered_query_params,
        revision=request.revision,
        content=request.content_for_calculating_task_id,
        blob_digest=request.enable_task_id_based_blob_digest,
        request_header=request.request_header,
    )


def task_id(kind: Kind, url: str, **fields: Any) -> str:
    """The id alone; the arguments are those of :func:`identify`."""
    return identify(kind, url, **fields).task_id


def _contract_by_url(given: _Fields) -> Identity:
    parts = (
        normalise_url(given.url, given.filtered),
        given.tag,
        given.application,
        given.revision,
        given.piece_length,
        given.kind.name,
    )
    return Identity(_hash(*parts), _fingerprint("contract url", *parts, headers=given.headers))


def _contract_by_content(given: _Fields, content: str) -> Identity:
    fingerprint = _fingerprint("contract content", given.kind.name, content, headers=given.headers)
    return Identity(_hash(content), fingerprint)


def _contract_by_blob(given: _Fields, text: str) -> Identity:
    digest = parse_digest(text)
    if digest.algorithm != "sha256":
        raise InvalidRequest(
            f"blob {text[:100]}: only a sha256 digest makes a task's id, which has 64 digits"
        )
    fingerprint = _fingerprint("contract blob", given.kind.name, text, headers=given.headers)
    return Identity(digest.encoded, fingerprint)


def _ours_by_url(given: _Fields) -> Identity:
    url, left_out = _exact_url(given.url, given.filtered)
    fingerprint = _fingerprint(
        "url",
        given.kind.name,
        url,
        given.tag,
        given.application,
        given.revision,
        given.piece_length,
        _framed(*left_out),
        headers=given.headers,
    )
    return Identity(fingerprint, fingerprint)


def _ours_by_content(given: _Fields, content: str) -> Identity:
    fingerprint = _fingerprint("content", given.kind.name, content, headers=given.headers)
    return Identity(fingerprint, fingerprint)


#: Kinds whose ids are ours to define.
_BY_URL: Final[Mapping[Kind, Callable[[_Fields], Identity]]] = {Kind.CACHE: _ours_by_url}
_BY_CONTENT: Final[Mapping[Kind, Callable[[_Fields, str], Identity]]] = {
    Kind.CACHE: _ours_by_content
}


def _fingerprint(domain: str, *fields: str | bytes, headers: Mapping[str, str]) -> str:
    """SHA-256 of *fields*, and of what *headers* negotiate.

    Args:
        domain: Where the identity comes from: the same fields from elsewhere mean another one.
        fields: As many in each identity of a domain.
        headers: The caller's.
    """
    negotiated = [text for pair in representation(headers) for text in pair]
    framed = _framed(_DOMAIN, domain, *fields, _framed(*negotiated))
    return hashlib.sha256(framed).hexdigest()


def _framed(*fields: str | bytes) -> bytes:
    """*fields*, each after its length in bytes as eight bytes, the highest first."""
    data = [text.encode() if isinstance(text, str) else text for text in fields]
    return b"".join(len(each).to_bytes(8, "big") + each for each in data)


def _exact_url(url: str, filtered: Collection[str]) -> tuple[str, list[str]]:
    """*url* as it is asked for, less what *filtered* names, and which names that were.

    Unlike :func:`normalise_url` it makes nothing equal that an origin could tell apart. The names
    that are left out by default are not returned: those who have them in their URL want what
    those want who have not.
    """
    parsed = _parsed(url)
    parsed.hash = ""  # which no origin gets to see
    kept, left_out = [], set()
    for pair in parsed.search.removeprefix("?").split("&"):
        name = unquote_plus(pair.partition("=")[0], errors="replace")
        if name in filtered and pair:
            left_out.add(name)
        else:
            kept.append(pair)
    parsed.search = "&".join(kept)
    return parsed.href, sorted(left_out.difference(DEFAULT_FILTERED_QUERY_PARAMS))


def persistent_task_id(url: str, region: str, endpoint: str) -> str:
    """The id of a persistent task, whose bytes lie in an object store.

    Args:
        url: The object's key or URL, as it is: not normalised.
        region: Of the object store.
        endpoint: Of the object store.
    """
    return _hash(url, region, endpoint, Kind.PERSISTENT.name)


def persistent_cache_task_id(
    chunks: Iterable[bytes | memoryview],
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
        fault = fault_of(url)
        raise InvalidRequest(
            f"the URL cannot be parsed{f': {fault}' if fault else ''}; "
            "want scheme://host/path, such as https://example.com/file"
        ) from None


def credentials_id(
    url: str,
    filtered: Collection[str],
    headers: Mapping[str, str],
    access: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """A name for what one caller asks an origin with and others may not; ``""``: with nothing.

    That is user and password, the query parameters that are no part of the content's identity,
    headers, but for a range, and what special origins want. The name does not give them away.

    Raises:
        InvalidRequest: *url* cannot be parsed.
    """
    parsed = _parsed(url)
    query = parse_qsl(parsed.search.removeprefix("?"), keep_blank_values=True, errors="replace")
    own = [(key, value) for key, value in query if key in filtered]
    sent = sorted((k.lower(), v) for k, v in headers.items() if k.lower() != "range")
    told = [(name, sorted(values.items())) for name, values in sorted((access or {}).items())]
    if not (parsed.username or parsed.password or own or sent or told):
        return ""
    return _hash(repr((parsed.username, parsed.password, own, sent, told)))


def normalise_url(url: str, filtered: Collection[str] = ()) -> str:
    """*url* as the contract's ids have it: parsed by the WHATWG rules and written again.

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
