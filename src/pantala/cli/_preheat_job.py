"""A job at a scheduler: of ours, which tells how it goes, or a stock one, which only takes it."""

from __future__ import annotations

from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.errors import DragonflyError, FeatureOff, Unavailable
from pantala.model.images import is_image, parse_image
from pantala.model.urls import public_url
from pantala.pb import common_pb2, jobs_pb2, jobs_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.convert import duration
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

from ._preheat import Options
from ._preheat_report import Report

#: Seconds between two pings while a job goes on.
_KEEPALIVE: Final = 20.0

_OVER: Final = {jobs_pb2.DONE: "done", jobs_pb2.FAILED: "failed"}


class Preheat:
    """One command.

    Args:
        options: What is wanted.
        kind: Of task, by its name in the contract.
        report: Told what comes of it.
    """

    def __init__(self, options: Options, kind: str, report: Report) -> None:
        self._options = options
        self._kind = kind
        self._report = report
        self._who = ""
        self._taken = False

    def carry_out(self, limit: float) -> int:
        """Do it, and stay until it is over, *limit* seconds at most; the exit status.

        Raises:
            DragonflyError: The scheduler refused, or is not there.
        """
        *others, last = self._options.scheduler_endpoint
        for target in others:
            try:
                return self._at(target, limit)
            except Unavailable as error:
                if self._taken:
                    raise
                self._report.say(f"{error}; the next one is asked")
        return self._at(last, limit)

    def _at(self, target: str, limit: float) -> int:
        """Likewise, by one scheduler."""
        self._who = f"scheduler {target}"
        options = list(channel_options(target, keepalive=_KEEPALIVE))
        with grpc.insecure_channel(target, options=options) as channel:
            try:
                return self._follow(jobs_pb2_grpc.JobsStub(channel), limit)
            except grpc.RpcError as error:
                if _async(error).code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise from_rpc_error(_async(error), self._who) from error
            if self._kind != "STANDARD":
                raise FeatureOff(f"{self._who} is not pantala: it preheats no {self._kind} tasks")
            self._report.say(f"{self._who} is not pantala: it does not say what comes of a preheat")
            return self._hand_over(scheduler_pb2_grpc.SchedulerStub(channel), limit)

    def _follow(self, stub: Any, limit: float) -> int:
        """One job for all URLs, and what it says of itself."""
        plan = jobs_pb2.PreheatPlan()
        pairs: dict[int, Any] = {}
        done = failed = 0
        for said in stub.Preheat(self._request(), timeout=limit):
            arm = said.WhichOneof("response")
            if arm == "plan":
                plan, self._taken = said.plan, True
                if self._options.detach:
                    self._report.detached(plan.job_id, tasks=len(plan.tasks), pairs=plan.pairs)
                    return 0
            elif arm == "news":
                for pair in said.news.pairs:
                    pairs[pair.number] = pair
                    if pair.state in _OVER:
                        self._report.result(_row(plan.tasks[pair.task], pair))
                states = [pair.state for pair in pairs.values()]
                done, failed = states.count(jobs_pb2.DONE), states.count(jobs_pb2.FAILED)
                self._report.progress(
                    pairs=plan.pairs,
                    done=done,
                    failed=failed,
                    received=sum(pair.received for pair in pairs.values()),
                )
            elif arm == "summary":
                done, failed = said.summary.done, said.summary.failed
                self._report.summary(done=done, failed=failed, received=said.summary.received)
        return 1 if failed or done < plan.pairs else 0

    def _request(self) -> Any:
        options = self._options
        targets = jobs_pb2.Targets(
            scope=options.scope,
            ips=options.ips,
            count=options.count,
            percentage=options.percentage,
        )
        wanted = common_pb2.Download(
            type=common_pb2.TaskType.Value(self._kind),
            priority=cast("common_pb2.Priority.ValueType", options.priority),
            request_header=options.request_header,
            content_for_calculating_task_id=options.content_for_calculating_task_id,
            # Of files, dfget does not go by what their URL looks like.
            enable_task_id_based_blob_digest=options.enable_task_id_based_blob_digest
            and any(map(is_image, options.urls)),
            **self._same(),
        )
        return jobs_pb2.PreheatRequest(
            download=wanted,
            urls=options.urls,
            targets=targets,
            concurrent_task_count=options.concurrent_task_count,
            concurrent_peer_count=options.concurrent_peer_count,
            timeout=duration(options.timeout),
            detach=options.detach,
            image=jobs_pb2.ImageAccess(platform=options.platform, **self._access()),
        )

    def _same(self) -> dict[str, Any]:
        """Fields that have the same names in all requests."""
        options = self._options
        return {
            "tag": options.tag,
            "application": options.application,
            "piece_length": options.piece_length,
            "filtered_query_params": options.filtered_query_params,
        }

    def _access(self) -> dict[str, Any]:
        options = self._options
        return {
            "username": options.username,
            "password": options.password,
            "insecure_skip_verify": options.insecure_skip_verify,
        }

    def _hand_over(self, stub: Any, limit: float) -> int:
        """Each URL to a scheduler that takes it and says no more."""
        options, failed = self._options, 0
        for url in options.urls:
            image = is_image(url)
            message: Any = (
                scheduler_pb2.PreheatImageRequest if image else scheduler_pb2.PreheatFileRequest
            )
            more = {"platform": options.platform or None, **self._access()} if image else {}
            request = message(
                url=parse_image(url).manifest_url if image else url,
                header=options.request_header,
                priority=cast("common_pb2.Priority.ValueType", options.priority),
                scope=options.scope,
                ips=options.ips,
                count=options.count,
                percentage=options.percentage,
                concurrent_task_count=options.concurrent_task_count,
                concurrent_peer_count=options.concurrent_peer_count,
                timeout=duration(options.timeout),
                **self._same(),
                **more,
            )
            method = stub.PreheatImage if image else stub.PreheatFile
            why = ""
            try:
                method(request, timeout=limit)
            except grpc.RpcError as error:
                why = str(_error(error, self._who))
                failed += 1
            state = "failed" if why else "accepted"
            self._report.result({"url": public_url(url), "state": state, "reason": why})
        return 1 if failed else 0


def _row(task: Any, pair: Any) -> dict[str, Any]:
    return {
        "url": task.url,
        "task_id": task.task_id,
        "host_id": pair.target.host_id or None,
        "hostname": pair.target.hostname or None,
        "ip": pair.target.ip,
        "state": _OVER[pair.state],
        "received": pair.received,
        "content_length": pair.content_length if pair.HasField("content_length") else None,
        "reason": pair.reason,
    }


def _error(error: grpc.RpcError, who: str) -> DragonflyError:
    return from_rpc_error(_async(error), who)


def _async(error: grpc.RpcError) -> grpc.aio.AioRpcError:
    # What a blocking call raises has the same methods, but no public class that says so.
    return cast("grpc.aio.AioRpcError", error)
