"""YAML files, held to what YAML says, and good words for those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for an empty file.

    Raises:
        ConfigError: It is missing, unreadable, no YAML, no mapping, or says a key twice.
    """
    try:
        tree = yaml.load(path.read_bytes(), _Loader)  # noqa: S506  a SafeLoader
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: {_yaml_problem(exc)}") from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values at the top")
    return tree


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and its library lets through: the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  the library's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_problem(exc: Exception) -> str:
    """One line, without the file's text, which may hold secrets."""
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark
        return f"not YAML{f' at line {mark.line + 1}' if mark else ''}: {exc.problem}"
    return "not YAML: " + ("nested too deeply" if isinstance(exc, RecursionError) else "bad text")
