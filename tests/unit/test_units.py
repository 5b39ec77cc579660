"""Sizes and durations as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.model.units import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (123, 123),
        (0, 0),
        ("0", 0),
        ("1048576", 1048576),
        ("7B", 7),
        ("4MiB", 4 * 2**20),
        ("64mib", 64 * 2**20),
        ("50GB", 50 * 10**9),
        ("2G", 2 * 10**9),
        ("2Gi", 2 * 2**30),
        ("1 KiB", 1024),
        (" 1.5GiB ", 3 * 2**29),
        ("0.1kB", 100),
        ("1.0009kb", 1000),
        ("1TiB", 2**40),
        ("1PB", 10**15),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(value: str | int, expected: int) -> None:
    """KiB is 1024, KB and K are 1000."""
    assert parse_size(value) == expected


@pytest.mark.parametrize(
    "value", ["", "MiB", "-1", -1, "1e3", "4 XB", "4MiBs", "1.MiB", "1,5GB", "٤MiB", True, "1 2"]
)
def test_what_is_no_size(value: str | int) -> None:
    """The refusal shows what would do."""
    with pytest.raises(ValueError, match="such as 4MiB"):
        parse_size(value)


def test_sizes_end_at_63_bits() -> None:
    """More fits nowhere that a size goes."""
    with pytest.raises(ValueError, match="too large"):
        parse_size("9223372036854775808")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("1h 30m", 5400),
        ("1h30m0s", 5400),
        ("1m30s", 90),
        ("30days", 30 * 86400),
        ("1day 2hours", 93600),
        ("2 weeks", 14 * 86400),
        ("1.5h", 5400),
        ("100µs", 1e-4),
        ("250us", 2.5e-4),
        ("0s", 0),
        ("0", 0),
        (0, 0),
        (" 5min ", 300),
    ],
)
def test_durations(value: str | float, expected: float) -> None:
    """As humantime and Go write them."""
    assert parse_duration(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value", ["", "30", 30, 1.5, "s", "-5s", "5 parsecs", "1h 30", "1h-30m", "5M", "1h,5m", "٣s"]
)
def test_what_is_no_duration(value: str | float) -> None:
    """A bare number is not: it might mean anything."""
    with pytest.raises(ValueError, match="such as 30s"):
        parse_duration(value)


@pytest.mark.parametrize("parse", [parse_size, parse_duration])
@given(text=st.text(max_size=12))
def test_garbage_is_a_value_error(parse: Callable[[str], float], text: str) -> None:
    """Or a number that is not negative."""
    try:
        found = parse(text)
    except ValueError:
        return
    assert found >= 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**20, "1.0 MiB"),
        (5 * 2**29, "2.5 GiB"),
        (2**40, "1.0 TiB"),
        (2**60, "1024.0 PiB"),
    ],
)
def test_sizes_for_people(size: int, expected: str) -> None:
    """Binary units, one digit after the point."""
    assert format_size(size) == expected


@given(st.floats(0, 1e9))
def test_what_is_written_for_people_can_be_read(number: float) -> None:
    """And is not far off."""
    assert parse_size(format_size(number)) == pytest.approx(number, rel=0.06, abs=1)
