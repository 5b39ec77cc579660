"""YAML files, held to what YAML says, and good words for those that are none."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

import yaml

from .errors import ConfigError
from .model.units import byte_count

#: Bytes of a file. A mebibyte takes some four seconds.
_LARGEST: Final = 4 << 20

#: Values in a file, those that an alias stands for counted each time: a few lines of aliases of
#: aliases stand for more than there is memory.
_MOST_VALUES: Final = 1_000_000


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for an empty file.

    Raises:
        ConfigError: It is missing, unreadable, too large, no YAML, no mapping, or says a key twice.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            text = file.read(_LARGEST + 1)
            if not text and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: a pipe, and nobody writes into it")
        if len(text) > _LARGEST:
            raise ConfigError(f"{path}: larger than {byte_count(_LARGEST)}")
        tree = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: {_yaml_problem(exc)}") from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values at the top")
    return tree


def _open(path: str, flags: int) -> int:
    """Open a file, and wait for nobody who might write into it: that could be for ever."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    return fd


class _TooMuch(ValueError):
    """Aliases have no end, or none in sight; the words have nothing of the file's text."""


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and its library lets through: the same key twice.

    And aliases that stand for too much, or for what they are part of.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _count(node, {}) > _MOST_VALUES:
            raise _TooMuch(f"more than {_MOST_VALUES} values, with those that aliases stand for")
        return node

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


def _count(node: yaml.Node, counted: dict[yaml.Node, int]) -> int:
    """Values in *node*, each as often as it is named.

    Raises:
        _TooMuch: It is a part of itself.
    """
    known = counted.get(node)
    if known is None:
        counted[node] = -1
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for each in below for part in (each if isinstance(each, tuple) else (each,)))
        known = counted[node] = 1 + sum(_count(part, counted) for part in parts)
    if known < 0:
        raise _TooMuch("an alias stands for what it is a part of")
    return known


def _yaml_problem(exc: Exception) -> str:
    """One line, without the file's text, which may hold secrets."""
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark
        return f"not YAML{f' at line {mark.line + 1}' if mark else ''}: {exc.problem}"
    if isinstance(exc, _TooMuch):
        return str(exc)
    return "not YAML: " + ("nested too deeply" if isinstance(exc, RecursionError) else "bad text")
