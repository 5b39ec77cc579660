"""Decisions do no I/O, ask no clock and roll no dice."""

from __future__ import annotations

import ast

import pytest

from pantala.testing.imports import Import, imports, modules

PURE = ("core", "wire", "model", "errors")

#: Top-level packages that wait, look at the world, or keep things.
WORLDLY = {
    *("asyncio", "concurrent", "multiprocessing", "selectors", "signal", "subprocess", "threading"),
    *("grpc", "http", "socket", "ssl", "urllib3"),
    *("datetime", "secrets", "time", "uuid"),
    *("mmap", "os", "pathlib", "shutil", "sqlite3", "tempfile"),
    *("structlog", "logging", "prometheus_client"),
}

PURE_MODULES = [name for name in modules() if name.split(".")[1:2] in [[part] for part in PURE]]


def test_there_are_pure_modules() -> None:
    """So that the tests below speak of something."""
    assert {f"pantala.{part}" for part in PURE} <= set(PURE_MODULES)
    assert len(PURE_MODULES) > 20


def test_pure_modules_import_nothing_worldly() -> None:
    """Not even inside a function."""
    found = list(imports(*PURE))
    assert len(found) > 50
    assert [i for i in found if i.name.split(".")[0] in WORLDLY] == []


def test_chance_is_an_argument() -> None:
    """``random`` is imported for the type of an argument, and for nothing else."""
    users = {i.module for i in imports(*PURE) if i.name.split(".")[0] == "random"}
    assert "pantala.core.transfer.picking" in users
    assert [i for i in imports(*PURE) if _is_dice(i)] == []
    for module in users:
        tree = ast.parse(modules()[module].read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "random"
        }
        assert used <= {"Random"}, module


def _is_dice(found: Import) -> bool:
    return found.name.startswith("random.") and found.name != "random.Random"


def test_nobody_makes_his_own_dice() -> None:
    """A generator comes from outside, seeded there."""
    for module in PURE_MODULES:
        for node in ast.walk(ast.parse(modules()[module].read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"random.Random", "Random"}, module


@pytest.mark.parametrize("module", PURE_MODULES)
def test_nothing_pure_is_asynchronous(module: str) -> None:
    """Nor opens files, nor prints."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"open", "print", "input"}
