"""The map is in the tree: each package's docstring names its modules, and no others."""

from __future__ import annotations

import ast
import re

import pytest

from pantala.testing.imports import modules

PACKAGES = [name for name, path in modules().items() if path.name == "__init__.py"]


def docstring(name: str) -> str:
    """What stands at the top of a module."""
    return ast.get_docstring(ast.parse(modules()[name].read_text())) or ""


@pytest.mark.parametrize("name", modules())
def test_each_module_says_what_it_is(name: str) -> None:
    """At its top, in a sentence."""
    assert re.match(r"[^\n]+[.:]", docstring(name)), name


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"pantala"}))
def test_each_package_names_its_modules(package: str) -> None:
    """All and only."""
    inside = {
        name.removeprefix(f"{package}.").split(".")[0]
        for name in modules()
        if name.startswith(f"{package}.")
    }
    text = docstring(package)
    named = set(re.findall(r":mod:`\.(\w+)`", text)) | set(
        re.findall(r"^(\w+) {2,}\w", text, re.MULTILINE)
    )

    assert inside
    assert named == inside
