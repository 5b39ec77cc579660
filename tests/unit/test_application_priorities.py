"""core/sched/priorities.py: an application has a say where a download says nothing."""

from __future__ import annotations

import pytest

from pantala.core.patterns import Pattern
from pantala.core.sched import priorities
from pantala.core.sched.priorities import Priorities
from pantala.model.cluster import Application, UrlPriority
from pantala.model.task import DownloadRequest, Kind

TRAINING = Application(
    "training",
    priority=3,
    urls=(
        UrlPriority("(broken", 5),
        UrlPriority("/private/", 1),
        UrlPriority(r"\.bin$", 2),
        UrlPriority("/priv", 4),
        UrlPriority("free", 0),
    ),
)
PLAIN = Application("plain", priority=6)


def value(url: str, application: str | None = "training", priority: int = 0) -> int:
    """The priority that counts."""
    known = Priorities([TRAINING, PLAIN, Application("training", priority=1)])
    request = DownloadRequest(Kind.CACHE, url, application=application, priority=priority)
    return known.judge(request).priority


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://h/private/x.bin", 1),
        ("http://h/privy/x.bin", 2),
        ("http://h/privy/x", 4),
        ("http://h/x?file=/private/", 1),
        ("http://h/free", 0),
        ("http://h/x", 3),
    ],
)
def test_the_first_pattern_found_counts(url: str, wanted: int) -> None:
    """Anywhere in the URL; else the application's own value. One that is broken is none."""
    assert value(url) == wanted
    assert value(url, "plain") == 6


def test_who_has_a_say() -> None:
    """A download's own word, where it says one; the first application of exactly its name."""
    assert value("http://h/private/x", priority=5) == 5
    assert value("http://h/private/x", None) == 0
    assert value("http://h/private/x", "") == 0
    assert value("http://h/private/x", "Training") == 0


@pytest.mark.parametrize("kind", [Kind.PERSISTENT, Kind.PERSISTENT_CACHE])
def test_what_comes_from_no_origin_is_left_as_it_is(kind: Kind) -> None:
    """It has no URL."""
    request = DownloadRequest(kind, "", task_id="t", application="plain")
    assert Priorities([PLAIN]).judge(request) is request


def test_what_is_skipped_is_told() -> None:
    """By application and pattern, in words."""
    (line,) = Priorities([TRAINING, PLAIN]).skipped
    assert line == "application training: '(broken': missing ): (broken"
    assert Priorities().skipped == ()


def test_patterns_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each URL; of so many, the one that was not asked for longest is forgotten."""
    looked: list[str] = []

    class Watched(Pattern):
        def found_in(self, text: str) -> bool:
            looked.append(text)
            return super().found_in(text)

    monkeypatch.setattr(priorities, "Pattern", Watched)
    monkeypatch.setattr(priorities, "_MOST_KEPT", 2)
    known = Priorities([Application("a", urls=(UrlPriority("x", 4),)), PLAIN])

    def ask(*urls: str) -> list[int]:
        requests = [DownloadRequest(Kind.CACHE, url, application="a") for url in urls]
        return [known.judge(request).priority for request in requests]

    assert ask("x", "y", "x", "y", "x", "z", "x", "y") == [4, 0, 4, 0, 4, 0, 4, 0]
    assert looked == ["x", "y", "z", "y"]
