"""The formulas by which parents are compared, by the names that operators choose them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .entities import Peer
from .evaluate import evaluate
from .legacy import evaluate_legacy
from .rules import Algorithm

#: The score of a parent, the first argument, for a child.
SCORES: Final[Mapping[Algorithm, Callable[[Peer, Peer], float]]] = {
    "default": evaluate,
    "legacy": evaluate_legacy,
}
