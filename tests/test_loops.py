"""What repeats itself in the background is a loop that nothing ends: pantala.background.Loops.

A coroutine with a loop of its own dies of the first exception that nobody thought of, and nobody
notices. So every endless loop, task and thread of the package stands here, with what ends it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pantala.testing.imports import modules

#: Endless loops of coroutines outside of Loops, and what hears of their end.
ENDLESS = {
    "client.asynchronous.AsyncClient._ask": "of one call: until a daemon answers, or there is none",
    "client.fetch_async.AsyncFetch._ask": "of one call, likewise",
    "background.Loops._run": "what runs all others",
    "daemon.downloading.download.Download.with_progress": "of one download, until it has ended",
    "daemon.downloading.driver.Driver._watch": "of one download, which fails with it",
    "daemon.downloading.announcing.Announcing._reappear": "of one download, which fails with it",
    "daemon.downloading.origins.Origins._ask": "of one download: credentials after credentials",
    "daemon.downloading.growing._stream": "of one download: to the content's end",
    "daemon.downloading.room.Room.extend": "of one download: until there is room, or none to come",
    "daemon.importing.importer.Importer._say": "of one import: until its caller's time is over",
    "daemon.sharing.exchange._Task.follow": "of one task: until its last child has left",
    "daemon.serving.handoff_client._send_with": "of one connection: until it takes the frame",
    "rpc.patience.while_busy": "of one call, whose caller learns of it",
    "rpc.parent_link._told.tell": "of one stream, whose reader learns of it",
    "rpc.parent_link._read": "of one call, whose caller learns of it",
    "rpc.server._Steadfast._refuse_unknown": "of one server, which ends with it and is built anew",
    "rpc.announce_stream.GrpcAnnounceStream._send": "of one stream, whose reader learns of it",
    "rpc.announce_stream.GrpcAnnounceStream._read": "of one stream, whose owner learns of it",
    "scheduler.holdings.HoldingService.Tell": "of one stream, which ends with it",
    "scheduler.announce_streams.AnnounceStream._schedule": "of one call, which fails with it",
}

#: Who makes tasks outside of Tasks and Loops, and who awaits them.
TASKS = {
    "client.asynchronous.AsyncClient._each": "a TaskGroup",
    "background.Tasks.start": "their owner",
    "background.Loops.keep": "their owner",
    "daemon.telling.announcer.Announcer.announce_host": "a TaskGroup",
    "daemon.telling.dynconfig.Dynconfig._take": "a TaskGroup",
    "daemon.downloading.download.Download.with_progress": "itself",
    "daemon.downloading.trailing.Trail.beside": "itself",
    "daemon.serving.handoff_server.HandoffServer._accept": "one connection; the server, in stop",
    "daemon.serving.handoff_server.HandoffServer._download": "itself",
    "daemon.serving.kept_connection.KeptConnection._start": "one connection, in its end",
    "daemon.serving.kept_connection.KeptConnection.send": "itself, or its connection's end",
    "net.piece_server.PieceServer._accept": "one connection; the server, in stop",
    "rpc.announce_stream.GrpcAnnounceStream.run": "itself",
    "scheduler.turns.in_turns": "a TaskGroup",
    "rpc.parent_link._told": "itself",
    "rpc.server._Steadfast._make_request_call_future": "grpcio's loop",
    "rpc.server.Supervised._end_of": "itself",
}

#: Who starts threads that are of no executor.
THREADS = {
    "daemon.host.threads.Workers._start_thread": "works; nothing that a job raises ends it",
    "scheduler.workers.Place.end_with_parent": "waits for one thing, and ends the process then",
    "storage.sqlite_journal.SqliteJournal.load": "writes; no entry that fails ends it",
}

_MAKERS = {"create_task", "ensure_future"}
_STARTERS = {"Thread", "start_http_server", "Timer"}


def _scopes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of our sources, with the function that it stands in."""
    for module, path in modules().items():
        if not module.startswith("pantala.testing"):
            name = module.removeprefix("pantala.").removeprefix("pantala")
            yield from _within(name, ast.parse(path.read_text()))


def _within(scope: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        inner = f"{scope}.{child.name}" if named else scope  # type: ignore[attr-defined]  # just asked
        yield inner, child
        yield from _within(inner, child)


def _is_endless(node: ast.AST) -> bool:
    return isinstance(node, ast.While) and isinstance(node.test, ast.Constant)


def _calls(node: ast.AST, names: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func).rpartition(".")[2] in names


def test_every_endless_loop_is_known() -> None:
    """A new one belongs into Loops, or ends with something whose failure somebody hears of."""
    coroutines = {name for name, node in _scopes() if isinstance(node, ast.AsyncFunctionDef)}
    endless = {scope for scope, node in _scopes() if _is_endless(node)}
    assert endless & coroutines == set(ENDLESS)


def test_every_task_has_an_owner() -> None:
    """A new one belongs into Tasks or Loops."""
    assert {scope for scope, node in _scopes() if _calls(node, _MAKERS)} == set(TASKS)


def test_every_thread_is_known() -> None:
    """Others are of executors, which replace a thread that ended."""
    assert {scope for scope, node in _scopes() if _calls(node, _STARTERS)} == set(THREADS)


def test_nothing_rearms_itself() -> None:
    """A chain of timers would end with the first link that raises."""
    timers = {"call_later", "call_at"}
    assert [scope for scope, node in _scopes() if _calls(node, timers)] == []
