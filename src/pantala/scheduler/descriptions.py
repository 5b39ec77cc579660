"""``pantala.v1.Descriptions``: what is told once need not be asked by all.

A daemon opens a stream with a question. It is answered with a description, or with its turn to ask
the origin, and hears every second that it is still to wait. What is decided is in
:mod:`pantala.core.sched.describing`, which says, too, what is told to whom.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from pantala.core.sched.choose import check_priority
from pantala.core.sched.describing import Descriptions
from pantala.core.sched.entities import TaskKey
from pantala.core.sched.growth import Growth
from pantala.core.sched.owners import owned
from pantala.core.sched.questions import Asker, AskSeed, Told, Wait, YourTurn
from pantala.core.sched.rules import RULES
from pantala.core.sched.seeds import for_seed
from pantala.core.sched.world import World
from pantala.errors import InvalidRequest, NoProvider, OriginError
from pantala.pb import describing_pb2
from pantala.rpc.convert import download_request, kind_of
from pantala.rpc.describing import description, description_message
from pantala.rpc.service import first_word

from .callers import caller_of
from .convert import check_description, check_question, check_reading, cut
from .dialects import SCHEDULER_DIALECTS
from .seeds import SeedCaller
from .waiters import Waiters

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SERVICE: Final = describing_pb2.DESCRIPTOR.services_by_name["Descriptions"].full_name

#: Seconds between two words to those who wait: by them they know that we live.
_BEAT: Final = 1.0

#: Seconds for whose turn it is to say anything: a daemon gives an origin six minutes to answer.
_SILENCE: Final = 600.0


class _Told:
    """What one who waits has been told of what is read, so that no more is said than is new."""

    def __init__(self) -> None:
        self._growth: Growth | None = None
        self._steps = 0

    def add_news(
        self, patience: describing_pb2.Patience, asker: Asker, growth: Growth | None
    ) -> None:
        """Have *patience* say what *asker* does not know yet of *growth*, and whom to follow."""
        if growth is None:
            return
        if growth is not self._growth:
            self._growth, self._steps = growth, 0
        patience.growth.version = growth.version
        patience.growth.first = self._steps
        patience.growth.crcs.extend(growth.crcs[self._steps :])
        self._steps = len(growth.crcs)
        for host in growth.leaders(asker):
            facts = host.facts
            patience.growth.leaders.add(host_id=facts.id, ip=facts.ip, port=facts.port)


class DescriptionService:
    """Answers what a task is.

    Args:
        world: What is known.
        waiters: Woken by the world, and by what is told here.
        seeds: Fetch for those who may not ask the origin.
    """

    def __init__(self, world: World, waiters: Waiters, seeds: SeedCaller) -> None:
        self._world = world
        self._waiters = waiters
        self._seeds = seeds
        self.known = Descriptions(world, waiters.wake_key)

    async def Describe(  # noqa: N802  the service's name
        self, requests: AsyncIterator[describing_pb2.DescribeRequest], context: Any
    ) -> AsyncGenerator[describing_pb2.DescribeResponse, None]:
        """One question, until it is answered; if the answer is a turn, until that has ended.

        Raises:
            HostUnknown: The host has not announced itself.
            NotYours: The host is another's.
            TimedOut: There is none.
            InvalidRequest: The question makes no sense.
            OriginError: The origin has failed several others, or is closed to this download.
            Busy: Too many questions are open.
        """
        asker = await self._open(requests, context)
        try:
            beat, reading, told = 0.0, False, _Told()
            while isinstance(said := self._answer(asker), Wait):
                now = time.monotonic()
                if now >= beat or said.reading != reading:
                    beat, reading = now + _BEAT, said.reading
                    patience = describing_pb2.Patience(reading=reading, received=said.received)
                    told.add_news(patience, asker, self.known.growths.followed(asker))
                    yield describing_pb2.DescribeResponse(patience=patience)
                else:
                    await self._waiters.wait(asker.key, min(said.until, beat) - now)
            if isinstance(said, Told):
                described = description_message(said.description)
                yield describing_pb2.DescribeResponse(described=described)
            else:
                yield describing_pb2.DescribeResponse(turn=describing_pb2.Turn())
                await self._hear(asker, requests)
        except NoProvider as error:  # what the contract has for "not on these terms"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            self.known.gone(asker, time.monotonic())

    async def _open(self, requests: AsyncIterator[Any], context: Any) -> Asker:
        """The question that a stream opens with."""
        first = await first_word(requests, "caller")
        if first.WhichOneof("request") != "ask":
            raise InvalidRequest("a stream opens with a question (ask)")
        question = first.ask
        wanted = download_request(kind_of(question.download.type), question.download)
        rules = RULES.get(wanted.kind)
        if rules is None or not rules.from_source:
            raise InvalidRequest(f"{wanted.kind.name} tasks have no origin that describes them")
        check_question(question, wanted)
        wanted = self._world.priorities.judge(wanted)
        check_priority(wanted, question.task_id)
        host = owned(self._world, question.host_id, caller_of(context))
        return self.known.ask(
            host,
            question.task_id,
            wanted,
            time.monotonic(),
            origin=question.origin,
            version=question.version,
            follows=question.follows,
            anew=question.anew,
        )

    def _answer(self, asker: Asker) -> Told | YourTurn | Wait:
        """What is decided; a seed that is to be asked meanwhile is."""
        said = self.known.answer(asker, time.monotonic())
        while isinstance(said, AskSeed):
            wanted, dialect = for_seed(asker.request), SCHEDULER_DIALECTS[asker.request.kind]
            refused = functools.partial(self._seed_refused, said.task.key)
            self._seeds.ask(dialect, said.task, said.seeds, wanted, refused)
            said = self.known.answer(asker, time.monotonic())
        return said

    def _seed_refused(self, key: TaskKey, error: OriginError) -> None:
        self.known.seed_failed(key, error, time.monotonic())

    async def _hear(self, asker: Asker, requests: AsyncIterator[Any]) -> None:
        """Whose turn it is says what comes of it. Returns when nobody waits for him any more."""
        arm: str | None = "reading"
        while arm == "reading":
            try:
                async with asyncio.timeout(_SILENCE):
                    message = await anext(requests, None)
            except TimeoutError:
                return
            arm = None if message is None else self._take(asker, message)
        while arm == "learnt" and not self.known.has_settled(asker, time.monotonic()):
            await self._waiters.wait(asker.key, _BEAT)

    def _take(self, asker: Asker, message: describing_pb2.DescribeRequest) -> str | None:
        """One thing that is said; its arm."""
        now, arm = time.monotonic(), message.WhichOneof("request")
        task = asker.key[1]
        if arm == "learnt":
            check_description(message.learnt)
            said = description(message.learnt)
            self.known.learnt(asker, said, now, alone=message.learnt.alone)
            logger.info("described", task=task, host=asker.host.id, bytes=said.content_length)
        elif arm == "reading":
            check_reading(message.reading)
            if not asker.reads:
                logger.info("read by one host", task=task, host=asker.host.id)
            self.known.reading(
                asker,
                message.reading.received,
                now,
                version=message.reading.version,
                first=message.reading.first,
                crcs=message.reading.crcs,
            )
        elif arm == "failed":
            failed = message.failed
            logger.info("not described", task=task, host=asker.host.id, why=cut(failed.description))
            if failed.by_origin:
                status = failed.status_code if failed.HasField("status_code") else None
                self.known.failed(asker, cut(failed.description), status, now)
        else:
            raise InvalidRequest(f"whose turn it is must not say {arm}")
        return arm
