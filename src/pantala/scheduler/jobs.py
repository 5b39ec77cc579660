"""Jobs as they are asked for: the contract's methods, and ``pantala.v1.Jobs``, which tells more.

Whatever makes no sense, or is not allowed, is answered before anything is begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import grpc.aio
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from pantala.core.bucket import Bucket
from pantala.core.sched.choose import check_priority
from pantala.core.sched.world import World
from pantala.errors import Busy, DragonflyError, FeatureOff, NotFound, TimedOut, Unavailable
from pantala.model.announce import HostFacts
from pantala.model.images import is_image, parse_image
from pantala.model.task import DownloadRequest
from pantala.pb import dfdaemon_pb2, jobs_pb2, scheduler_pb2

from .config import Job as JobConfig
from .entries import files_of, is_directory
from .guard import Guard
from .hosts import ask
from .job import Job
from .job_lists import PAIRS, JobLists, pair_message, plan_message
from .kept_jobs import KeptJobs
from .orders import Order, Planned, file_order, image_order, order_of, planned
from .preheating import Preheating
from .records.store import RecordStore
from .registry import resolve
from .turns import in_turns

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SERVICE: Final = jobs_pb2.DESCRIPTOR.services_by_name["Jobs"].full_name

#: Trailing metadata of StatFile and StatImage: how many hosts could not be asked.
UNANSWERED_KEY: Final = "pantala-unanswered"

#: Seconds between two words on the progress of a job.
_BEAT: Final = 0.2

#: Seconds for a host to say what it holds.
_STAT: Final = 10.0

#: Of a host that has answered so, and is not just busy, nothing more is asked.
_AWAY: Final = frozenset({Unavailable, TimedOut})

_Context = grpc.aio.ServicerContext[Any, Any]


class Jobs:
    """Answers what is asked.

    Args:
        world: Knows the hosts.
        preheating: Carries jobs out.
        store: Where jobs are written down that outlive their caller.
        config: What is allowed.

    Attributes:
        kept: Those that are written down.
    """

    def __init__(
        self, world: World, preheating: Preheating, store: RecordStore, config: JobConfig
    ) -> None:
        self._world = world
        self._preheating = preheating
        self.kept = KeptJobs(
            store,
            preheating,
            durable=config.enable and config.durable,
            check=self._check,
            renew=self._images,
        )
        self._lists = JobLists(preheating, self.kept)
        self._enabled = config.enable
        #: Calls that are about to begin a job, or need none.
        self._busy = 0
        #: Jobs that may begin in a second; None: any number.
        self._rate: int | None = None
        self._bucket: Bucket | None = None
        self._guard = Guard(config.blocked_networks, "job.blockedNetworks")

    def limit_rate(self, rate: int | None) -> None:
        """From now on, so many jobs may begin in a second; None: any number."""
        if rate != self._rate:
            self._rate, self._bucket = rate, None if rate is None else Bucket(rate)

    def methods(self) -> dict[str, Any]:
        """Those of the contract, by name."""
        return {
            "PreheatFile": self._preheat_file,
            "StatFile": self._stat_file,
            "PreheatImage": self._preheat_image,
            "StatImage": self._stat_image,
        }

    async def _preheat_file(self, request: scheduler_pb2.PreheatFileRequest, _: _Context) -> Empty:
        """It goes on in the background; ``pantala.v1.Jobs`` knows what comes of it."""
        await self._begin(request, durable=True)
        return Empty()

    async def _stat_file(
        self, request: scheduler_pb2.StatFileRequest, context: _Context
    ) -> scheduler_pb2.StatFileResponse:
        """Which hosts hold a file, or files of a directory."""
        _, held = await self._who_has(file_order(request), context)
        return scheduler_pb2.StatFileResponse(
            peers=[
                scheduler_pb2.PeerFile(
                    ip=host.ip,
                    hostname=host.hostname,
                    cached_files=[
                        scheduler_pb2.File(url=task.request.url, is_finished=finished)
                        for task, finished in files
                    ],
                )
                for host, files in held
            ]
        )

    async def _preheat_image(
        self, request: scheduler_pb2.PreheatImageRequest, _: _Context
    ) -> Empty:
        """Likewise of all that belongs to an image."""
        await self._begin(request, durable=True)
        return Empty()

    async def _stat_image(
        self, request: scheduler_pb2.StatImageRequest, context: _Context
    ) -> scheduler_pb2.StatImageResponse:
        """Of what an image consists, and which hosts hold what of it."""
        tasks, held = await self._who_has(image_order(request), context)
        layers = [scheduler_pb2.Layer(url=task.request.url) for task in tasks]
        return scheduler_pb2.StatImageResponse(
            image=scheduler_pb2.Image(layers=layers),
            peers=[
                scheduler_pb2.PeerImage(
                    ip=host.ip,
                    hostname=host.hostname,
                    cached_layers=[
                        scheduler_pb2.Layer(url=task.request.url, is_finished=finished)
                        for task, finished in layers
                    ],
                )
                for host, layers in held
            ],
        )

    async def Preheat(  # noqa: N802  the service's name
        self, request: jobs_pb2.PreheatRequest, _: _Context
    ) -> AsyncGenerator[jobs_pb2.PreheatResponse, None]:
        """A job, and how far it is until it is over. Without *detach* it ends with its caller."""
        job = await self._begin(request, durable=request.detach)
        try:
            yield jobs_pb2.PreheatResponse(plan=plan_message(job))
            over = False
            while not over:
                await job.changed.wait()
                await asyncio.sleep(0 if job.over else _BEAT)  # so that one word tells of many
                job.changed.clear()
                over = job.over  # before the changes are taken: after that there are none
                while pairs := job.ledger.take(PAIRS):
                    news = jobs_pb2.PreheatNews(pairs=map(pair_message, pairs))
                    yield jobs_pb2.PreheatResponse(news=news)
            if job.interrupted:
                raise Unavailable(
                    f"job {job.id} is carried on elsewhere, or later: {job.interrupted}"
                )
            said = job.ledger.summary
            summary = jobs_pb2.PreheatSummary(
                done=said.done, failed=said.failed, received=said.received
            )
            yield jobs_pb2.PreheatResponse(summary=summary)
        finally:
            if not request.detach:
                job.cancel()

    async def List(  # noqa: N802  the service's name
        self, _request: jobs_pb2.ListJobsRequest, _: _Context
    ) -> jobs_pb2.ListJobsResponse:
        """All jobs that are known here, or written down."""
        return await self._lists.all_jobs()

    async def Show(  # noqa: N802  the service's name
        self, request: jobs_pb2.ShowJobRequest, _: _Context
    ) -> AsyncGenerator[jobs_pb2.ShowJobResponse, None]:
        """One of them, with all of its pairs."""
        async for message in self._lists.one(request.id):
            yield message

    # -- parts of them

    async def _begin(self, request: Message, *, durable: bool) -> Job:
        order = order_of(request)
        with self._place():
            tasks = await self._plan(order)
            for task in tasks:
                # The hosts would be told so, each for each task.
                check_priority(self._world.priorities.judge(task.request), task.task_id)
            job = self._preheating.prepare(order, tasks)
            if durable:
                await self.kept.keep(job, request)
            self._preheating.begin(job)
            return job

    async def _check(self, order: Order) -> None:
        """Whether a job may lead where it leads. Raises Forbidden, or why that is not known."""
        await self._guard.check(order.urls, order.wanted.access)

    async def _images(self, order: Order) -> Sequence[Planned]:
        """Those tasks of a job that are parts of images, as their registries say now."""
        found: list[DownloadRequest] = []
        for url in order.urls:
            if order.reference is not None or is_image(url):
                found += await self._expand(order, replace(order.wanted, url=url))
        return planned(order, found)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the jobs, for one that is not begun, or will not be. Raises Busy."""
        self._preheating.check_room(self._busy)
        if self._bucket is not None and self._bucket.take(1, time.monotonic()) > 0:
            raise Busy(
                f"more than {self._rate} jobs in a second; try again later, or raise "
                "jobRateLimit, in schedulerClusterConfig of the dynconfig file or of the manager"
            )
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def _plan(self, order: Order) -> Sequence[Planned]:
        """All tasks of a job.

        Raises:
            FeatureOff: Jobs are switched off.
            Forbidden: A URL leads where jobs must not.
            InvalidRequest: A URL makes no sense, is a directory without files, or no image.
            TimedOut: Registries and hosts have taken all the time of the job.
        """
        if not self._enabled:
            raise FeatureOff("job is not enabled: see job.enable")
        found: list[DownloadRequest] = []
        try:
            async with asyncio.timeout(order.timeout):
                await self._check(order)
                for url in order.urls:
                    found += await self._expand(order, replace(order.wanted, url=url))
        except TimeoutError:
            raise TimedOut(f"not all is known within the job's {order.timeout:g} s") from None
        return planned(order, found)

    async def _expand(self, order: Order, request: DownloadRequest) -> list[DownloadRequest]:
        """All files that a URL stands for."""
        if order.reference is not None or is_image(request.url):
            reference = order.reference or parse_image(request.url)
            chain, headers = request.certificate_chain, request.request_header
            image = await resolve(self._guard, reference, order.image, headers, chain)
            headers = {**headers, **image.headers}
            return [replace(request, url=url, request_header=headers) for url in image.urls]
        if is_directory(request.url):
            files = await files_of(self._world, request)
            await self._guard.check([each.url for each in files])
            return files
        return [request]

    async def _who_has(
        self, order: Order, context: _Context
    ) -> tuple[Sequence[Planned], list[tuple[HostFacts, list[tuple[Planned, bool]]]]]:
        """All tasks; which hosts hold which of them, and whether all of it."""
        with self._place():
            tasks = await self._plan(order)
            return tasks, await self._ask_all(order, tasks, context)

    async def _ask_all(
        self, order: Order, tasks: Sequence[Planned], context: _Context
    ) -> list[tuple[HostFacts, list[tuple[Planned, bool]]]]:
        hosts = sorted((host.facts for host in self._world.hosts.values()), key=lambda h: h.id)
        held: dict[str, list[tuple[Planned, bool]]] = {host.id: [] for host in hosts}
        silent: dict[str, DragonflyError] = {}

        async def look(task: Planned, host: HostFacts) -> None:
            if type(silent.get(host.id)) in _AWAY:
                return  # to find that out takes a while each time
            request = dfdaemon_pb2.StatLocalTaskRequest(task_id=task.task_id)
            try:
                limit = min(_STAT, order.timeout)
                answer = await ask(host, "StatLocalTask", request, timeout=limit, stock_hello=limit)
            except NotFound:
                return
            except DragonflyError as error:
                silent[host.id] = error
                return
            held[host.id].append((task, answer.HasField("finished_at")))

        async def each(task: Planned) -> None:
            await in_turns(hosts, order.peers_at_once, lambda host: look(task, host))

        await in_turns(tasks, order.tasks_at_once, each)
        for host_id, why in silent.items():
            logger.info("not asked what it holds", host=host_id, why=str(why))
        if silent:
            context.set_trailing_metadata(((UNANSWERED_KEY, str(len(silent))),))
        return [(host, held[host.id]) for host in hosts if held[host.id]]
