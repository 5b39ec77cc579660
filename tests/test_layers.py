"""Imports go down only, in the layers that the package's docstring draws."""

from __future__ import annotations

import re

import pantala
from pantala.testing.imports import Import, imports, modules

#: Who imports a neighbour all the same.
NEIGHBOURS = {
    ("daemon", "scheduler"): "a personal daemon runs a scheduler of its own",
}


def layers() -> list[list[str]]:
    """The rows of the drawing, the top one first."""
    rows = re.findall(r"^    (\w+(?:  \w+)*)   ", pantala.__doc__ or "", re.MULTILINE)
    return [row.split("  ") for row in rows]


def may_import(by: str, what: str) -> bool:
    """Whether the drawing lets *by* import *what*."""
    if by == "testing":
        return what != "cli"
    if not by:  # what programs use stands at the top, too
        return what in ("client", "errors")
    if by == what or (by, what) in NEIGHBOURS:
        return True
    rows = layers()
    heights = {name: len(rows) - at for at, row in enumerate(rows) for name in row}
    if what not in heights:
        return False
    pure = rows[-1]
    if by in pure and what in pure:  # the row is drawn in the order in which it builds up
        return pure.index(by) < pure.index(what)
    return heights[by] > heights[what]


def own(found: Import) -> str | None:
    """The part of our package that is imported, if it is ours."""
    package, _, rest = found.name.partition(".")
    return rest.split(".")[0] if package == "pantala" else None


def test_the_drawing() -> None:
    """Every part of the package is in it, once, but for the test kit."""
    drawn = [name for row in layers() for name in row]
    parts = {name.split(".")[1] for name in modules() if "." in name} | {"pb"}

    assert layers()[0] == ["cli"]
    assert layers()[-1] == ["core", "wire", "model", "errors"]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == parts - {"testing"}


def test_imports_go_down() -> None:
    """Also those within functions."""
    crossing = [i for i in imports() if own(i) not in (None, i.by, *_constants())]

    assert len(crossing) > 100
    assert [i for i in crossing if not may_import(i.by, own(i) or "")] == []


def _constants() -> set[str]:
    """What the package itself defines, and everybody may use."""
    return {name for name in vars(pantala) if name.isupper() or name == "__version__"}


def test_each_exception_is_used() -> None:
    """Else it would be a permission without need."""
    used = {(i.by, own(i)) for i in imports()}
    assert set(NEIGHBOURS) <= used


def test_one_module_knows_the_metrics_library_of_its_program() -> None:
    """Nobody else."""
    users = {i.module for i in imports() if i.name.split(".")[0] == "prometheus_client"}
    assert users == {"pantala.daemon.metrics", "pantala.scheduler.metrics"}


def test_nothing_is_built_on_the_simulation() -> None:
    """It runs the code of production, which does not know of it."""
    assert {i.by for i in imports() if own(i) == "sim"} <= {"sim"}


def test_the_test_kit_is_for_tests() -> None:
    """Nothing that is installed for use needs pytest."""
    users = {i.by for i in imports() if own(i) == "testing" or i.name.split(".")[0] == "pytest"}
    assert users == {"testing"}
