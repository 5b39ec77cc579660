"""What a program asks for on the hand-off socket; docs/handoff.md has the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pantala.core.policy import POLICIES, policy_of
from pantala.errors import InvalidRequest
from pantala.model.task import PRIORITIES, Delivery, DownloadRequest, Kind

#: Seconds that a client may ask for at most; a century and less than any clock's range.
_MAX_TIMEOUT: Final = 3.2e9

#: Keys of a download, with the types that JSON may bring for them.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "kind": (str,),
    "url": (str,),
    "task_id": (str,),
    "digest": (str,),
    "range": (str,),
    "tag": (str,),
    "application": (str,),
    "priority": (int,),
    "filtered_query_params": (list,),
    "request_header": (dict,),
    "piece_length": (int,),
    "timeout": (int, float),
    "disable_back_to_source": (bool,),
    "prefetch": (bool,),
    "content_for_calculating_task_id": (str,),
    "again": (bool,),
    "refresh": (bool,),
    "progress": (bool,),
}


#: Keys that say which task the one of a URL is, in place of its id.
_IDENTITY: Final[Mapping[str, tuple[type, ...]]] = {
    name: _TYPES[name]
    for name in (
        *("url", "tag", "application", "filtered_query_params", "request_header"),
        *("piece_length", "content_for_calculating_task_id"),
    )
}

#: Requests that are about tasks, with their keys besides "kind", which all of them have.
TASK_OPS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "list": {},
    "stat": {"task_id": (str,), **_IDENTITY},
    "holders": {"task_id": (str,), **_IDENTITY, "limit": (int,)},
    "delete": {"task_id": (str,), **_IDENTITY, "swarm": (bool,)},
}

#: Hosts of which a request for holders may want to hear.
_MAX_HOLDERS: Final = 500

#: Those of a download that say how it wants to get what is wanted.
_DELIVERY: Final = ("digest", "timeout", "again", "refresh", "progress")


def parse_download(request: Mapping[str, Any]) -> tuple[DownloadRequest, Delivery]:
    """The download that a client asks for, and how it wants to get it.

    Raises:
        InvalidRequest: An unknown key, a wrong type, or no URL; it is named.
        FeatureOff: A kind that is not served this way.
    """
    given = _given(request, _TYPES, "download")
    kind = _kind(given.pop("kind", Kind.CACHE.name))
    name, other = ("task_id", "url") if policy_of(kind).imported else ("url", "task_id")
    if not given.get(name):
        raise InvalidRequest(f"a download request of a {kind.name} task needs a {name!r}")
    if other in given:
        raise InvalidRequest(f"a {kind.name} task has no {other!r}: it is named by its {name!r}")
    given.setdefault("url", "")
    header = _headers(given.pop("request_header", {}), given.pop("range", None))
    filtered = given.pop("filtered_query_params", [])
    if not all(isinstance(name, str) for name in filtered):
        raise InvalidRequest("'filtered_query_params' must be a list of strings")
    if given.get("priority", 0) not in PRIORITIES:
        raise InvalidRequest("'priority' must be 0 to 6")
    if not 0 < given.get("timeout", 1) <= _MAX_TIMEOUT:
        raise InvalidRequest(f"'timeout' must be above 0, and at most {_MAX_TIMEOUT:g} seconds")
    delivery = Delivery(early=True, **{k: given.pop(k) for k in _DELIVERY if k in given})
    content = DownloadRequest(
        kind=kind,
        request_header=header,
        filtered_query_params=tuple(filtered),
        **given,
    )
    return content, delivery


class TaskWish(NamedTuple):
    """What a request of :data:`TASK_OPS` is about.

    Attributes:
        kind: Of task.
        task_id: Which one; ``""``: all, or that of *content*.
        content: Whose task it is, where that is not named by its id.
        swarm: On all hosts, not on this one alone.
        limit: Hosts to tell of at most; None: as many as a scheduler sees fit.
    """

    kind: Kind
    task_id: str
    content: DownloadRequest | None
    swarm: bool
    limit: int | None = None


def parse_task_wish(op: str, request: Mapping[str, Any]) -> TaskWish:
    """What a request of :data:`TASK_OPS` asks for.

    Raises:
        InvalidRequest: An unknown key, a wrong type, or no task; it is named.
        FeatureOff: A kind that is not served.
    """
    given = _given(request, {"kind": (str,), **TASK_OPS[op]}, op)
    kind = _kind(given.get("kind", Kind.CACHE.name))
    swarm, limit = given.pop("swarm", False), given.pop("limit", None)
    if limit is not None and not 1 <= limit <= _MAX_HOLDERS:
        raise InvalidRequest(f"'limit' must be 1 to {_MAX_HOLDERS}, not {limit}")
    if "task_id" in given or "task_id" not in TASK_OPS[op]:
        if named := [key for key in given if key in _IDENTITY]:
            raise InvalidRequest(f"a {op} request has a 'task_id' or {named[0]!r}, not both")
        return TaskWish(kind, given.get("task_id", ""), None, swarm, limit)
    if "url" not in given or policy_of(kind).imported:
        other = "" if policy_of(kind).imported else " or a 'url'"
        raise InvalidRequest(f"a {op} request of a {kind.name} task needs a 'task_id'{other}")
    content, _ = parse_download(given)
    return TaskWish(kind, "", content, swarm, limit)


def _given(
    request: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], what: str
) -> dict[str, Any]:
    """What a request has, without its nulls. Raises InvalidRequest."""
    given = {k: v for k, v in request.items() if v is not None}
    for key, value in given.items():
        if key not in types:
            raise InvalidRequest(f"unknown key {key!r:.100} in a {what} request")
        # A bool is an int to Python, not to JSON.
        if type(value) not in types[key]:
            wanted = " or ".join(t.__name__ for t in types[key])
            raise InvalidRequest(f"{key!r} must be {wanted}, not {type(value).__name__}")
    return given


def _kind(name: str) -> Kind:
    """The kind of that name. Raises InvalidRequest, FeatureOff."""
    try:
        kind = Kind[name]
    except KeyError:
        raise InvalidRequest(
            f"unknown 'kind' {name!r:.100}: want {', '.join(k.name for k in POLICIES)}"
        ) from None
    policy_of(kind)
    return kind


def _headers(given: Mapping[Any, Any], part: str | None) -> dict[str, str]:
    """The headers for the origin; the range among them is *part*, if there is one."""
    if not all(isinstance(value, str) for value in given.values()):
        raise InvalidRequest("'request_header' must be an object of strings")
    header = dict(given)
    if part is not None:
        header = {k: v for k, v in header.items() if k.lower() != "range"}
        header["Range"] = f"bytes={part}"
    if any("," in value for name, value in header.items() if name.lower() == "range"):
        raise InvalidRequest("several ranges: want one in a download, as only the first would come")
    return header
