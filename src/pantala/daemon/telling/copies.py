"""What schedulers must hear of copies of imported tasks.

Of other tasks a scheduler forgets what it was told when it is started anew, and
:mod:`pantala.core.beliefs` sees to it that it hears it again. Of imported ones it has written down
who has a copy, for all schedulers and for longer than a process lives. So there is little to say: a
download and an import say themselves what they bring; here is what they could not say, because the
scheduler was away at the end, and that a copy is gone. A word that was not heard is said again
after the next announcement, as long as the daemon lives.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from pantala.core.beliefs import TaskKey
from pantala.errors import DragonflyError, HostUnknown, NotFound
from pantala.rpc import import_calls
from pantala.rpc.import_calls import CopyName
from pantala.rpc.scheduler import Scheduler
from pantala.rpc.scheduler_link import Schedulers
from pantala.storage.holding import Holding
from pantala.storage.stores import Stores

logger = structlog.get_logger(__name__)

#: Words that nobody has heard yet, at most. What a host keeps untold, its children find out.
_MOST: Final = 4096

#: A copy that is gone, or the task of one that is here.
_Word = CopyName | TaskKey


class Copies:
    """Tells it.

    Args:
        schedulers: Whom.
        stores: What is here.
        host_id: Ours.
    """

    def __init__(self, schedulers: Schedulers, stores: Stores, host_id: str) -> None:
        self._schedulers = schedulers
        self._stores = stores
        self._host_id = host_id
        self._unsaid: dict[_Word, None] = {}
        self._news = asyncio.Event()

    def here(self, holding: Holding) -> None:
        """All of a task may be here, and its scheduler may not know."""
        if holding.complete:
            self._note((holding.kind, holding.id))

    def gone(self, holding: Holding) -> None:
        """A task is here no longer, or not all of it."""
        record = holding.record
        if record.peer_id:
            self._note(CopyName(record.kind, self._host_id, record.id, record.peer_id))

    def _note(self, word: _Word) -> None:
        self._unsaid.pop(word, None)
        self._unsaid[word] = None
        if len(self._unsaid) > _MOST:
            lost = next(iter(self._unsaid))
            del self._unsaid[lost]
            logger.warning("too much to tell of copies: not told", what=str(lost))
        self._news.set()

    def again(self) -> None:
        """Schedulers have just been announced to: those that were away may be there."""
        self._news.set()

    async def turn(self) -> None:
        """Say what is to be said, as is to be repeated for ever; :meth:`rest` says when."""
        for word in list(self._unsaid):
            await self._try(word)

    async def rest(self) -> None:
        """Until there is something new, or somebody who may hear what was not heard."""
        await self._news.wait()
        self._news.clear()

    async def settle(self, key: TaskKey) -> None:
        """Return when what is to be said of a task was heard, or could not be said."""
        for word in [word for word in self._unsaid if _key(word) == key]:
            await self._try(word)

    async def _try(self, word: _Word) -> None:
        try:
            if isinstance(word, CopyName):
                await self._tell_gone(word)
            else:
                await self._tell_here(word)
        except DragonflyError as error:
            logger.info("could not tell of a copy", task=_key(word)[1], why=str(error))
        else:
            self._unsaid.pop(word, None)

    async def _tell_gone(self, copy: CopyName) -> None:
        scheduler = self._schedulers.require(copy.task_id)
        if scheduler.epoch is None and self._stores.get(copy.kind, copy.task_id) is not None:
            # A stock scheduler has the host delete the task, and so the copy that came after.
            return
        try:
            await import_calls.give_up(scheduler, copy)
        except NotFound as error:
            if _is_stranger(scheduler, error):
                raise
        else:
            logger.info("copy given up", task=copy.task_id, peer=copy.peer_id)

    async def _tell_here(self, key: TaskKey) -> None:
        """Say that a copy is whole, by the name that its scheduler knows.

        Where it knows none, because the copy was deleted while this host was away, or its import
        was taken for lost, nobody counts on it: it may go when others need its room. If the task
        is there, whoever asks for it here is served from it.
        """
        holding = self._stores.get(*key)
        if holding is None:
            return
        copy = CopyName(holding.kind, self._host_id, holding.id, holding.record.peer_id)
        scheduler = self._schedulers.require(holding.id)
        try:
            await import_calls.finished(scheduler, copy)
        except NotFound as error:
            if _is_stranger(scheduler, error):
                raise
            if not holding.gone:
                logger.warning("nobody counts on a copy", task=holding.id, why=str(error))
                holding.keep(persistent=False)


def _is_stranger(scheduler: Scheduler, error: NotFound) -> bool:
    """It is this host that is not known. A stock scheduler does not say what it has not found."""
    return isinstance(error, HostUnknown) and scheduler.epoch is not None


def _key(word: _Word) -> TaskKey:
    return (word.kind, word.task_id) if isinstance(word, CopyName) else word
