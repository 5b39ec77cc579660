"""What is wanted of a cluster, as it is written: in a file, or by a manager.

Both have the same tree. A file's keys are camelCase, those of a manager's JSON snake_case; either
may be used anywhere.

    applications:                       # of a manager, what ListApplications answers
      - name: training
        priority: {value: 3, urls: [{regex: "/private/", value: 1}]}
    schedulerClusterConfig:             # scheduler_cluster.config
      {candidateParentLimit: 4, filterParentLimit: 20, jobRateLimit: 10}
    schedulerClusterClientConfig:       # scheduler_cluster.client_config
      {loadLimit: 50, blockList: {task: {download: {tags: [scratch]}}}}
    seedPeerClusterConfig:              # config of the cluster of the first seed
      {loadLimit: 300, blockList: {}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeGuard, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from pantala.core.blocking import read as read_block_lists
from pantala.errors import ConfigError
from pantala.model.cluster import Application, ClusterWishes, UrlPriority
from pantala.model.task import PRIORITIES
from pantala.settings import Count, Settings


def _level(value: object) -> object:
    """A priority may be called by its name, as the contract has it."""
    if isinstance(value, str) and value[:5] == "LEVEL" and value[5:].isdecimal():
        return int(value[5:])
    return value


def _unset(value: object) -> object:
    """A limit of 0 is none: so Dragonfly writes one that nobody has set."""
    return None if value == 0 and value is not False else value


_Priority = Annotated[
    int, BeforeValidator(_level), Field(strict=True, ge=PRIORITIES[0], le=PRIORITIES[-1])
]


class _Url(Settings):
    regex: Annotated[str, Field(min_length=1)]
    value: _Priority = 0


class _Priorities(Settings):
    value: _Priority = 0
    urls: tuple[_Url, ...] = ()


class _Application(Settings):
    name: Annotated[str, Field(min_length=1)]
    id: Annotated[int, Field(ge=0)] = 0
    url: str = ""
    bio: str = ""
    priority: _Priorities = Field(default_factory=_Priorities)


def _checked(block_list: object) -> object:
    """It is for daemons, which read it themselves; that it makes sense is found out here, too."""
    read_block_lists({"block_list": block_list})
    return block_list


_BlockLists = Annotated[object, AfterValidator(_checked)]


class _Scheduling(Settings):
    candidate_parent_limit: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=20)] | None, BeforeValidator(_unset)
    ] = None
    filter_parent_limit: Annotated[
        Annotated[int, Field(strict=True, ge=10, le=1000)] | None, BeforeValidator(_unset)
    ] = None
    job_rate_limit: Annotated[Count | None, BeforeValidator(_unset)] = None


class _Clients(Settings):
    load_limit: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=2000)] | None, BeforeValidator(_unset)
    ] = None
    block_list: _BlockLists = None


class _Seeds(Settings):
    load_limit: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=50000)] | None, BeforeValidator(_unset)
    ] = None
    block_list: _BlockLists = None


class _Tree(Settings):
    applications: tuple[_Application, ...] = ()
    scheduler_cluster_config: _Scheduling = Field(default_factory=_Scheduling)
    scheduler_cluster_client_config: _Clients = Field(default_factory=_Clients)
    seed_peer_cluster_config: _Seeds = Field(default_factory=_Seeds)


def read_wishes(tree: Mapping[Any, Any], source: str) -> tuple[ClusterWishes, tuple[str, ...]]:
    """What is wanted, and the keys that nobody knows.

    Args:
        tree: As YAML or JSON have it. A null is as good as no key.
        source: Where it is from, for messages.

    Raises:
        ConfigError: One line for each thing that is wrong, naming source, key and value.
    """
    unknown: list[str] = []
    known = _spelt(tree, _Tree, source, "", unknown)
    try:
        read = _Tree.model_validate(known)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        raise ConfigError("\n".join(f"{source}: {_words(each)}" for each in errors)) from None
    scheduling = read.scheduler_cluster_config
    wishes = ClusterWishes(
        applications=tuple(map(_application, read.applications)),
        candidate_parent_limit=scheduling.candidate_parent_limit,
        filter_parent_limit=scheduling.filter_parent_limit,
        job_rate_limit=scheduling.job_rate_limit,
        load_limit=read.scheduler_cluster_client_config.load_limit,
        seed_load_limit=read.seed_peer_cluster_config.load_limit,
    )
    return wishes, tuple(unknown)


def _application(read: _Application) -> Application:
    urls = tuple(UrlPriority(each.regex, each.value) for each in read.priority.urls)
    return Application(read.name, read.id, read.url, read.bio, read.priority.value, urls)


def _spelt(
    tree: Mapping[Any, Any],
    model: type[Settings],
    source: str,
    prefix: str,
    unknown: list[str],
) -> dict[str, Any]:
    """*tree* with its keys spelt as *model* does, and without those that it does not know."""
    fields = {
        (info.alias or name).lower(): (info.alias or name, info.annotation)
        for name, info in model.model_fields.items()
    }
    spelt: dict[str, Any] = {}
    for name, value in tree.items():
        found = fields.get(str(name).replace("_", "").lower())
        if found is None:
            unknown.append(f"{prefix}{name}")
            continue
        key, annotation = found
        if key in spelt:
            raise ConfigError(f"{source}: key {prefix}{key} appears twice, once as {name}")
        if value is not None:
            spelt[key] = _below(value, annotation, source, f"{prefix}{key}", unknown)
    return spelt


def _below(value: Any, annotation: Any, source: str, key: str, unknown: list[str]) -> Any:
    """The value of a key: a section, a list of such, or anything else, which stays as it is."""
    if _is_section(annotation) and isinstance(value, Mapping):
        return _spelt(value, annotation, source, f"{key}.", unknown)
    item = next(iter(get_args(annotation)), None)
    if _is_section(item) and isinstance(value, list):
        return [
            _spelt(each, item, source, f"{key}[{n}].", unknown)
            if isinstance(each, Mapping)
            else each
            for n, each in enumerate(value)
        ]
    return value


def _is_section(annotation: Any) -> TypeGuard[type[Settings]]:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _words(error: ErrorDetails) -> str:
    """What is wrong, and where."""
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    words = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if error["type"] == "tuple_type":
        words = "expected a list"
    elif error["type"] == "model_type":
        words = "expected a section, that is, keys of its own"
    elif error["type"] == "missing":
        words = "is missing"
    shown = isinstance(error["input"], str | int | float)
    return f"{key} = {error['input']!r:.100}: {words}" if shown else f"{key}: {words}"
