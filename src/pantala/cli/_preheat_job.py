"""A job at a scheduler: of ours, which tells how it goes, or a stock one, which only takes it."""

from __future__ import annotations

import time
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

from ._job_watch import Schedulers, Watch
from ._preheat import Options
from ._preheat_report import Report

#: Seconds between two pings while a job goes on.
_KEEPALIVE: Final = 20.0


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
        self._watch = Watch(report)

    def carry_out(self, limit: float) -> int:
        """Do it, and stay until it is over, *limit* seconds at most; the exit status.

        Raises:
            DragonflyError: The scheduler refused, or is not there.
        """
        until = time.monotonic() + limit
        *others, last = self._options.scheduler_endpoint
        for target in others:
            try:
                return self._at(target, until)
            except Unavailable as error:
                if self._watch.job_id:
                    raise
                self._report.say(f"{error}; the next one is asked")
        return self._at(last, until)

    def _at(self, target: str, until: float) -> int:
        """Likewise, by one scheduler."""
        who = f"scheduler {target}"
        options = list(channel_options(target, keepalive=_KEEPALIVE))
        with grpc.insecure_channel(target, options=options) as channel:
            try:
                return self._follow(jobs_pb2_grpc.JobsStub(channel), until)
            except grpc.RpcError as error:
                if _async(error).code() is not grpc.StatusCode.UNIMPLEMENTED:
                    return self._lost(from_rpc_error(_async(error), who), until)
            if self._kind != "STANDARD":
                raise FeatureOff(f"{who} is not pantala: it preheats no {self._kind} tasks")
            self._report.say(f"{who} is not pantala: it does not say what comes of a preheat")
            return self._hand_over(scheduler_pb2_grpc.SchedulerStub(channel), who, until)

    def _follow(self, stub: Any, until: float) -> int:
        """One job for all URLs, and what it says of itself."""
        watch, options = self._watch, self._options
        for said in stub.Preheat(self._request(), timeout=until - time.monotonic()):
            arm = said.WhichOneof("response")
            if arm == "plan":
                watch.plan(said.plan)
                tasks, pairs = len(said.plan.tasks), said.plan.pairs
                self._report.begun(
                    said.plan.job_id, tasks=tasks, pairs=pairs, waits=not options.detach
                )
                if options.detach:
                    return 0
                if options.durable and not said.plan.durable:
                    self._report.say(
                        "the scheduler cannot write the job down: it ends with the scheduler"
                    )
            elif arm == "news":
                watch.news(said.news.pairs)
            elif arm == "summary":
                watch.over()
        return watch.status

    def _lost(self, error: DragonflyError, until: float) -> int:
        """The scheduler has gone in the middle of it, or has refused. Raises *error* if need be."""
        watch = self._watch
        if not watch.job_id or not isinstance(error, Unavailable):
            raise error
        if not watch.is_durable:
            raise Unavailable(
                f"{error}; job {watch.job_id} has ended with it, and what hosts have begun they "
                "may finish: say it once more to have the rest fetched"
            ) from error
        self._report.say(f"{error}; job {watch.job_id} goes on, and is looked for again")
        Schedulers(self._options.scheduler_endpoint).follow(watch, until)
        return watch.status

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
            detach=options.detach or options.durable,
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

    def _hand_over(self, stub: Any, who: str, until: float) -> int:
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
                method(request, timeout=until - time.monotonic())
            except grpc.RpcError as error:
                why = str(_error(error, who))
                failed += 1
            state = "failed" if why else "accepted"
            self._report.result({"url": public_url(url), "state": state, "reason": why})
        return 1 if failed else 0


def _error(error: grpc.RpcError, who: str) -> DragonflyError:
    return from_rpc_error(_async(error), who)


def _async(error: grpc.RpcError) -> grpc.aio.AioRpcError:
    # What a blocking call raises has the same methods, but no public class that says so.
    return cast("grpc.aio.AioRpcError", error)
