"""Asking several schedulers: all at once, for one that hangs takes its whole time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pantala.errors import DragonflyError

T = TypeVar("T")


def ask_all(targets: Sequence[str], ask: Callable[[str], T]) -> dict[str, T | DragonflyError]:
    """What each says, or why it does not; in the order of *targets*.

    Raises:
        DragonflyError: None of them says anything; that of the first.
    """

    def one(target: str) -> T | DragonflyError:
        try:
            return ask(target)
        except DragonflyError as error:
            return error

    with ThreadPoolExecutor(len(targets)) as pool:
        answers = dict(zip(targets, pool.map(one, targets), strict=True))
    first = answers[targets[0]]
    if isinstance(first, DragonflyError) and all(
        isinstance(answer, DragonflyError) for answer in answers.values()
    ):
        raise first
    return answers
