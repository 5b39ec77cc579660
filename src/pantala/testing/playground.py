"""A daemon for the tests of a session, and what each of them gets of it: the plugin's fixture."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pantala.client.blocking import Client
from pantala.client.connection import connect
from pantala.client.dialling import ENDPOINT_VARIABLE
from pantala.client.tasks import LIMIT, Answer
from pantala.errors import NotFound

from .cluster import Cluster
from .content import Content
from .origin import Origin
from .program import Node

#: Of the daemon's memory, and of its disk: what a test needs, and no machine misses.
CAPACITY: Final = "512MiB"

#: Characters that may stand before the names of sockets: all of such a path may have 107.
_LONGEST: Final = 60

#: Kinds of task that a test can leave behind.
_KINDS: Final = ("CACHE", "STANDARD")

#: Proxies of the machine's would stand between the daemon and the origin.
_DIRECT: Final = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


class Swarm:
    """What a test has: a daemon to ask, and an origin for the daemon to ask.

    Args:
        node: The daemon.
        origin: The origin.

    Attributes:
        client: Asks the daemon.
        endpoint: The path of the daemon's socket.
        origin: All that the origin can do: fail, stall, count.
        node: The daemon's process: its log, its metrics.
    """

    def __init__(self, node: Node, origin: Origin) -> None:
        self.node = node
        self.origin = origin
        self.endpoint = str(node.socket)
        self.client = Client(self.endpoint)

    def __repr__(self) -> str:
        return f"<pantala swarm: daemon at {self.endpoint}, origin at {self.url('/')}>"

    def put(
        self, path: str, content: Content | bytes, *, headers: Mapping[str, str] | None = None
    ) -> str:
        """Have the origin serve *content* from now on; its URL.

        Args:
            path: On the origin, such as ``"/model"``.
            content: Bytes, or for instance a :class:`~pantala.testing.content.Pattern`.
            headers: Of its answers, to add or to replace.
        """
        self.origin.put(path, content, headers=headers)
        return self.url(path)

    def url(self, path: str) -> str:
        """The URL of a path on the origin."""
        return self.origin.url(path)

    def origin_bytes(self, path: str | None = None) -> int:
        """How many bytes the origin has sent of a path; None: of all."""
        return self.origin.sent(path)


class Playground:
    """A daemon that is started when it is first needed, and again if a test has ended it.

    A context manager. Each test has an origin of its own, with a port that no test before it had.
    """

    def __init__(self) -> None:
        self._kept = ExitStack()
        self._cluster: Cluster | None = None
        self._node: Node | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kept.close()

    @contextmanager
    def swarm(self) -> Iterator[Swarm]:
        """What one test has; in the end the daemon holds nothing of it."""
        node = self._ready()
        with Origin() as origin, _named(str(node.socket)):
            swarm = Swarm(node, origin)
            with swarm.client:
                yield swarm
                if node.alive:
                    _empty(swarm)

    def _ready(self) -> Node:
        """The daemon, running."""
        if self._cluster is None:
            usual = tempfile.gettempdir()
            where = usual if len(usual) <= _LONGEST else "/tmp"  # noqa: S108  a name of our own in it
            directory = Path(tempfile.mkdtemp(prefix="pp-", dir=where))
            self._kept.callback(shutil.rmtree, directory, ignore_errors=True)
            self._cluster = self._kept.enter_context(Cluster(directory))
            self._cluster.capacity = CAPACITY
        if self._node is None or not self._node.alive:
            self._count += 1
            self._node = self._cluster.daemon(f"daemon{self._count}", env=_DIRECT)
        return self._node


@contextmanager
def _named(endpoint: str) -> Iterator[None]:
    """The variable names it meanwhile."""
    before = os.environ.get(ENDPOINT_VARIABLE)
    os.environ[ENDPOINT_VARIABLE] = endpoint
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ENDPOINT_VARIABLE, None)
        else:
            os.environ[ENDPOINT_VARIABLE] = before


def _empty(swarm: Swarm) -> None:
    """Have the daemon hold nothing. What somebody still looks at stays with them."""
    for kind in _KINDS:
        for task in swarm.client.list(kind):
            request = {"op": "delete", "kind": kind, "task_id": task.id}
            answer, deadline = Answer(task.id), time.monotonic() + LIMIT
            with connect(swarm.endpoint) as connection, suppress(NotFound):
                connection.send(request, deadline=deadline)
                while answer.done is None:
                    answer.on(connection.receive(deadline=deadline) or {})
