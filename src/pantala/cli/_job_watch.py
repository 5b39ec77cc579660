"""What schedulers say of a job, wherever it is carried out, and what is printed of that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.errors import DragonflyError, NotFound, Unavailable
from pantala.pb import common_pb2, jobs_pb2, jobs_pb2_grpc
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

from ._at_once import ask_all
from ._preheat_report import Report

#: Seconds for one scheduler to say something of a job; one of many pairs takes a while.
_LIMIT: Final = 30.0

#: Likewise to list them, which takes a moment.
_LIST: Final = 10.0

#: Seconds for which a job is looked for that no scheduler knows anything of: one that was killed
#: starts anew, waits for the end of its own lease, and is perhaps on another machine.
_PATIENCE: Final = 120.0

#: Seconds between two looks, at least; and pairs for which there is one second more.
_INTERVAL: Final = 1.0
_PAIRS_A_SECOND: Final = 5000

#: The states of a pair, as people and programs read them.
STATES: Final = {jobs_pb2.DONE: "done", jobs_pb2.FAILED: "failed"}


class Watch:
    """Follows one job, and prints what is new of it.

    Args:
        report: Prints.

    Attributes:
        job_id: Its id; empty: it has none yet.
        is_durable: It goes on when its scheduler ends.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._plan = jobs_pb2.PreheatPlan()
        self._pairs: dict[int, Any] = {}

    @property
    def job_id(self) -> str:
        """See the class."""
        return str(self._plan.job_id)

    @property
    def is_durable(self) -> bool:
        """See the class."""
        return bool(self._plan.durable)

    @property
    def status(self) -> int:
        """The exit status."""
        done, failed = self._counts()
        return 1 if failed or done < self._plan.pairs else 0

    def plan(self, plan: jobs_pb2.PreheatPlan) -> None:
        """What it consists of."""
        self._plan = plan

    def news(self, pairs: Iterable[Any]) -> None:
        """How these pairs are now."""
        for pair in pairs:
            before = self._pairs.get(pair.number)
            if before is not None and before.state in STATES:
                continue  # it was told
            self._pairs[pair.number] = pair
            if pair.state in STATES:
                self._report.result(row_of(self._plan.tasks[pair.task], pair))
        done, failed = self._counts()
        self._report.progress(
            pairs=self._plan.pairs, done=done, failed=failed, received=self._received()
        )

    def over(self) -> None:
        """All has been said."""
        done, failed = self._counts()
        self._report.summary(done=done, failed=failed, received=self._received())

    def _counts(self) -> tuple[int, int]:
        states = [pair.state for pair in self._pairs.values()]
        return states.count(jobs_pb2.DONE), states.count(jobs_pb2.FAILED)

    def _received(self) -> int:
        return sum(pair.received for pair in self._pairs.values())


class Schedulers:
    """Those that may know of jobs.

    Args:
        targets: Their addresses.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets

    def jobs(self) -> tuple[dict[str, tuple[Any, str]], dict[str, str]]:
        """All jobs by their ids, each with the scheduler that knows most of it; and troubles.

        Raises:
            DragonflyError: No scheduler has answered.
        """
        found: dict[str, tuple[Any, str]] = {}
        troubles: dict[str, str] = {}
        for target, answer in ask_all(self._targets, _list).items():
            if isinstance(answer, DragonflyError):
                troubles[target] = str(answer)
                continue
            if answer.trouble:
                troubles[target] = answer.trouble
            for job in answer.jobs:
                if job.id not in found or _progress(job) > _progress(found[job.id][0]):
                    found[job.id] = job, target
        return found, troubles

    def show(self, job_id: str, target: str) -> tuple[Any, Any, list[Any]]:
        """A job as *target* knows it, its plan and its pairs. Raises DragonflyError."""
        job, plan = jobs_pb2.JobInfo(), jobs_pb2.PreheatPlan()
        pairs: list[Any] = []
        with _stub(target) as stub:
            for said in stub.Show(jobs_pb2.ShowJobRequest(id=job_id), timeout=_LIMIT):
                arm = said.WhichOneof("response")
                if arm == "job":
                    job = said.job
                elif arm == "plan":
                    plan = said.plan
                else:
                    pairs += said.news.pairs
        return job, plan, pairs

    def follow(self, watch: Watch, until: float) -> None:
        """Tell *watch* of its job until that is over.

        Args:
            watch: Has seen it begin.
            until: By the monotonic clock, when to give up in any case.

        Raises:
            Unavailable: Nobody has known anything of it for too long.
        """
        heard, why = time.monotonic(), ""
        while time.monotonic() < min(until, heard + _PATIENCE):
            try:
                found, _ = self.jobs()
                if watch.job_id not in found:
                    raise NotFound(f"no scheduler knows job {watch.job_id}")
                job, _, pairs = self.show(watch.job_id, found[watch.job_id][1])
            except DragonflyError as error:
                why = str(error)
                time.sleep(_INTERVAL)  # nobody tells when a scheduler is back
                continue
            heard = time.monotonic()
            watch.news(pairs)
            if job.HasField("ended_at"):
                watch.over()
                return
            # All pairs are read at each look: the more there are, the rarer.
            time.sleep(_INTERVAL + len(pairs) / _PAIRS_A_SECOND)
        raise Unavailable(
            f"job {watch.job_id} was looked for in vain: {why or 'its time is over'}; "
            f"dfctl job show {watch.job_id} tells what has come of it, when a scheduler is back"
        )


def row_of(task: Any, pair: Any) -> dict[str, Any]:
    """A pair as a row."""
    return {
        "url": task.url,
        "task_id": task.task_id,
        "host_id": pair.target.host_id or None,
        "hostname": pair.target.hostname or None,
        "ip": pair.target.ip,
        "state": STATES.get(pair.state, "pending"),
        "received": pair.received,
        "content_length": pair.content_length if pair.HasField("content_length") else None,
        "reason": pair.reason,
    }


def job_of(job: Any) -> dict[str, Any]:
    """A job as a row."""
    ended = job.HasField("ended_at")
    return {
        "id": job.id,
        "state": "ended" if ended else "running",
        "type": common_pb2.TaskType.Name(job.type),
        "scope": job.scope,
        "created_at": _time(job.created_at),
        "ends_at": _time(job.ends_at),
        "ended_at": _time(job.ended_at) if ended else None,
        "pairs": job.pairs,
        "done": job.done,
        "failed": job.failed,
        "pending": job.pairs - job.done - job.failed,
        "received": job.received,
        "durable": job.durable,
    }


def _list(target: str) -> Any:
    """All jobs that a scheduler knows of. Raises DragonflyError."""
    with _stub(target) as stub:
        return stub.List(jobs_pb2.ListJobsRequest(), timeout=_LIST)


@contextmanager
def _stub(target: str) -> Iterator[Any]:
    """Calls to one scheduler. What they raise is of ours."""
    with grpc.insecure_channel(target, options=list(channel_options(target))) as channel:
        try:
            yield jobs_pb2_grpc.JobsStub(channel)
        except grpc.RpcError as error:
            # It has the methods of those of grpc.aio, but no public class that says so.
            raise from_rpc_error(
                cast("grpc.aio.AioRpcError", error), f"scheduler {target}"
            ) from error


def _progress(job: Any) -> tuple[bool, int, int]:
    return job.HasField("ended_at"), job.done + job.failed, job.received


def _time(at: Any) -> str:
    return str(at.ToJsonString())
