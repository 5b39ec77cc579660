"""Blocking works side by side, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def in_threads(works: Sequence[Callable[[], object]]) -> None:
    """Run all at once, and wait for all. Raises what the first of them raised that failed."""
    with ThreadPoolExecutor(max_workers=len(works)) as pool:
        begun = [pool.submit(work) for work in works]
    for work in begun:
        work.result()
