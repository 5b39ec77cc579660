"""The lives of a task and of a peer, as the scheduler sees them.

A peer is one attempt of one host at one task. Names of states are those that Dragonfly's
scheduler shows in its answers.

A task is either downloaded, and what moves it is that its peers get it (``TASK``, ``PEER``), or it
is imported: there is nothing to fetch until one host has uploaded all of it (``IMPORTED_TASK``,
``IMPORTED_PEER``). Those who then download an imported task do not move it.

Rule: whatever moves a task or a peer has a row here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pantala.core.fsm import Table


class TaskState(StrEnum):
    """States of a task."""

    PENDING = "Pending"
    RUNNING = "Running"
    UPLOADING = "Uploading"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LEAVE = "Leave"


class TaskEvent(StrEnum):
    """What happens to a task."""

    DOWNLOAD = "Download"
    UPLOAD = "Upload"
    SUCCEED = "DownloadSucceeded"
    FAIL = "DownloadFailed"
    LEAVE = "Leave"


class PeerState(StrEnum):
    """States of a peer."""

    PENDING = "Pending"
    RECEIVED_EMPTY = "ReceivedEmpty"
    RECEIVED_NORMAL = "ReceivedNormal"
    RUNNING = "Running"
    BACK_TO_SOURCE = "BackToSource"
    UPLOADING = "Uploading"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LEAVE = "Leave"


#: In these states a peer may have parents.
MAY_HAVE_PARENTS: Final = frozenset({PeerState.RECEIVED_NORMAL, PeerState.RUNNING})


class PeerEvent(StrEnum):
    """What happens to a peer."""

    REGISTER_EMPTY = "RegisterEmpty"
    REGISTER_NORMAL = "RegisterNormal"
    DOWNLOAD = "Download"
    DOWNLOAD_BACK_TO_SOURCE = "DownloadBackToSource"
    UPLOAD = "Upload"
    SUCCEED = "DownloadSucceeded"
    FAIL = "DownloadFailed"
    LEAVE = "Leave"


_T, _TE = TaskState, TaskEvent

TASK: Final[Table[TaskState, TaskEvent]] = {
    _T.PENDING: {_TE.DOWNLOAD: _T.RUNNING, _TE.LEAVE: _T.LEAVE},
    _T.RUNNING: {_TE.SUCCEED: _T.SUCCEEDED, _TE.FAIL: _T.FAILED, _TE.LEAVE: _T.LEAVE},
    _T.SUCCEEDED: {_TE.DOWNLOAD: _T.RUNNING, _TE.LEAVE: _T.LEAVE},
    _T.FAILED: {_TE.DOWNLOAD: _T.RUNNING, _TE.SUCCEED: _T.SUCCEEDED, _TE.LEAVE: _T.LEAVE},
    _T.LEAVE: {_TE.DOWNLOAD: _T.RUNNING, _TE.SUCCEED: _T.SUCCEEDED},
}

_P, _PE = PeerState, PeerEvent

_ENDS: Final = {_PE.SUCCEED: _P.SUCCEEDED, _PE.FAIL: _P.FAILED, _PE.LEAVE: _P.LEAVE}
_RECEIVED: Final = {
    _PE.DOWNLOAD: _P.RUNNING,
    _PE.DOWNLOAD_BACK_TO_SOURCE: _P.BACK_TO_SOURCE,
    **_ENDS,
}

PEER: Final[Table[PeerState, PeerEvent]] = {
    _P.PENDING: {
        _PE.REGISTER_EMPTY: _P.RECEIVED_EMPTY,
        _PE.REGISTER_NORMAL: _P.RECEIVED_NORMAL,
        _PE.FAIL: _P.FAILED,
        _PE.LEAVE: _P.LEAVE,
    },
    _P.RECEIVED_EMPTY: _RECEIVED,
    _P.RECEIVED_NORMAL: _RECEIVED,
    _P.RUNNING: {_PE.DOWNLOAD_BACK_TO_SOURCE: _P.BACK_TO_SOURCE, **_ENDS},
    _P.BACK_TO_SOURCE: _ENDS,
    # A finished download may still turn out to be wrong.
    _P.SUCCEEDED: {_PE.FAIL: _P.FAILED, _PE.LEAVE: _P.LEAVE},
    _P.FAILED: {_PE.LEAVE: _P.LEAVE},
    _P.LEAVE: {},
}

IMPORTED_TASK: Final[Table[TaskState, TaskEvent]] = {
    _T.PENDING: {_TE.UPLOAD: _T.UPLOADING, _TE.LEAVE: _T.LEAVE},
    _T.UPLOADING: {_TE.SUCCEED: _T.SUCCEEDED, _TE.FAIL: _T.FAILED, _TE.LEAVE: _T.LEAVE},
    _T.SUCCEEDED: {_TE.LEAVE: _T.LEAVE},
    _T.FAILED: {_TE.UPLOAD: _T.UPLOADING, _TE.LEAVE: _T.LEAVE},
    _T.LEAVE: {},
}

_STARTS: Final = {
    _PE.UPLOAD: _P.UPLOADING,
    _PE.REGISTER_EMPTY: _P.RECEIVED_EMPTY,
    _PE.REGISTER_NORMAL: _P.RECEIVED_NORMAL,
}
_GETS: Final = {_PE.DOWNLOAD: _P.RUNNING, **_ENDS}

IMPORTED_PEER: Final[Table[PeerState, PeerEvent]] = {
    _P.PENDING: {**_STARTS, _PE.FAIL: _P.FAILED, _PE.LEAVE: _P.LEAVE},
    _P.UPLOADING: _ENDS,
    _P.RECEIVED_EMPTY: _GETS,
    _P.RECEIVED_NORMAL: _GETS,
    _P.RUNNING: _ENDS,
    # What was held may turn out to be lost.
    _P.SUCCEEDED: {_PE.FAIL: _P.FAILED, _PE.LEAVE: _P.LEAVE},
    _P.FAILED: {**_STARTS, _PE.LEAVE: _P.LEAVE},
    _P.LEAVE: {},
}
