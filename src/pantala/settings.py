"""Settings in YAML files: what they may say, and good words for what they may not.

A program describes its settings once, as a :class:`Catalogue`: a model of the keys that mean
something, the keys that are accepted without effect (so that a file written for Dragonfly
loads), and those that are refused, with the reason. :func:`read_settings` reads a file against
it and finds all that is wrong in one go. In a file, keys may differ from the catalogue's in case,
and empty text is as good as no key: Dragonfly's charts write both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)
from pydantic_core import ErrorDetails

from .errors import ConfigError, UsageError
from .model.addresses import manager_address, split_address, spread
from .model.units import parse_duration, parse_size
from .yaml_file import read_yaml

#: Parts of keys that camelCase leaves in capitals, as Dragonfly writes them.
_CAPITALS: Final = {"dns": "DNS", "id": "ID", "ip": "IP", "ipv6": "IPv6", "ttl": "TTL"}

#: How alike two keys must be for one to be suggested instead of the other; 1 is equal.
_ALIKE: Final = 0.6

#: What pydantic calls what YAML has other words for, by the type of the error.
_WORDS: Final = {
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
}

#: Seconds. Waits longer than this overflow the clocks of the operating system.
_CENTURY: Final = 100 * 365 * 24 * 3600


def camel(name: str) -> str:
    """The YAML key of a Python name.

    >>> camel("cache_task_ttl"), camel("ip")
    ('cacheTaskTTL', 'ip')
    """
    first, *rest = name.split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in rest)


class Settings(BaseModel):
    """Base of a section: immutable, camelCase in YAML, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=camel)


