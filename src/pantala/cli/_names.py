"""What a user calls a task: by its id, by the beginning of it, or by a URL."""

from __future__ import annotations

import argparse

from pantala.errors import InvalidRequest, NotFound
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.model.urls import public_url

from . import _identity as identity

TYPE_CHECKING = False  # as for dfget: there is no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, Protocol

    from pantala.rpc.rows import Row

    from ._tasks_grpc import Kind

    class Tasks(Protocol):
        """Of a daemon."""

        def held(self, kind: Kind) -> tuple[list[Row], dict[str, int]]: ...


#: Digits of an id that it must be named by, at least: of fewer, many tasks have the same.
SHORTEST: Final = 4
_WHOLE: Final = 64

#: Ids that are named where one was not enough.
_SHOWN: Final = 10

_HEX: Final = frozenset("0123456789abcdef")


def task_name(text: str) -> str:
    """*text*, if it may name a task; without the … that a table has after the beginning of an id.

    Raises:
        argparse.ArgumentTypeError: It is neither a URL nor the beginning of an id.
    """
    if "://" in text:
        return identity.url(text)
    digits = text.removesuffix("…")
    if not (SHORTEST <= len(digits) <= _WHOLE and _HEX.issuperset(digits)):
        raise argparse.ArgumentTypeError(
            f"task id {text[:100]!r}: want 64 lower-case hexadecimal digits, "
            f"the first {SHORTEST} or more of them, or a URL"
        )
    return digits


class Wanted:
    """A task that was found by its name.

    Attributes:
        shown: Its id, or what may be seen of its URL.
        keys: What names it in a request (docs/handoff.md).
    """

    def __init__(self, shown: str, keys: Mapping[str, Any]) -> None:
        self.shown = shown
        self.keys = keys


class Names:
    """Finds tasks of one kind by what they are called.

    Args:
        tasks: Where to look.
        kind: Of the tasks.
        wishes: Keys of a request that are part of the identity of a URL's content.
    """

    def __init__(self, tasks: Tasks, kind: Kind, wishes: Mapping[str, Any]) -> None:
        self._tasks = tasks
        self._kind = kind
        self._wishes = wishes
        self._ids: Sequence[str] | None = None

    def find(self, name: str) -> Wanted:
        """The task that *name*, of :func:`task_name`, means.

        Raises:
            NotFound: No id begins with it.
            InvalidRequest: More than one does.
            DragonflyError: The daemon does not say what it has.
        """
        if "://" in name:
            return Wanted(public_url(name), {"url": name, **self._wishes})
        if len(name) == _WHOLE:
            return Wanted(name, {"task_id": name})
        if self._ids is None:  # what is removed meanwhile makes no name less ambiguous
            self._ids = [str(row["id"]) for row in self._tasks.held(self._kind)[0]]
        found = [each for each in self._ids if each.startswith(name)]
        if not found:
            raise NotFound(
                f"this daemon has no task whose id begins with {name}; "
                "one that only others have needs its whole id"
            )
        if len(found) > 1:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise InvalidRequest(
                f"the ids of {len(found)} tasks begin with {name}: "
                f"{', '.join(found[:_SHOWN])}{more}"
            )
        return Wanted(found[0], {"task_id": found[0]})


def wishes_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags of :func:`._identity.add` say, as keys of a request.

    Raises:
        ValueError: A header makes no sense.
    """
    names = ("tag", "application", "piece_length", "content_for_calculating_task_id")
    given = {name: getattr(options, name) for name in names}
    given["filtered_query_params"] = options.filtered_query_params
    given["request_header"] = identity.headers_of(options.headers or []) or None
    return {name: value for name, value in given.items() if value is not None}


def with_defaults(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """The same as ``dfget`` asks with."""
    return {"filtered_query_params": list(DEFAULT_FILTERED_QUERY_PARAMS), **wishes}
