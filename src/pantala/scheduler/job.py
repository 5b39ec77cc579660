"""One job that is carried out here: its plan, how far it is, and what keeps it going."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Sequence
from typing import Final

from pantala.core.sched.jobs import JobRow
from pantala.core.sched.preheat import Ledger, Pair, Summary

from .orders import Order, Planned

#: Seconds for hosts to come back to a scheduler that carries on what another one began: as soon
#: as there is a connection, which daemons try for every 15 s at last.
_RETURN: Final = 45.0


class Job:
    """One job.

    Args:
        order: What is wanted.
        tasks: All of them.
        pairs: Each of them on each of its hosts.
        row: How it was known before, if another scheduler, or another life of this one, began it.

    Attributes:
        id: For logs, and for those who ask.
        order, tasks: As given.
        ledger: How far it is.
        changed: Set when that changes, and when the job is over.
        over: All has been said.
        durable: It is written down, and goes on when this scheduler ends.
        interrupted: It is over here, and goes on elsewhere, or later; why.
        carried_on: Somebody else has begun it.
        before: What was over when it was begun here.
        patient_until: Until then hosts are waited for that are not here: they do not know yet that
            this scheduler is.
        lost: Hosts that could not be reached: when that was, and why. To find out takes as long as
            a machine without power takes not to answer, and holds up others each time.
    """

    def __init__(
        self,
        order: Order,
        tasks: Sequence[Planned],
        pairs: Sequence[Pair],
        row: JobRow | None = None,
    ) -> None:
        self.id = secrets.token_hex(8) if row is None else row.id
        self.order = order
        self.tasks = tasks
        self.ledger = Ledger(pairs)
        self.changed = asyncio.Event()
        self.over = False
        self.durable = row is not None
        self.interrupted = ""
        self.carried_on = row is not None
        self.patient_until = -math.inf if row is None else time.monotonic() + _RETURN
        self.lost: dict[str, tuple[float, str]] = {}
        self.before = Summary(0, 0, 0)
        self._created_at = time.time() if row is None else row.created_at
        left = order.timeout if row is None else row.ends_at - time.time()
        self._ends_at = time.monotonic() + left
        self._ended_at: float | None = None
        self._work: asyncio.Task[None] | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def pending(self) -> list[Pair]:
        """Pairs that are not over."""
        return [pair for pair in self.ledger.pairs if not pair.is_over]

    @property
    def row(self) -> JobRow:
        """As lists show it."""
        said = self.ledger.summary
        return JobRow(
            self.id,
            self.order.wanted.kind,
            self.order.selection.scope.value,
            created_at=self._created_at,
            ends_at=self._created_at + self.order.timeout,
            pairs=len(self.ledger.pairs),
            done=said.done,
            failed=said.failed,
            received=said.received,
            ended_at=self._ended_at,
        )

    def end(self) -> None:
        """It is over, here at least."""
        if not self.interrupted:
            self._ended_at = time.time()
        self.over = True
        self.changed.set()

    def run(self, work: asyncio.Task[None]) -> None:
        """*work* is what carries it out."""
        self._work = work

    def cancel(self) -> None:
        """Begin nothing more. What hosts have begun, they may finish."""
        if self._work is not None:
            self._work.cancel()

    def interrupt(self, why: str) -> None:
        """Likewise, for somebody else carries it on."""
        self.interrupted = why
        self.cancel()