class Root(Settings):
    """Base of all the settings of a program, as :func:`read_settings` makes them."""

    _ignored: tuple[str, ...] = PrivateAttr(())
    _unknown: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys that were set but have no effect, sorted, to be logged once."""
        return self._ignored

    @property
    def unknown(self) -> tuple[str, ...]:
        """A line for each key that nobody knows, with the one that was probably meant."""
        return self._unknown


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a size such as 64MiB")  # noqa: TRY004  pydantic wants this one
    return parse_size(value)


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("expected a duration with its unit, such as 30s or 1h 30m")  # noqa: TRY004  pydantic wants this one
    return parse_duration(value)


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("expected an IP address") from None


def _address(text: str) -> str:
    split_address(text)
    return text


def _addresses(text: str) -> str:
    spread(text)
    return text


#: Bytes; in YAML a number, or text such as ``64MiB``.
Size = Annotated[int, BeforeValidator(_size)]
#: Bytes a second, above 0; written like a size.
Rate = Annotated[int, BeforeValidator(_size), Field(gt=0)]
#: Seconds, above 0; in YAML text such as ``30s`` or ``1h 30m``.
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=_CENTURY)]
#: A whole number, 1 or more.
Count = Annotated[int, Field(strict=True, ge=1)]
#: A TCP port; 0 lets the system choose.
Port = Annotated[int, Field(strict=True, ge=0, le=65535)]
#: True or false, and no word for it.
Switch = Annotated[bool, Field(strict=True)]
#: An IPv4 or IPv6 address as text, IPv6 without brackets.
Ip = Annotated[str, AfterValidator(_ip)]
#: ``host:port``; the host is a name, an IPv4 address or a bracketed IPv6 address.
Address = Annotated[str, AfterValidator(_address)]
#: The same, or ``host:first-last``: one for each of these ports (:func:`.model.addresses.spread`).
Addresses = Annotated[str, AfterValidator(_addresses)]
#: ``host:port`` of Dragonfly's manager; in YAML also as a URL, ``http://manager:65003``.
ManagerAddress = Annotated[str, AfterValidator(manager_address)]

ModelT = TypeVar("ModelT", bound=Root)


@dataclass(frozen=True)
class Catalogue(Generic[ModelT]):
    """All that a file of settings may say. Keys are dotted, ``storage.server.ip``.

    Attributes:
        model: Keys that mean something.
        ignored: Keys accepted without effect, with whatever lies below them.
        refused: Keys that must not be set, and the sentence that says why.
        secret: Keys whose values messages must not repeat, nor what lies below them.
        aliases: Other names of keys, which a file may use in their place.
    """

    model: type[ModelT]
    ignored: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    secret: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> frozenset[str]:
        """Every key that is known, sections left out."""
        return frozenset(_model_keys(self.model)) | self.ignored | self.refused.keys()


def read_settings(
    catalogue: Catalogue[ModelT],
    path: Path | None,
    overrides: Mapping[str, object] | None = None,
    dependent: Callable[[Callable[[str], object]], Mapping[str, object]] = lambda _: {},
    *,
    flags: Mapping[str, str] | None = None,
    strict: bool = False,
) -> ModelT:
    """Settings from *path* and the command line.

    Args:
        catalogue: What may be said.
        path: A YAML file. None: there is none.
        overrides: Values from the command line by dotted key; they win over the file.
        dependent: Defaults that follow from other keys, by dotted key. It gets a function
            that gives the unchecked value of a key, None if it is not set.
        flags: By the keys of *overrides*, the flags that they come from, for messages.
        strict: An unknown key is an error. If not, the settings tell which there were: a file
            made for a newer Dragonfly, or an older one, must not keep a node from starting.

    Raises:
        ConfigError: The file cannot be read, or says what it must not. One line for each problem.
        UsageError: Flags alone are at fault.
    """
    source = "settings" if path is None else str(path)
    leaves = catalogue.keys()
    names = {key.lower(): key for key in leaves | frozenset(_sections(leaves))}
    names |= {alias.lower(): key for alias, key in catalogue.aliases.items()}
    tree = {} if path is None else _spelt(read_yaml(path), names, leaves, source)
    for key, value in (overrides or {}).items():
        _put(tree, key, value, replace=True)
    for key, value in dependent(partial(_get, tree)).items():
        _put(tree, key, value, replace=False)
    overridden = {key: (flags or {}).get(key, "") for key in overrides or ()}
    return _Reader(catalogue, source, overridden, strict=strict).read(tree)


def if_present(path: Path) -> Path | None:
    """*path*, unless there is no such file. One that cannot be seen counts as there."""
    try:
        return path if path.exists() else None
    except OSError:
        return path  # reading it will say why


def _spelt(
    tree: Mapping[Any, Any],
    names: Mapping[str, str],
    leaves: frozenset[str],
    source: str,
    prefix: str = "",
) -> dict[Any, Any]:
    """*tree* with its keys spelt as the catalogue does, and nothing in place of empty text.

    Args:
        tree: A section of a file.
        names: Keys and sections that are known, by themselves in lower case.
        leaves: Those that are keys. What lies below one is its value, and stays as it is.
        source: Where the tree is from.
        prefix: The section's key, with a dot.

    Raises:
        ConfigError: A key is there in two spellings.
    """
    spelt: dict[Any, Any] = {}
    for name, value in tree.items():
        key = names.get(f"{prefix}{name}".lower(), f"{prefix}{name}")
        last = key.removeprefix(prefix) if isinstance(name, str) else name
        if last in spelt:
            raise ConfigError(f"{source}: key {key} appears twice, once as {prefix}{name}")
        if key in leaves:
            spelt[last] = None if value == "" else value
        elif isinstance(value, Mapping):
            spelt[last] = _spelt(value, names, leaves, source, key + ".")
        else:
            spelt[last] = value
    return spelt


def _get(tree: Mapping[str, Any], dotted: str) -> object:
    """One value; None if it, or a section around it, is not there."""
    value: object = tree
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _put(tree: dict[str, Any], dotted: str, value: object, *, replace: bool) -> None:
    """Set one value. A section that is no mapping stays, to be reported later."""
    *sections, last = dotted.split(".")
    for name in sections:
        below = tree.setdefault(name, {})
        if below is None:
            below = tree[name] = {}
        if not isinstance(below, dict):
            return
        tree = below
    if replace or tree.get(last) is None:
        tree[last] = value


class _Reader(Generic[ModelT]):
    """Reads one tree of settings; collects what is wrong with it.

    Args:
        catalogue: What may be said.
        source: Where the tree is from, for messages.
        overridden: Keys that are not from there, and the flags that they are from, if from any.
        strict: An unknown key is wrong.
    """

    def __init__(
        self,
        catalogue: Catalogue[ModelT],
        source: str,
        overridden: Mapping[str, str],
        *,
        strict: bool,
    ) -> None:
        self._catalogue = catalogue
        self._source = source
        self._overridden = overridden
        self._strict = strict
        self._only_flags = True
        self._leaves = catalogue.keys()
        self._sections = frozenset(_sections(self._leaves))
        self._problems: list[str] = []
        self._without_effect: list[str] = []
        self._unknown: list[str] = []

    def read(self, tree: Mapping[Any, Any]) -> ModelT:
        kept = self._keep(tree, "")
        try:
            settings = self._catalogue.model.model_validate(kept)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_context=False):
                self._report_value(error)
        if self._problems:
            kind = UsageError if self._only_flags else ConfigError
            raise kind("\n".join(self._problems))
        settings._ignored = tuple(sorted(self._without_effect))  # noqa: SLF001  made here
        settings._unknown = tuple(self._unknown)  # noqa: SLF001  made here
        return settings

    def _keep(self, tree: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
        """What the model is to see. In a file a null is as good as no key."""
        kept: dict[str, Any] = {}
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if key not in self._leaves and key not in self._sections:
                self._report_unknown(key)
            elif value is None and key not in self._overridden:
                continue
            elif key in self._catalogue.refused:
                self._report(key, f"{key}: {self._catalogue.refused[key]}")
            elif key in self._catalogue.ignored:
                self._without_effect.append(key)
            elif key in self._leaves:
                kept[name] = value
            elif not isinstance(value, Mapping):
                self._report(key, f"{key}: expected a section, that is, keys of its own")
            elif below := self._keep(value, key + "."):
                kept[name] = below
        return kept

    def _report(self, key: str, words: str) -> None:
        self._only_flags = False
        source = "command line" if key in self._overridden else self._source
        self._problems.append(f"{source}: {words}")

    def _report_unknown(self, key: str) -> None:
        nearest = nearest_key(key, self._leaves | self._sections)
        hint = f"; did you mean {nearest}?" if nearest else ""
        words = f"unknown key {key}{hint}"
        if self._strict:
            self._report(key, words)
        else:
            self._unknown.append(words)

    def _report_value(self, error: ErrorDetails) -> None:
        path = [str(part) for part in error["loc"]]
        key = ".".join(path)
        known = next(
            (k for n in range(len(path), 0, -1) if (k := ".".join(path[:n])) in self._leaves), key
        )
        words = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        words = _WORDS.get(error["type"], words)
        shown = (
            isinstance(error["input"], str | int | float) and known not in self._catalogue.secret
        )
        said = repr(error["input"])[:100] if shown else ""
        if said in words:
            said = ""
        if flag := self._overridden.get(known):
            self._problems.append(f"{flag}: {said}: {words}" if said else f"{flag}: {words}")
            return
        value = f" = {said}" if said else ""
        self._report(known, f"{key}{value}: {words}" if key else words)


def nearest_key(key: str, known: frozenset[str]) -> str | None:
    """The known key that was probably meant; None when none is like it.

    The last part counts for most: it may have been put into the wrong section.
    """

    def likeness(other: str) -> float:
        (section, _, name), (other_section, _, other_name) = (
            k.lower().rpartition(".") for k in (key, other)
        )
        return (
            0.8 * SequenceMatcher(None, name, other_name).ratio()
            + 0.2 * SequenceMatcher(None, section, other_section).ratio()
        )

    best = max(sorted(known), key=likeness, default=None)
    return best if best is not None and likeness(best) >= _ALIKE else None


def _model_keys(model: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            yield from _model_keys(info.annotation, key + ".")
        else:
            yield key


def _sections(keys: frozenset[str]) -> Iterator[str]:
    for key in keys:
        parts = key.split(".")
        for n in range(1, len(parts)):
            yield ".".join(parts[:n])
