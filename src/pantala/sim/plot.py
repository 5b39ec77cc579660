"""A drawing of a run: how many downloads have finished by when, and what each host has sent."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .report import Report, seconds, wanted
from .swarm import Swarm

_WIDTH, _HEIGHT, _GAP = 640, 240, 48
#: Points of a curve; of ten thousand hosts nobody sees more.
_POINTS = 400


def svg(swarm: Swarm, found: Report) -> str:
    """The drawing, as an SVG file."""
    times = seconds(wanted(swarm))
    gave = sorted(host.up.carried / swarm.settings.size for host in swarm.hosts)
    until = max([found.fluid, found.rounds, *times]) * 1.05
    marks = [("fluid", found.fluid / until), ("rounds", found.rounds / until)]
    share = [(at / until, (place + 1) / len(times)) for place, at in enumerate(times)]
    most = max([*gave, 1.0])
    load = [(place / max(1, len(gave) - 1), value / most) for place, value in enumerate(gave)]
    title = f"{found.scenario}, {found.hosts} hosts, seed {found.seed}"
    height = 2 * _HEIGHT + 3 * _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 2 * _GAP}" height="{height}">',
        "<style>text { font: 12px sans-serif } rect { fill: white; stroke: #999 }</style>",
        f'<rect width="100%" height="100%"/><text x="{_GAP}" y="20">{escape(title)}</text>',
        *_chart(
            _GAP,
            "share of downloads that have finished",
            right=f"{until:.1f} s",
            most="1",
            points=share,
            marks=marks,
        ),
        *_chart(
            2 * _GAP + _HEIGHT,
            "sent, as multiples of a file",
            right="hosts",
            most=f"{most:.1f}",
            points=load,
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _chart(
    top: int,
    title: str,
    *,
    right: str,
    most: str,
    points: Sequence[tuple[float, float]],
    marks: Sequence[tuple[str, float]] = (),
) -> list[str]:
    """A curve in a box; points and marks are shares of its sides."""
    step = -(-len(points) // _POINTS) or 1
    shown = [*points[::step], *points[-1:]]
    path = " ".join(f"{_GAP + x * _WIDTH:.1f},{top + (1 - y) * _HEIGHT:.1f}" for x, y in shown)
    bottom = top + _HEIGHT
    parts = [
        f'<rect x="{_GAP}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text x="{_GAP}" y="{top - 6}">{title}</text>',
        f'<text x="{_GAP + _WIDTH}" y="{bottom + 14}" text-anchor="end">{right}</text>',
        f'<text x="{_GAP - 4}" y="{top + 10}" text-anchor="end">{most}</text>',
        f'<polyline points="{path}" fill="none" stroke="#06c" stroke-width="1.5"/>',
    ]
    for name, at in marks:
        x = _GAP + at * _WIDTH
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#c60" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{bottom - 6}" fill="#c60">{name}</text>')
    return parts
