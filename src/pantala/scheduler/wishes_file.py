"""What is wanted of a cluster, from a file that is read again and again: a local dynconfig."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from pantala.model.cluster import ClusterWishes
from pantala.settings import if_present
from pantala.yaml_file import read_yaml

from .wishes import read_wishes

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Sections that are a daemon's, whose dynconfig may be the same file.
_DAEMONS: Final = frozenset({"scheduler", "clientConfig", "seedClientConfig"})


class WishesFile:
    """One file. See :class:`~pantala.ports.ClusterSource`.

    Args:
        path: Where it lies.
        asked_for: It must be there. If not, nothing is wanted until it comes to be; from then on it
            is expected.

    Attributes:
        path: As given.
    """

    def __init__(self, path: Path, *, asked_for: bool) -> None:
        self.path = path
        self._expected = asked_for
        #: What has been logged of keys.
        self._told: dict[str, tuple[str, ...]] = {}

    async def read(self) -> ClusterWishes:
        """See :class:`~pantala.ports.ClusterSource`. Raises ConfigError."""
        wishes, foreign, unknown = await asyncio.to_thread(self.load)
        if self._is_new("foreign", foreign):
            logger.warning("dynconfig keys without effect", keys=list(foreign), file=str(self.path))
        if self._is_new("unknown", unknown):
            logger.warning("unknown dynconfig keys", keys=list(unknown), file=str(self.path))
        return wishes

    def load(self) -> tuple[ClusterWishes, tuple[str, ...], tuple[str, ...]]:
        """What it says now, the keys that are a daemon's, and those that nobody knows.

        Raises:
            ConfigError: It is missing, or makes no sense. One line for each thing that is wrong.
        """
        if not self._expected and if_present(self.path) is None:
            return ClusterWishes(), (), ()
        self._expected = True
        wishes, odd = read_wishes(read_yaml(self.path), str(self.path))
        foreign = tuple(key for key in odd if key in _DAEMONS)
        return wishes, foreign, tuple(key for key in odd if key not in _DAEMONS)

    def _is_new(self, what: str, keys: tuple[str, ...]) -> bool:
        """Whether that is to be told of *keys*."""
        before, self._told[what] = self._told.get(what), keys
        return bool(keys) and keys != before
