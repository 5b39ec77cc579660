"""model/addresses.py: addresses, and ranges of ports."""

from __future__ import annotations

import pytest

from pantala.model.addresses import MAX_RANGE, spread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7:8002", ("10.0.0.7:8002",)),
        ("10.0.0.7:8002-8002", ("10.0.0.7:8002",)),
        ("my-host.example:8002-8004", tuple(f"my-host.example:{n}" for n in (8002, 8003, 8004))),
        ("[fd00::7]:65534-65535", ("[fd00::7]:65534", "[fd00::7]:65535")),
    ],
)
def test_all_of_them(text: str, expected: tuple[str, ...]) -> None:
    """In order; the host stays as it is written."""
    assert spread(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.7", "expected host:port"),
        (":8002", "expected host:port"),
        ("fd00::7:8002", "expected host:port"),
        ("[10.0.0.7]:8002", "expected host:port"),
        ("h:0", "expected host:port"),
        ("h:65536", "expected host:port"),
        ("h:8002-", "expected host:port"),
        ("h:-8002", "expected host:port"),
        ("h:1-2-3", "expected host:port"),
        ("h:65000-65536", "expected host:port"),
        ("h:8005-8002", "8005-8002 are not in order"),
        ("h:8000-8064", "65 ports: want at most 64"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    """It says what is wrong."""
    with pytest.raises(ValueError, match=words):
        spread(text)


def test_the_largest() -> None:
    """As many as a scheduler may have workers."""
    assert len(spread("h:8000-8063")) == MAX_RANGE
