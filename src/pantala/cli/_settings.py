"""Settings as ``--check`` prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pantala.model.units import parse_duration

#: Seconds in each unit that a duration is printed in; the first one that is exact.
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def settings_json(tree: Mapping[str, Any], *, numbers: frozenset[str] = frozenset()) -> str:
    """Settings as a file may say them: JSON is YAML, and durations get their unit.

    Args:
        tree: Their sections, as the model dumps them.
        numbers: Names of settings that are fractional, and no durations.
    """
    return json.dumps(_with_units(tree, numbers), indent=2, ensure_ascii=False)


def _with_units(value: Any, numbers: frozenset[str]) -> Any:
    """Durations as text; of all settings they alone are fractional numbers."""
    if isinstance(value, dict):
        return {
            key: below if key in numbers else _with_units(below, numbers)
            for key, below in value.items()
        }
    if not isinstance(value, float):
        return value
    # 9 ms in seconds is read as a number that differs in its last bit.
    texts = [_decimal(value / size) + unit for unit, size in _UNITS.items()]
    return next((text for text in texts if parse_duration(text) == value), texts[0])


def _decimal(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
