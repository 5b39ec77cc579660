"""core/sched/records.py: what an import does to the rows of a task."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pantala.core.sched.records import PeerRow, TaskRow, begin_import
from pantala.core.sched.states import PeerEvent, PeerState, TaskEvent, TaskState
from pantala.errors import InvalidTransition, TaskExists
from pantala.model.task import Kind

TASK = TaskRow(
    Kind.PERSISTENT_CACHE,
    "t",
    replicas=2,
    content_length=10,
    piece_length=4,
    ttl=3600.0,
    created_at=100.0,
    updated_at=100.0,
)
PEER = PeerRow(
    Kind.PERSISTENT_CACHE, "p", "t", "h", persistent=True, created_at=100.0, updated_at=100.0
)


def test_an_import_that_goes_well() -> None:
    """Pending, Uploading, Succeeded; the times tell when."""
    begun = begin_import(None, None, TASK, "h")
    assert (begun.state, begun.created_at) == (TaskState.UPLOADING, 100.0)
    done = begun.moved(TaskEvent.SUCCEED, 130.0)
    assert (done.state, done.updated_at, done.expires_at) == (TaskState.SUCCEEDED, 130.0, 3700.0)
    uploading = PEER.moved(PeerEvent.UPLOAD, 100.0)
    assert uploading.state is PeerState.UPLOADING
    assert uploading.moved(PeerEvent.SUCCEED, 130.0).state is PeerState.SUCCEEDED


def test_an_import_that_failed_leaves_the_task_failed() -> None:
    """It can be imported again, by anybody, and is then what the new import says."""
    failed = begin_import(None, None, TASK, "h").moved(TaskEvent.FAIL, 110.0)
    assert failed.state is TaskState.FAILED
    again = begin_import(failed, None, replace(TASK, replicas=5, created_at=120.0), "other")
    assert (again.state, again.replicas, again.created_at) == (TaskState.UPLOADING, 5, 120.0)


def test_what_is_here_is_not_imported_again() -> None:
    """Not even by the same host."""
    done = replace(TASK, state=TaskState.SUCCEEDED)
    for host in ("h", "other"):
        with pytest.raises(TaskExists, match="is here already"):
            begin_import(done, PEER, TASK, host)


def test_two_hosts_do_not_import_one_file_at_once() -> None:
    """The second is told whom to wait for; the same host begins anew."""
    begun = begin_import(None, None, TASK, "h")
    uploader = PEER.moved(PeerEvent.UPLOAD, 100.0)
    with pytest.raises(TaskExists, match="host h imports it now"):
        begin_import(begun, uploader, TASK, "other")
    assert begin_import(begun, uploader, TASK, "h").state is TaskState.UPLOADING


def test_who_imported_is_gone() -> None:
    """Then the next may."""
    begun = begin_import(None, None, TASK, "h")
    assert begin_import(begun, None, TASK, "other").state is TaskState.UPLOADING


def test_downloads_do_not_move_an_imported_task() -> None:
    """There is no such event."""
    with pytest.raises(InvalidTransition):
        replace(TASK, state=TaskState.SUCCEEDED).moved(TaskEvent.DOWNLOAD, 1.0)


def test_pieces() -> None:
    """As many as it takes; of an empty file none."""
    assert TASK.piece_count == 3
    assert replace(TASK, content_length=0).piece_count == 0
