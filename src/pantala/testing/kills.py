"""Programs that are killed again and again, at random moments, in the midst of what they do.

A daemon is killed, or the scheduler, or both. What must hold whenever they are back: no byte is
wrong, every piece that was told to anybody is there, what was imported is kept by as many as shall,
and no file is left that its daemon does not know. :class:`Kills` says in lines what did not.
"""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from typing import Any, Final

from pantala.model.task import Kind

from .cluster import Cluster, Node, Program, until
from .kill_downloads import Downloads
from .kill_imports import Imports
from .kill_scene import Scene
from .origin import Origin

#: Bytes a second that the daemon may receive, so that a kill finds it at work.
RATE: Final = "8MiB"

#: The daemon that is killed, and those that are not.
VICTIM: Final = "victim"
PEERS: Final = ("peer", "other")

#: Seconds after which somebody is killed at the latest.
_SPAN: Final = 2.0

#: How often the daemon is killed once more while it starts.
_AGAIN: Final = 0.25

#: How often the scheduler is killed, alone or with the daemon.
_SCHEDULER: Final = 0.2

#: Downloads at once.
_DOWNLOADS: Final = 2

#: Seconds that a host may be away before its copies count as lost: some kills end sooner.
_GRACE: Final = "1500ms"


class Kills:
    """See the module.

    Args:
        cluster: With no scheduler yet.
        origin: Where files come from.
        rounds: How often somebody is killed.
        files: How many are downloaded.
        slots: How many are imported at once.
        seed: Of the dice.
    """

    def __init__(
        self,
        cluster: Cluster,
        origin: Origin,
        *,
        rounds: int,
        files: int = 6,
        slots: int = 3,
        seed: int = 1,
    ) -> None:
        cluster.kind = Kind.STANDARD
        self._rounds = rounds
        self._scene = Scene(cluster, seed)
        self._downloads = Downloads(self._scene, origin, victim=VICTIM, files=files)
        self._imports = Imports(self._scene, slots=slots)
        self.done = self._scene.done
        self.histories = self._scene.histories
        #: The longest that a daemon was without its scheduler after both were there, in seconds.
        self.longest_without = 0.0

    @property
    def longest(self) -> float:
        """Seconds until all was true again, at most."""
        return self._imports.longest

    def run(self) -> list[str]:
        """All of it; what did not hold, a line each."""
        scene = self._scene
        scheduler = self._scheduler()
        for name in PEERS:
            self._start(name)
        self._downloads.begin(scene.nodes[PEERS[0]])
        self._start(VICTIM)
        for number in range(1, self._rounds + 1):
            scene.begin_round(number)
            scheduler = self._play(scheduler)
            self._await_scheduler()
            scene.killed.clear()
            scene.note("all are back")
            self._downloads.look()
            self._imports.look()
            self._look_for_orphans()
            self._downloads.tidy()
        self._downloads.end()
        return scene.wrong

    # -- programs ------------------------------------------------------------------------------

    def _scheduler(self, port: int = 0) -> Program:
        directory = self._scene.cluster.directory
        gc = {"hostGCInterval": "200ms", "replicaInterval": "200ms", "replicaGrace": _GRACE}
        settings = {
            "scheduler": {"gc": gc},
            "database": {"sqlite": {"path": str(directory / "scheduler.db")}},
        }
        path = directory / "scheduler.yaml"
        path.write_text(json.dumps(settings))
        return self._scene.cluster.scheduler("--config", str(path), port=port)

    def _start(self, name: str, *, killed_after: float | None = None) -> None:
        data = self._scene.cluster.directory / f"{name}.data"
        config: dict[str, Any] = {
            "scheduler": {"announceInterval": "500ms"},
            "storage": {"dir": str(data), "keep": True},
            "download": {
                "bandwidthLimit": RATE if name == VICTIM else "1GiB",
                "server": {"allowOutputPath": True, "allowImportPath": True},
            },
        }
        node = self._scene.cluster.daemon(name, config=config, wait=killed_after is None)
        if killed_after is not None:
            time.sleep(killed_after)  # the dice say how far it gets
            self._kill(node, "kills of a daemon that starts")
        self._scene.nodes[name] = node

    def _kill(self, program: Program, what: str) -> None:
        program.kill()
        self._scene.note(f"{what}: pid {program.pid}, {program.log_path.name}")
        self.done[what] += 1
        self.done["kills"] += 1

    # -- one round -----------------------------------------------------------------------------

    def _play(self, scheduler: Program) -> Program:
        """Have them do a few things at once, kill one meanwhile, and have it back."""
        scene = self._scene
        works = self._downloads.works(_DOWNLOADS) + self._imports.works()
        threads = [threading.Thread(target=partial(scene.guarded, work)) for work in works]
        for thread in threads:
            thread.start()
        span = scene.random.uniform(0, _SPAN)
        kills_scheduler = scene.random.random() < _SCHEDULER
        kills_daemon = not kills_scheduler or scene.random.random() < 0.5
        scene.note(f"dice: after {span:.3f} s {kills_daemon=}, {kills_scheduler=}")
        scene.sleep(span)  # the moment is what the dice decide
        scene.killed.set()
        if kills_daemon:
            self._kill(scene.nodes[VICTIM], "kills of a daemon")
        if kills_scheduler:
            self._kill(scheduler, "kills of the scheduler")
            scheduler = self._scheduler(int(scheduler.ready["port"]))
        for thread in threads:
            thread.join()
        if kills_daemon:
            if scene.random.random() < _AGAIN:
                self._start(VICTIM, killed_after=scene.random.uniform(0, _SPAN))
            self._start(VICTIM)
        return scheduler

    def _await_scheduler(self) -> None:
        """Wait until each daemon has its scheduler, which for some may have been away."""
        began = time.monotonic()
        for name, node in self._scene.nodes.items():
            try:
                until(partial(self._imports.is_answered, node), f"{name} has its scheduler")
            except TimeoutError as error:
                self._scene.complain(str(error))
        self.longest_without = max(self.longest_without, time.monotonic() - began)

    # -- what must hold ------------------------------------------------------------------------

    def _look_for_orphans(self) -> None:
        for name, node in self._scene.nodes.items():
            try:
                until(partial(self._has_none, node), f"all files of {name} accounted for")
            except TimeoutError:
                self._scene.complain(f"orphans of {name}: {self._orphans(node)}")

    def _has_none(self, node: Node) -> bool:
        return not self._orphans(node)

    @staticmethod
    def _orphans(node: Node) -> list[str]:
        """Files that it does not know; for a moment, those that are just removed."""
        files = [path for path in node.content_dir.rglob("*") if path.is_file()]
        tasks = node.tasks()
        return [str(p.relative_to(node.content_dir)) for p in files if p.name not in tasks]
