"""core/sched/states.py: the tables, written out a second time, from Dragonfly's scheduler."""

from __future__ import annotations

import pytest

from pantala.core.fsm import Machine
from pantala.core.sched.rules import RULES
from pantala.core.sched.states import (
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

RECEIVED = "ReceivedEmpty ReceivedTiny ReceivedSmall ReceivedNormal"

PEER_ROWS = f"""
    RegisterEmpty         Pending                                             ReceivedEmpty
    RegisterTiny          Pending                                             ReceivedTiny
    RegisterSmall         Pending                                             ReceivedSmall
    RegisterNormal        Pending                                             ReceivedNormal
    Download              {RECEIVED}                                          Running
    DownloadBackToSource  {RECEIVED} Running                                  BackToSource
    DownloadSucceeded     {RECEIVED} Running BackToSource                     Succeeded
    DownloadFailed        Pending {RECEIVED} Running BackToSource Succeeded   Failed
    Leave                 Pending {RECEIVED} Running BackToSource Succeeded Failed   Leave
"""


def _moves(rows: str) -> dict[tuple[str, str], str]:
    moves: dict[tuple[str, str], str] = {}
    for event, *sources, target in (line.split() for line in rows.splitlines() if line.strip()):
        moves |= {(source, event): target for source in sources}
    return moves


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TaskEvent)
def test_tasks(state: TaskState, event: TaskEvent) -> None:
    """Every event in every state: the move that Dragonfly makes, or a refusal."""
    machine = Machine("task", TASK, state)
    wanted = _moves(TASK_ROWS).get((state, event))
    if wanted is None:
        with pytest.raises(InvalidTransition):
            machine.fire(event)
        assert machine.state is state
    else:
        assert machine.fire(event) == wanted


@pytest.mark.parametrize("state", PeerState)
@pytest.mark.parametrize("event", PeerEvent)
def test_peers(state: PeerState, event: PeerEvent) -> None:
    """Every event in every state: the move that Dragonfly makes, or a refusal."""
    machine = Machine("peer", PEER, state)
    wanted = _moves(PEER_ROWS).get((state, event))
    if wanted is None:
        with pytest.raises(InvalidTransition):
            machine.fire(event)
        assert machine.state is state
    else:
        assert machine.fire(event) == wanted


def test_every_kind_knows_every_state() -> None:
    """No state of a kind's tables is without a row."""
    for rules in RULES.values():
        assert set(rules.tasks) == set(TaskState)
        assert set(rules.peers) == set(PeerState)


def test_weights_sum_to_one() -> None:
    """So that scores lie between 0 and 1."""
    for rules in RULES.values():
        weights = rules.weights
        total = weights.load + weights.idc + weights.location + weights.host_type
        assert total == pytest.approx(1)
