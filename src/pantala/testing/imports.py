"""What the modules of the package import, read from their sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pantala

ROOT = Path(pantala.__file__).parent


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports: ``a.b`` for ``import a.b`` and for ``from a import b``."""

    module: str
    name: str
    line: int

    @property
    def by(self) -> str:
        """The part of the package that imports: ``daemon``, ``ports``."""
        return part_of(self.module)


def part_of(module: str) -> str:
    """The part of the package that *module* belongs to; ``""`` for the package itself."""
    return f"{module}..".split(".")[1]


def modules() -> dict[str, Path]:
    """Every module that is not generated, by its full name; packages too."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        if parts[1] != "pb":
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(*parts: str) -> Iterator[Import]:
    """All imports of these parts of the package, those within functions included; () is all."""
    for module, path in modules().items():
        if parts and part_of(module) not in parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(module, path, node)
                for alias in node.names:
                    yield Import(module, f"{base}.{alias.name}", node.lineno)


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    up = package.split(".")
    up = up[: len(up) - node.level + 1]
    return ".".join([*up, node.module] if node.module else up)
