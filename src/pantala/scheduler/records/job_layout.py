"""Plans, orders and outcomes of jobs as text: the same in SQLite and in Redis."""

from __future__ import annotations

import base64
import json
from typing import Any

from pantala.core.sched.jobs import JobOrder, JobPlan, Outcome, PlannedHost
from pantala.core.sched.preheat import PairState


def plan_text(plan: JobPlan) -> str:
    """A plan as text."""
    hosts = [[host.id, host.hostname, host.ip] for host in plan.hosts]
    return _text({"tasks": plan.tasks, "hosts": hosts, "pairs": plan.pairs})


def plan_from(text: str | bytes) -> JobPlan:
    """The plan again."""
    read = json.loads(text)
    return JobPlan(
        tuple((url, task_id) for url, task_id in read["tasks"]),
        tuple(PlannedHost(*host) for host in read["hosts"]),
        tuple((task, host) for task, host in read["pairs"]),
    )


def order_text(order: JobOrder) -> str:
    """An order as text."""
    asked = base64.b64encode(order.asked).decode()
    requests = [[url, dict(headers)] for url, headers in order.requests]
    return _text({"form": order.form, "asked": asked, "requests": requests})


def order_from(text: str | bytes) -> JobOrder:
    """The order again."""
    read = json.loads(text)
    requests = tuple((url, headers) for url, headers in read["requests"])
    return JobOrder(read["form"], base64.b64decode(read["asked"]), requests)


def outcome_text(outcome: Outcome) -> str:
    """An outcome as text, without its number."""
    host = outcome.host
    return _text(
        [
            *(outcome.state.value, host.id, host.hostname, host.ip),
            *(outcome.received, outcome.content_length, outcome.reason),
        ]
    )


def outcome_from(number: int, text: str | bytes) -> Outcome:
    """The outcome of that number again."""
    state, host_id, hostname, ip, received, content_length, reason = json.loads(text)
    host = PlannedHost(host_id, hostname, ip)
    return Outcome(number, PairState(state), host, received, content_length, reason)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
