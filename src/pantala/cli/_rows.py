"""Tasks as people read them: tables of the rows that :mod:`pantala.rpc.rows` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pantala.model.units import format_size

from ._text import one_line, shortened, width

#: A task, as ``--json`` prints it: numbers are bytes, times are RFC 3339 or null.
Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]

#: Columns of a terminal that an id and a URL need at least: twelve digits tell tasks apart.
_ID: Final = 13
_URL: Final = 20

#: Columns of a table that a narrow terminal does without, the first one first.
_SPARE: Final = ("UPDATED", "FAILED", "PIECE LENGTH", "FINISHED", "LEASES", "CREATED", "PIECES")


def _time(text: str | None) -> str:
    """In the time of this place."""
    return "-" if text is None else f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"


def _plainly(value: object) -> str:
    return "-" if value in {None, ""} else one_line(str(value))


def _size(size: int | None) -> str:
    return "-" if size is None else format_size(size)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    parts = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    rest, text = round(seconds), []
    for unit, letter in parts:
        count, rest = divmod(rest, unit)
        if count:
            text.append(f"{count}{letter}")
    return " ".join(text) or "0s"


#: Of a list; those of which no row says anything are left out.
LS_COLUMNS: Final[Sequence[Column]] = (
    ("ID", lambda row: str(row["id"])),
    ("URL", lambda row: _plainly(row.get("url"))),
    ("PIECE LENGTH", lambda row: _size(row["piece_length"])),
    ("CONTENT LENGTH", lambda row: _size(row["content_length"])),
    (
        "PIECES",
        lambda row: (
            f"{row['finished_piece_count']}/{row['piece_count']}" if "piece_count" in row else "-"
        ),
    ),
    ("CREATED", lambda row: _time(row["created_at"])),
    ("FINISHED", lambda row: _time(row["finished_at"])),
    ("FAILED", lambda row: _time(row["failed_at"])),
    ("UPDATED", lambda row: _time(row["updated_at"])),
    ("LEASES", lambda row: _plainly(row.get("lease_count"))),
)

#: How a fact of :func:`stat_row` is called, and shown.
_FACTS: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "id": ("ID", str),
    "url": ("URL", _plainly),
    "tag": ("TAG", _plainly),
    "application": ("APPLICATION", _plainly),
    "digest": ("DIGEST", _plainly),
    "state": ("STATE", _plainly),
    "piece_length": ("PIECE LENGTH", _size),
    "content_length": ("CONTENT LENGTH", _size),
    "piece_count": ("PIECES", str),
    "peer_count": ("PEERS", str),
    "has_available_peer": ("AVAILABLE", lambda has: "yes" if has else "no"),
    "persistent_replica_count": ("PERSISTENT REPLICA COUNT", str),
    "current_persistent_replica_count": ("CURRENT PERSISTENT REPLICAS", str),
    "current_replica_count": ("CURRENT REPLICAS", str),
    "ttl": ("TTL", _duration),
    "created_at": ("CREATED", _time),
    "updated_at": ("UPDATED", _time),
}


def stat_lines(row: Row) -> str:
    """What :func:`stat_row` gave, a fact a line."""
    return table([[_FACTS[name][0], _FACTS[name][1](value)] for name, value in row.items()])


def holder_lines(holders: Sequence[Row], left_out: int) -> str:
    """What hosts hold of a task, a host a line, under a head; and how many there are in all.

    Args:
        holders: As :func:`pantala.rpc.rows.holder_row` has them.
        left_out: Hosts beside these.
    """
    head = ["HOST", "TYPE", "HOLDS", "STATE"]
    lines = [[_plainly(row[n]) for n in ("host_id", "type")] for row in holders]
    for line, row in zip(lines, holders, strict=True):
        line += [_holds(row), _plainly(row["state"])]
    whole = sum(bool(row["complete"]) for row in holders)
    silent = sum(row["complete"] is None for row in holders)
    counts = [f"{whole} with all of it", f"{len(holders) - whole - silent} with a part"]
    counts += [f"{silent} did not say"] * bool(silent)
    more = f", and {left_out} more" * bool(left_out)
    hosts = "1 host" if len(holders) == 1 else f"{len(holders)} hosts"
    shown = table([head, *lines]) if holders else ""
    return f"\n{shown}{hosts}: {', '.join(counts)}{more}\n"


def _holds(row: Row) -> str:
    """How much a host has, or why it has not said."""
    if row["complete"] is None:
        return f"? ({_plainly(row['unanswered'])})"
    if row["complete"]:
        return "all"
    if row["finished_piece_count"] is None:
        return "a part"
    of = f"{row['finished_piece_count']} of {row['piece_count']} pieces"
    return f"{of}, {_size(row['finished_bytes'])}"


def ls_lines(rows: Sequence[Row], columns: int | None = None) -> str:
    """A line for each of *rows*, under a head.

    Args:
        rows: What there is.
        columns: That the terminal has, which no line is longer than; None: all is shown whole.
    """
    cells = {name: [name, *(show(row) for row in rows)] for name, show in LS_COLUMNS}
    if columns is not None:
        _fit(cells, columns)
    text = table(list(zip(*cells.values(), strict=True)))
    if columns is None:
        return text
    return "".join(f"{shortened(line, columns)}\n" for line in text.splitlines())


def _fit(cells: dict[str, list[str]], columns: int) -> None:
    """Shorten ids, then URLs, and leave out columns, until *cells* fit, if they ever do."""

    def lacking() -> int:
        wide = sum(max(map(width, column)) for column in cells.values())
        return wide + 2 * (len(cells) - 1) - columns

    if lacking() > 0:
        cells["ID"] = [f"{i[: _ID - 1]}…" if len(i) > _ID else i for i in cells["ID"]]
    url = max(map(width, cells["URL"]))
    for name in _SPARE:
        if lacking() > max(url - _URL, 0):
            del cells[name]
    left = max(url - max(lacking(), 0), min(url, _URL))
    cells["URL"] = [shortened(each, left) for each in cells["URL"]]


def table(lines: Sequence[Sequence[str]]) -> str:
    """*lines* with their cells below each other.

    A line is a line, however long: an id that is cut in two cannot be copied, on a terminal as
    little as by the programs that cut lines up.
    """
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(
            cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)
        )
        for line in lines
    )
    return "".join(f"{line.rstrip()}\n" for line in padded)
