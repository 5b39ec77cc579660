"""Libraries that read a daemon's files, for the tests of that: large, and not needed else."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any, Final

import pytest

#: Where this is set, they must be there; else tests that need them are skipped.
MUST_BE_THERE: Final = "PANTALA_TEST_FORMATS"


def library(name: str) -> Any:
    """That module; without it the test is skipped, which says why."""
    try:
        with warnings.catch_warnings(action="ignore"):  # at what they import themselves
            return importlib.import_module(name)
    except ModuleNotFoundError:
        why = f"needs {name.partition('.')[0]} (extra test-formats)"
        if os.environ.get(MUST_BE_THERE):
            pytest.fail(why)
        pytest.skip(why)
