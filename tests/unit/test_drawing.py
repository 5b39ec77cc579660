"""testing/drawing.py: bars as long as their figures."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from pantala.testing.drawing import bars

_SVG = "{http://www.w3.org/2000/svg}"


def _bars(text: str) -> list[tuple[float, str]]:
    """Length and color of each, but for the ground."""
    found = list(ET.fromstring(text).iter(f"{_SVG}rect"))[1:]  # noqa: S314  our own
    return [(float(each.get("width", "")), each.get("fill", "")) for each in found]


def test_bars_are_as_long_as_their_figures() -> None:
    """And what is not ours is grey."""
    text = bars(
        "A & B",
        "GB/s",
        {"one < two": {"daemon": 2.0, "loop": 4.0}, "": {"x": 0.0}},
        others={"loop"},
    )
    (daemon, blue), (loop, grey), (nothing, _) = _bars(text)
    assert 2 * daemon == loop
    assert nothing == 0
    assert blue != grey
    for words in ("A &amp; B", "one &lt; two", "2 GB/s", "0 GB/s"):
        assert words in text


def test_nothing_can_be_drawn() -> None:
    """Or what is nothing at all."""
    assert _bars(bars("none", "s", {})) == []
    assert _bars(bars("none", "s", {"": {"a": 0.0}})) == [(0.0, "#06c")]
