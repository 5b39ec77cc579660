"""Imports, exports and replicas while daemons and their scheduler are killed; what must hold then.

A :class:`Slot` is a name by which files are imported, one after the other, so that who was away
meanwhile comes back with content that is not the task's any more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from pantala.model.pieces import piece_count, piece_length_for
from pantala.model.task import Kind
from pantala.rpc.daemon_dialects import daemon_dialect

from .cluster import PATIENCE, Got, Node, until
from .content import Pattern
from .kill_scene import Scene

#: Contents have up to so many bytes: an import takes long enough for a kill to find it at work.
LARGEST: Final = 64 << 20

_KIND: Final = Kind.PERSISTENT_CACHE

#: Seconds until all replicas are there again: a host that was killed while it fetched one is left
#: alone for twice as long each time, from five seconds on.
_RESTORED: Final = 4 * PATIENCE

#: Of those who have the choice, so many export rather than remove something.
_EXPORTS: Final = 0.6


#: The id of a task that nobody imports.
_NOBODYS: Final = "0" * 64


class State(Enum):
    """Where the task of a slot has got to, for all that we were told."""

    ABSENT = "absent"
    THERE = "there"
    UNSURE = "unsure"  # a call of ours was broken off that would have changed it


@dataclass
class Slot:
    """One name.

    Attributes:
        path: The file that is imported.
        content: What was imported last.
        replicas: So many hosts shall keep it.
        imported: How often something was.
    """

    name: str
    path: Path
    content: Pattern = field(default_factory=lambda: Pattern(0))
    replicas: int = 1
    imported: int = 0
    state: State = State.ABSENT

    @property
    def task_id(self) -> str:
        """Of the task that its files are, one after the other."""
        return hashlib.sha256(self.name.encode()).hexdigest()


class Imports:
    """All of them.

    Args:
        scene: Where.
        slots: How many names there are.
    """

    def __init__(self, scene: Scene, *, slots: int) -> None:
        self._scene = scene
        self._dialect = daemon_dialect(_KIND)
        directory = scene.cluster.directory
        self._slots = [Slot(f"slot {n}", directory / f"file.{n}") for n in range(slots)]
        #: The longest that it took until something was true again, in seconds.
        self.longest = 0.0

    def works(self) -> list[Callable[[], None]]:
        """What may be done at once: with each slot one thing after the other."""
        return [partial(self._work, slot) for slot in self._slots]

    def _work(self, slot: Slot) -> None:
        while not self._scene.killed.is_set():
            if slot.state is State.ABSENT:
                self._import(slot)
            elif slot.state is State.UNSURE:
                return
            elif self._scene.random.random() < _EXPORTS:
                self._export(slot, self._scene.any_node())
            elif slot.replicas > 1 and self._scene.random.random() < 0.5:
                self._remove_copy(slot)
            else:
                self._remove(slot)

    # -- what is done --------------------------------------------------------------------------

    def _import(self, slot: Slot) -> None:
        scene, random = self._scene, self._scene.random
        number = int(slot.task_id[:8], 16) + scene.seed + slot.imported
        slot.content = Pattern(random.randint(1, LARGEST), seed=number % (1 << 31))
        slot.replicas = random.randint(1, len(scene.nodes))
        slot.imported += 1
        slot.path.write_bytes(slot.content.read())
        slot.state = State.UNSURE
        node = scene.any_node()
        scene.note(
            f"import of {slot.name} at {node.name}: {slot.content.size} bytes for {slot.replicas}"
        )
        got = self._dfcache(
            node,
            *("import", str(slot.path), "--content-for-calculating-task-id", slot.name),
            *("--persistent-replica-count", str(slot.replicas)),
        )
        if got.code == 0:
            scene.done["imports"] += 1
            scene.note(f"imported {slot.name}")
            slot.state = State.THERE
        else:
            scene.broke_off(f"import of {slot.name}", got.stderr.strip())

    def _export(self, slot: Slot, node: Node) -> None:
        scene = self._scene
        output = scene.cluster.directory / f"exported.{slot.task_id[:8]}"
        flags = ("--transfer-from-dfdaemon",) if scene.random.random() < 0.3 else ()
        scene.note(f"export of {slot.name} at {node.name} {' '.join(flags)}")
        got = self._dfcache(node, "export", slot.task_id, "-O", str(output), *flags)
        if got.code == 0:
            scene.done["exports"] += 1
            if got.bytes() != slot.content.read():
                scene.complain(f"wrong bytes of {slot.name} in an output")
            output.unlink()
        else:
            scene.broke_off(f"export of {slot.name}", got.stderr.strip())
        if left := got.left:
            scene.complain(f"an export of {slot.name} has left {left}")

    def _remove(self, slot: Slot) -> None:
        """From everywhere."""
        slot.state = State.UNSURE
        node = self._scene.any_node()
        self._scene.note(f"removal of {slot.name} from everywhere, at {node.name}")
        got = self._dfctl(node, "rm", "--swarm", slot.task_id)
        if got.code == 0:
            self._scene.done["removals"] += 1
            slot.state = State.ABSENT
        else:
            self._scene.broke_off(f"removal of {slot.name}", got.stderr.strip())

    def _remove_copy(self, slot: Slot) -> None:
        """From one host, if others have a copy."""
        kept = self._keepers(slot)
        if len(kept) > 1:
            node = self._scene.random.choice(list(kept.values()))
            self._scene.note(f"removal of the copy of {slot.name} from {node.name}")
            got = self._dfctl(node, "rm", slot.task_id)
            if got.code == 0:
                self._scene.done["removals of a copy"] += 1
            elif "not found" not in got.stderr:
                self._scene.broke_off(f"removal of a copy of {slot.name}", got.stderr.strip())

    def _dfcache(self, node: Node, *arguments: str) -> Got:
        return self._scene.cluster.command("dfcache", node, *arguments)

    def _dfctl(self, node: Node, *arguments: str) -> Got:
        return self._scene.cluster.command("dfctl", node, "persistent-cache-task", *arguments)

    # -- what must hold ------------------------------------------------------------------------

    def look(self) -> None:
        """What was imported is there, and kept by as many as shall; nobody keeps anything else."""
        began = time.monotonic()
        for slot in self._slots:
            self._settle(slot)
            self._await(slot, self._trouble if slot.state is State.THERE else self._excess)
        seconds = time.monotonic() - began
        self._scene.note(f"all is true again after {seconds:.1f} s")
        self.longest = max(self.longest, seconds)
        for slot in self._slots:
            if slot.state is State.THERE:
                self._look_at(slot)

    def is_answered(self, node: Node) -> bool:
        """Whether *node* has a scheduler that it can ask."""
        try:
            self._ask(node, "Stat{}Task", _NOBODYS)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.NOT_FOUND)
        return True

    def _settle(self, slot: Slot) -> None:
        """Learn what has come of what was under way."""
        was = slot.state
        try:
            state = until(partial(self._state, slot), f"an end of the import of {slot.name}")
        except TimeoutError as error:
            self._scene.complain(str(error))
            return
        slot.state = State.THERE if state == "Succeeded" else State.ABSENT
        if state == "Failed":
            self._scene.done["imports that came to nothing"] += 1
        self._scene.note(f"{slot.name}: {slot.task_id} was {was.value}, is {state}")
        if was not in (slot.state, State.UNSURE):
            self._scene.complain(f"{slot.name} was {was.value}, and is {state}")

    def _state(self, slot: Slot) -> str | None:
        """What the cluster says of it; None: that it is on its way."""
        try:
            state = str(self._ask(self._scene.any_node(), "Stat{}Task", slot.task_id).state)
        except grpc.RpcError as error:
            return "unknown" if error.code() is grpc.StatusCode.NOT_FOUND else None
        return None if state == "Uploading" else state

    def _trouble(self, slot: Slot) -> str:
        """What is not as it shall be; ``""``: as many hosts keep it, and the scheduler is right."""
        try:
            told = self._ask(self._scene.any_node(), "Stat{}Task", slot.task_id)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        kept, here = sorted(self._keepers(slot)), sorted(self._having(slot, kept=False))
        counted, held = told.current_persistent_replica_count, told.current_replica_count
        if counted == len(kept) >= slot.replicas and held <= len(here):
            return ""
        return (
            f"{slot.replicas} replicas wanted, {counted} counted, kept by {kept}; "
            f"{held} copies counted, had by {here}"
        )

    def _excess(self, slot: Slot) -> str:
        """Who keeps what is no more; ``""``: nobody."""
        return ", ".join(self._having(slot))

    def _look_at(self, slot: Slot) -> None:
        self._export(slot, self._scene.any_node())
        pieces = piece_count(slot.content.size, piece_length_for(slot.content.size))
        for node in self._keepers(slot).values():
            number = self._scene.random.randrange(pieces)
            self._scene.look_at_piece(node, _KIND, slot.task_id, number, slot.content)

    def _keepers(self, slot: Slot) -> Mapping[str, Node]:
        """Daemons that keep all of it, by name."""
        return self._having(slot, kept=True, whole=True)

    def _having(
        self, slot: Slot, *, kept: bool = True, whole: bool | None = None
    ) -> Mapping[str, Node]:
        """Daemons that have it, by name: *kept* as a replica, or in any case."""
        found = {}
        for name, node in self._scene.nodes.items():
            task = self._local(node, slot.task_id)
            if task is None or (kept and not task.persistent):
                continue
            if task.HasField("finished_at") or not whole:
                found[name] = node
        return found

    def _local(self, node: Node, task_id: str) -> Any:
        """What *node* says of a task that it has; None: it has nothing."""
        try:
            return self._ask(node, "StatLocal{}Task", task_id)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                self._scene.rpc_broke_off(f"task {task_id} of {node.name}", error)
            return None

    def _ask(self, node: Node, method: str, task_id: str) -> Any:
        """What *node* answers to the method of that name for a task. Raises grpc.RpcError."""
        with node.channel() as channel:
            call = getattr(node.download_stub(channel), self._dialect.name(method))
            request = self._dialect.message(f"{method}Request")(task_id=task_id)
            return call(request, timeout=PATIENCE)

    def _await(self, slot: Slot, trouble: Callable[[Slot], str]) -> None:
        """Wait until there is none."""
        try:
            until(lambda: not trouble(slot), "well", _RESTORED)
        except TimeoutError:
            self._scene.complain(f"{slot.name} ({slot.state.value}): {trouble(slot)}")
