"""What those who run a cluster want of it, as a scheduler learns it while it runs."""

from __future__ import annotations

from dataclasses import dataclass


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
class ClusterWishes:
    """All of it. None: that is not said, and the scheduler's own settings count.

    Attributes:
        applications: Of two with the same name, the first counts.
        candidate_parent_limit: Parents that a peer is given, 1 to 20.
        filter_parent_limit: Parents that are compared, 10 to 1000.
        job_rate_limit: Jobs that may begin in a second.
        load_limit: Children that a normal host may have at once.
        seed_load_limit: Likewise a seed.
    """

    applications: tuple[Application, ...] = ()
    candidate_parent_limit: int | None = None
    filter_parent_limit: int | None = None
    job_rate_limit: int | None = None
    load_limit: int | None = None
    seed_load_limit: int | None = None
