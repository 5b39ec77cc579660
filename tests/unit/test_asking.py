"""client/asking.py: several requests of one call, without a daemon."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pantala
from pantala.client.asking import Asking


def test_what_all_bring() -> None:
    """Of none, one and several."""
    asking = Asking(pantala.Client("/nowhere/a.sock"), {})
    for count in (0, 1, 3):
        works = [lambda n=n: iter([n] * 20) for n in range(count)]
        assert sorted(asking.all(works)) == sorted([*range(count)] * 20)


@pytest.mark.timeout(20)
def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were end, though nobody takes what they bring."""
    submit = ThreadPoolExecutor.submit
    limits = [True, False]

    def limited(self: ThreadPoolExecutor, *args: Any) -> Any:
        if limits.pop():
            raise RuntimeError("can't start new thread")
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(RuntimeError, match="new thread"):
        list(Asking(pantala.Client("/nowhere/a.sock"), {}).all([lambda: iter(range(100))] * 2))
