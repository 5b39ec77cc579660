"""Drawings of what benches have measured, as SVG files."""

from __future__ import annotations

from collections.abc import Container, Mapping
from html import escape
from typing import Final

_LABELS, _WIDTH, _FIGURES = 280, 340, 80
_ROW, _GAP, _EDGE = 18, 12, 12

#: Of bars: what is ours, and what it is compared with.
_OURS: Final = "#06c"
_OTHERS: Final = "#999"


def bars(
    title: str,
    unit: str,
    groups: Mapping[str, Mapping[str, float]],
    *,
    others: Container[str] = (),
) -> str:
    """Bars below one another, each as long as its figure.

    Args:
        title: What is drawn.
        unit: Of all figures.
        groups: Figures by their labels, by the heading of their group; ``""`` is none.
        others: Labels of bars that are grey.

    Returns:
        The file's text.
    """
    most = max((value for group in groups.values() for value in group.values()), default=0.0)
    parts, top = list[str](), 2 * _EDGE + _ROW
    for heading, group in groups.items():
        if heading:
            parts.append(_text(_EDGE, top + _ROW - 5, heading, bold=True))
            top += _ROW
        for label, value in group.items():
            length = _WIDTH * value / most if most else 0.0
            color = _OTHERS if label in others else _OURS
            parts.append(_text(_EDGE + _LABELS - 6, top + _ROW - 5, label, anchor="end"))
            parts.append(
                f'<rect x="{_EDGE + _LABELS}" y="{top + 2}" width="{length:.1f}" '
                f'height="{_ROW - 4}" fill="{color}"/>'
            )
            x = _EDGE + _LABELS + length + 5
            parts.append(_text(x, top + _ROW - 5, f"{value:.3g} {unit}".rstrip()))
            top += _ROW
        top += _GAP
    width, height = 2 * _EDGE + _LABELS + _WIDTH + _FIGURES, top - _GAP + _EDGE
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        "<style>text { font: 12px sans-serif; fill: #222 }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_EDGE, _EDGE + 10, title, bold=True),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
