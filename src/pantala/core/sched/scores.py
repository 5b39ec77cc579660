"""The formulas by which parents are compared, by the names that operators choose them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from .entities import Peer
from .evaluate import scores
from .legacy import legacy_scores
from .rules import Algorithm

#: The score of each of some parents for a child.
SCORES: Final[Mapping[Algorithm, Callable[[Iterable[Peer], Peer], list[float]]]] = {
    "default": scores,
    "legacy": legacy_scores,
}
