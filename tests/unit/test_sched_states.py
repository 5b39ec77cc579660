"""core/sched/states.py: the tables, written out a second time, from Dragonfly's scheduler."""

from __future__ import annotations

import pytest

from pantala.core.fsm import E, Machine, S, Table
from pantala.core.sched.rules import RULES
from pantala.core.sched.states import (
    IMPORTED_PEER,
    IMPORTED_TASK,
    PEER,
    TASK,
    PeerEvent,
    PeerState,
    TaskEvent,
    TaskState,
)
from pantala.errors import InvalidTransition

TASK_ROWS = """
    Download           Pending Succeeded Failed Leave     Running
    DownloadSucceeded  Leave Running Failed               Succeeded
    DownloadFailed     Running                            Failed
    Leave              Pending Running Succeeded Failed   Leave
"""

RECEIVED = "ReceivedEmpty ReceivedNormal"

PEER_ROWS = f"""
    RegisterEmpty         Pending                                             ReceivedEmpty
    RegisterNormal        Pending                                             ReceivedNormal
    Download              {RECEIVED}                                          Running
    DownloadBackToSource  {RECEIVED} Running                                  BackToSource
    DownloadSucceeded     {RECEIVED} Running BackToSource                     Succeeded
    DownloadFailed        Pending {RECEIVED} Running BackToSource Succeeded   Failed
    Leave                 Pending {RECEIVED} Running BackToSource Succeeded Failed   Leave
"""

IMPORTED_TASK_ROWS = """
    Upload             Pending Failed                       Uploading
    DownloadSucceeded  Uploading                            Succeeded
    DownloadFailed     Uploading                            Failed
    Leave              Pending Uploading Succeeded Failed   Leave
"""

GETTING = "ReceivedEmpty ReceivedNormal"

IMPORTED_PEER_ROWS = f"""
    Upload                Pending Failed                                          Uploading
    RegisterEmpty         Pending Failed                                          ReceivedEmpty
    RegisterNormal        Pending Failed                                          ReceivedNormal
    Download              {GETTING}                                               Running
    DownloadSucceeded     {GETTING} Running Uploading                             Succeeded
    DownloadFailed        Pending {GETTING} Running Uploading Succeeded           Failed
    Leave                 Pending {GETTING} Running Uploading Succeeded Failed    Leave
"""

TASKS = [(TASK, TASK_ROWS), (IMPORTED_TASK, IMPORTED_TASK_ROWS)]
PEERS = [(PEER, PEER_ROWS), (IMPORTED_PEER, IMPORTED_PEER_ROWS)]


def _moves(rows: str) -> dict[tuple[str, str], str]:
    moves: dict[tuple[str, str], str] = {}
    for event, *sources, target in (line.split() for line in rows.splitlines() if line.strip()):
        moves |= {(source, event): target for source in sources}
    return moves


def _check(table: Table[S, E], rows: str, state: S, event: E) -> None:
    machine = Machine("it", table, state)
    wanted = _moves(rows).get((state, event))
    if wanted is None:
        with pytest.raises(InvalidTransition):
            machine.fire(event)
        assert machine.state is state
    else:
        assert machine.fire(event) == wanted


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TaskEvent)
@pytest.mark.parametrize(("table", "rows"), TASKS, ids=("downloaded", "imported"))
def test_tasks(
    table: Table[TaskState, TaskEvent], rows: str, state: TaskState, event: TaskEvent
) -> None:
    """Every event in every state: the move that Dragonfly makes, or a refusal."""
    _check(table, rows, state, event)


@pytest.mark.parametrize("state", PeerState)
@pytest.mark.parametrize("event", PeerEvent)
@pytest.mark.parametrize(("table", "rows"), PEERS, ids=("downloaded", "imported"))
def test_peers(
    table: Table[PeerState, PeerEvent], rows: str, state: PeerState, event: PeerEvent
) -> None:
    """Every event in every state: the move that Dragonfly makes, or a refusal."""
    _check(table, rows, state, event)


def test_no_move_leads_out_of_its_table() -> None:
    """Each state that a kind's table leads to has a row in it."""
    for table in (TASK, IMPORTED_TASK, *(rules.tasks for rules in RULES.values())):
        assert {to for moves in table.values() for to in moves.values()} <= set(table)
    for lives in (PEER, IMPORTED_PEER, *(rules.peers for rules in RULES.values())):
        assert {to for moves in lives.values() for to in moves.values()} <= set(lives)


def test_weights_sum_to_one() -> None:
    """So that scores lie between 0 and 1."""
    for rules in RULES.values():
        weights = rules.weights
        total = weights.load + weights.idc + weights.location + weights.host_type
        assert total == pytest.approx(1)
