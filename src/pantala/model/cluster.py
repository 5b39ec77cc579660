"""What those who run a cluster want of it, as a scheduler learns it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .task import Kind

#: What a host does with a task.
Use = Literal["download", "upload"]


@dataclass(frozen=True, slots=True)
class UrlPriority:
    """The priority of those tasks of an application whose URLs fit.

    Attributes:
        regex: Is found anywhere in the URL, unless it says otherwise.
        value: 0 to 6.
    """

    regex: str
    value: int


@dataclass(frozen=True, slots=True)
class Application:
    """Downloads of one name, and how much they matter.

    Attributes:
        name: As downloads give it.
        id: By which a manager knows it; 0: none does.
        url, bio: For people.
        priority: 0 to 6, where no URL of *urls* fits.
        urls: The first that fits counts.
    """

    name: str
    id: int = 0
    url: str = ""
    bio: str = ""
    priority: int = 0
    urls: tuple[UrlPriority, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockRules:
    """What a host is not to do; one thing that fits is enough.

    Attributes:
        urls: Regular expressions, found anywhere in a URL.
        priorities: 0 to 6, as a download gives them.
    """

    applications: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostWishes:
    """What is wanted of hosts of one sort.

    Attributes:
        load_limit: Children that each may have at once; None: that is not said.
        blocked: What they are not to do, with which kind of task. It is for daemons: a scheduler
            only keeps it.
    """

    load_limit: int | None = None
    blocked: Mapping[tuple[Kind, Use], BlockRules] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterWishes:
    """All of it. None: that is not said, and the scheduler's own settings count.

    Attributes:
        applications: Of two with the same name, the first counts.
        candidate_parent_limit: Parents that a peer is given, 1 to 20.
        filter_parent_limit: Parents that are compared, 10 to 1000.
        job_rate_limit: Jobs that may begin in a second.
        hosts: Of normal hosts.
        seeds: Of seeds.
    """

    applications: tuple[Application, ...] = ()
    candidate_parent_limit: int | None = None
    filter_parent_limit: int | None = None
    job_rate_limit: int | None = None
    hosts: HostWishes = field(default_factory=HostWishes)
    seeds: HostWishes = field(default_factory=HostWishes)
