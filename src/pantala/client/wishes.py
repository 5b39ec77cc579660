"""What a program wants of a daemon, and the request that says so (docs/handoff.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, Final, TypedDict

from pantala.errors import InvalidRequest
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.model.urls import fault_of_given

#: Seconds that a download may take if nobody says otherwise, as with ``dfget``.
DEFAULT_TIMEOUT: Final = 2 * 3600.0

#: The longest one: what systems can wait for at once, and more than anybody does.
_MAX_TIMEOUT: Final = 1e9

#: Bytes of the content: from the first to before the second. A second of None is the end; a
#: negative first, with None, is so many bytes before it.
Range = tuple[int, int | None]


class Identity(TypedDict, total=False):
    """What makes content this content, and not other content of the same URL.

    Attributes:
        kind: ``"CACHE"``, in the memory of the daemons, or ``"STANDARD"``, on their disks.
        tag, application: Names that set it apart.
        headers: For the origin. Those that negotiate a representation are part of the identity;
            credentials are not.
        filtered_query_params: Query parameters that are no part of it; by default those that sign
            URLs of the common object stores.
        piece_length: Bytes in a piece, 4 MiB to 64 MiB, instead of what suits the length.
        content_for_calculating_task_id: Identity in place of all that, and of the URL.
    """

    kind: str
    tag: str | None
    application: str | None
    headers: Mapping[str, str]
    filtered_query_params: Sequence[str]
    piece_length: int | None
    content_for_calculating_task_id: str | None


class Conduct(Identity, total=False):
    """The same, and how to go about a download.

    Attributes:
        timeout: Seconds for all of it; two hours by default, and when it is None.
        priority: 0 to 6; 6 by default.
        disable_back_to_source: Never ask the origin, only peers.
        refresh: Ask the origin first, and fetch anew what has changed there. Otherwise what is here
            is what there is, however old.
    """

    timeout: float | None
    priority: int
    disable_back_to_source: bool
    refresh: bool


class Wishes(Conduct, total=False):
    """The same, and what the content must be.

    Attributes:
        digest: ``"sha256:HEX"``, ``"sha512:HEX"`` or ``"crc32:DECIMAL"`` of the whole content.
    """

    digest: str | None


#: That there are, those of its bases among them.
_KNOWN: Final = frozenset(Wishes.__annotations__)

#: Those of them that do not say which content is meant.
CONDUCT: Final = _KNOWN.difference(Identity.__annotations__)

_RENAMED: Final = {"headers": "request_header"}


def identity_of(url: str, wishes: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a request that name the content of *url*.

    Raises:
        InvalidRequest: It is no URL, or there is no such wish.
    """
    if not isinstance(url, str):  # it is not shown: it may hold a password
        raise InvalidRequest(f"a URL is a text, not {type(url).__name__}")
    if fault := fault_of_given(url):
        raise InvalidRequest(f"url: {fault}")
    request: dict[str, Any] = {"url": url, "kind": "CACHE"}
    request["filtered_query_params"] = DEFAULT_FILTERED_QUERY_PARAMS
    for name, value in wishes.items():
        if name not in _KNOWN:
            raise InvalidRequest(f"no option {name!r}: there are {', '.join(sorted(_KNOWN))}")
        if value is not None:
            request[_RENAMED.get(name, name)] = value
    request["kind"] = str(request["kind"]).upper()
    params = request["filtered_query_params"]
    if isinstance(params, str):
        raise InvalidRequest("filtered_query_params: want a list of names, not one text")
    try:
        request["filtered_query_params"] = list(params)
    except TypeError:
        raise InvalidRequest(f"filtered_query_params: want names, not {params!r:.100}") from None
    if "request_header" in request:
        request["request_header"] = headers_of(request["request_header"])
    return request


def headers_of(told: Any) -> dict[str, str]:
    """Headers by name. Raises InvalidRequest: they are none."""
    try:
        return dict(told)
    except (TypeError, ValueError):  # not what they are: they may have a password
        raise InvalidRequest("headers: want values by names, such as {'Accept': '*/*'}") from None


def download_of(
    url: str, wishes: Mapping[str, Any], part: Range | None = None, **more: Any
) -> dict[str, Any]:
    """The request for the content of *url*, or for a *part* of it.

    Args:
        url: Of the content.
        wishes: As :class:`Wishes` has them.
        part: None: all of it.
        more: Keys of the request.

    Raises:
        InvalidRequest: It is no URL, there is no such wish, or the part cannot be.
    """
    request = {"op": "download", "timeout": DEFAULT_TIMEOUT, **identity_of(url, wishes), **more}
    timeout = request["timeout"]
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidRequest(f"timeout: want seconds above 0, not {timeout!r}")
    request["timeout"] = min(timeout, _MAX_TIMEOUT)
    if part is not None:
        request["range"] = bounds_of(part)
    return request


def bounds_of(part: Range) -> str:
    """A part as an HTTP Range has it.

    >>> bounds_of((0, 8)), bounds_of((8, None)), bounds_of((-8, None))
    ('0-7', '8-', '-8')

    Raises:
        InvalidRequest: It has no bytes, or is none.
    """
    start, end = numbers_of(part)
    if end is None:
        return f"{start}-" if start >= 0 else str(start)
    if not 0 <= start < end:
        raise InvalidRequest(f"range: no bytes from {start} to before {end}")
    return f"{start}-{end - 1}"


def numbers_of(part: Range) -> Range:
    """A part in numbers of Python's own, whether or not it has bytes.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        start, end = part
    except (TypeError, ValueError):
        raise InvalidRequest(f"range: want a beginning and an end, not {part!r}") from None
    if isinstance(start, bool) or isinstance(end, bool):
        raise InvalidRequest(f"range: want whole numbers, not {part!r}")
    try:  # numpy's are such, too
        return index(start), None if end is None else index(end)
    except TypeError:
        raise InvalidRequest(f"range: want whole numbers, not {part!r}") from None
