"""Rows of imported tasks in Redis, which several schedulers share, Dragonfly's too."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

from pantala.core.sched.entities import TaskKey
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import TaskState
from pantala.model.task import Kind

from .layout import Keys, peer_fields, peer_row, task_fields, task_row
from .redis_jobs import RedisJobs
from .redis_link import LIMIT, RedisLink, Server
from .store import PAGE, TaskAndPeers

# A script is carried out as one, and nothing comes between. Keys and fields are those of .layout.

# task -> was, seconds, field, value, ...
_PUT_TASK: Final = """
local known = redis.call('HGET', KEYS[1], 'state') or ''
if known ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

# task, its peers, its replicas, peer, the host's peers
# -> peer id, persistent, whether it may be new, field, value, ...
# The host's set lives as long as the last of its tasks.
_PUT_PEER: Final = """
local left = redis.call('TTL', KEYS[1])
if left == -2 then return 0 end
if ARGV[3] == '0' and redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[4], unpack(ARGV, 4))
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
if ARGV[2] == '1' then redis.call('SADD', KEYS[3], ARGV[1])
else redis.call('SREM', KEYS[3], ARGV[1]) end
if left >= 0 then
  for i = 2, 4 do redis.call('EXPIRE', KEYS[i], left) end
  if redis.call('TTL', KEYS[5]) < left then redis.call('EXPIRE', KEYS[5], left) end
end
return 1
"""

# task, its peers, its replicas, peer, the host's peers; then of each peer that goes: it, its host's
# -> was, seconds, how many go, their ids, how many strings describe the task, field, value, ...,
#    peer id, persistent, field, value, ...
_BEGIN: Final = """
local known = redis.call('HGET', KEYS[1], 'state') or ''
if known ~= ARGV[1] then return 0 end
local at = 4 + ARGV[3]
for i = 4, at - 1 do
  redis.call('DEL', KEYS[2 * i - 2])
  redis.call('SREM', KEYS[2 * i - 1], ARGV[i])
end
redis.call('DEL', KEYS[2], KEYS[3])
local last = at + ARGV[at]
redis.call('HSET', KEYS[1], unpack(ARGV, at + 1, last))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[4], unpack(ARGV, last + 3))
redis.call('SADD', KEYS[2], ARGV[last + 1])
redis.call('SADD', KEYS[5], ARGV[last + 1])
if ARGV[last + 2] == '1' then redis.call('SADD', KEYS[3], ARGV[last + 1]) end
for i = 2, 4 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
if redis.call('TTL', KEYS[5]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[5], ARGV[2]) end
return 1
"""

# lease -> owner, milliseconds
_LEASE: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# lease -> owner
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class RedisRecords:
    """A :class:`.store.RecordStore`.

    Args:
        server: Which Redis.
        cluster: Schedulers with the same number share what they know.
        kind: Of the leases' keys.
        clock: Unix time.
        limit: Seconds until a call is given up.
    """

    def __init__(
        self,
        server: Server,
        cluster: int,
        kind: Kind = Kind.PERSISTENT_CACHE,
        clock: Callable[[], float] = time.time,
        limit: float = LIMIT,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._owner = secrets.token_hex(8)
        self._leases = Keys(cluster, kind)
        self._link = RedisLink(server, limit)
        self._redis = self._link.redis
        self.jobs = RedisJobs(self._link, cluster, clock)
        self._put_task = self._redis.register_script(_PUT_TASK)
        self._put_peer = self._redis.register_script(_PUT_PEER)
        self._begin = self._redis.register_script(_BEGIN)
        self._lease = self._redis.register_script(_LEASE)
        self._release = self._redis.register_script(_RELEASE)

    async def open(self) -> None:
        """See :class:`.store.RecordStore`."""
        await self._link.ask(self._redis.ping)

    async def close(self) -> None:
        """See :class:`.store.RecordStore`."""
        await self._link.close()

    async def task(self, key: TaskKey) -> TaskRow | None:
        """See :class:`.store.RecordStore`."""
        kind, task_id = key
        (row,) = await self._task_rows(kind, [task_id])
        return row

    async def walk(self, kind: Kind) -> AsyncGenerator[list[TaskAndPeers], None]:
        """See :class:`.store.RecordStore`."""
        prefix = self._keys(kind).tasks
        keys = await self._link.ask(self._scan, f"{_literal(prefix)}*")
        found = sorted({key.decode().removeprefix(prefix) for key in keys})
        for at in range(0, len(found), PAGE):
            rows = await self._task_rows(kind, found[at : at + PAGE])
            tasks = [row for row in rows if row is not None]
            peers = await self._peers_of(kind, [task.id for task in tasks])
            yield list(zip(tasks, peers, strict=True))

    async def peer(self, kind: Kind, peer_id: str) -> PeerRow | None:
        """See :class:`.store.RecordStore`."""
        (row,) = await self._peer_rows(kind, [peer_id])
        return row

    async def peers(self, key: TaskKey) -> list[PeerRow]:
        """See :class:`.store.RecordStore`."""
        kind, task_id = key
        (rows,) = await self._peers_of(kind, [task_id])
        return rows

    async def put_task(self, row: TaskRow, *, was: TaskState | None) -> bool:
        """See :class:`.store.RecordStore`."""
        left = int(row.expires_at - self._clock())
        arguments = ["" if was is None else was.value, left, *_flat(task_fields(row))]
        keys = [self._keys(row.kind).task(row.id)]
        return bool(await self._link.ask(self._put_task, keys=keys, args=arguments))

    async def begin(self, row: TaskRow, first: PeerRow, *, was: TaskState | None) -> bool:
        """See :class:`.store.RecordStore`."""
        keys = self._keys(row.kind)
        old = await self.peers(row.key)
        left = int(row.expires_at - self._clock())
        described = _flat(task_fields(row))
        done = await self._link.ask(
            self._begin,
            keys=[
                *(keys.task(row.id), keys.peers(row.id), keys.replicas(row.id)),
                *(keys.peer(first.id), keys.host_peers(first.host_id)),
                *(key for p in old for key in (keys.peer(p.id), keys.host_peers(p.host_id))),
            ],
            args=[
                *("" if was is None else was.value, left),
                *(len(old), *(p.id for p in old)),
                *(len(described), *described),
                *(first.id, int(first.persistent), *_flat(peer_fields(first, row.piece_count))),
            ],
        )
        return bool(done)

    async def put_peer(self, row: PeerRow, *, anew: bool = True) -> bool:
        """See :class:`.store.RecordStore`."""
        task = await self.task(row.task_key)
        if task is None:
            return False
        keys = self._keys(row.kind)
        fields = _flat(peer_fields(row, task.piece_count))
        done = await self._link.ask(
            self._put_peer,
            keys=[
                *(keys.task(row.task_id), keys.peers(row.task_id), keys.replicas(row.task_id)),
                *(keys.peer(row.id), keys.host_peers(row.host_id)),
            ],
            args=[row.id, int(row.persistent), int(anew), *fields],
        )
        return bool(done)

    async def remove_peer(self, row: PeerRow) -> None:
        """See :class:`.store.RecordStore`."""
        await self._remove(row.kind, [row], ())

    async def remove_task(self, key: TaskKey) -> None:
        """See :class:`.store.RecordStore`."""
        kind, task_id = key
        keys = self._keys(kind)
        task, rows = await self.task(key), await self.peers(key)
        if task is not None:
            # What is imported next by that id is told from this one by when it began, and Redis has
            # whole seconds of that: a host that was away would give away what it has for the other.
            await asyncio.sleep(min(int(task.created_at) + 1 - self._clock(), 1.0))
        whole = (keys.task(task_id), keys.peers(task_id), keys.replicas(task_id))
        await self._remove(kind, rows, whole)

    async def lease(self, name: str, seconds: float) -> bool:
        """See :class:`.store.RecordStore`."""
        arguments = [self._owner, round(seconds * 1000)]
        keys = [self._leases.lease(name)]
        return bool(await self._link.ask(self._lease, keys=keys, args=arguments))

    async def release(self, name: str) -> None:
        """See :class:`.store.RecordStore`."""
        await self._link.ask(self._release, keys=[self._leases.lease(name)], args=[self._owner])

    def _keys(self, kind: Kind) -> Keys:
        return Keys(self._cluster, kind)

    async def _remove(self, kind: Kind, rows: list[PeerRow], whole: Iterable[str]) -> None:
        keys = self._keys(kind)
        async with self._link.pipeline(transaction=True) as pipeline:
            for row in rows:
                pipeline.delete(keys.peer(row.id))
                pipeline.srem(keys.peers(row.task_id), row.id)
                pipeline.srem(keys.replicas(row.task_id), row.id)
                pipeline.srem(keys.host_peers(row.host_id), row.id)
            for key in whole:
                pipeline.delete(key)
            await self._link.ask(pipeline.execute)

    async def _task_rows(self, kind: Kind, ids: list[str]) -> list[TaskRow | None]:
        keys = self._keys(kind)
        return [
            task_row(kind, found) for found in await self._link.many("hgetall", map(keys.task, ids))
        ]

    async def _peer_rows(self, kind: Kind, ids: list[str]) -> list[PeerRow | None]:
        keys = self._keys(kind)
        return [
            peer_row(kind, found) for found in await self._link.many("hgetall", map(keys.peer, ids))
        ]

    async def _peers_of(self, kind: Kind, tasks: list[str]) -> list[list[PeerRow]]:
        """The peers of each task."""
        keys = self._keys(kind)
        members = await self._link.many("smembers", map(keys.peers, tasks))
        ids = sorted({member.decode() for each in members for member in each})
        rows = await self._peer_rows(kind, ids)
        found: dict[str, list[PeerRow]] = {task: [] for task in tasks}
        for row in rows:
            if row is not None and row.task_id in found:
                found[row.task_id].append(row)
        return list(found.values())

    async def _scan(self, pattern: str) -> list[bytes]:
        """Keys of hashes. Pages are large: there may be millions of others."""
        pages = self._redis.scan_iter(match=pattern, count=10_000, _type="HASH")
        return [key async for key in pages]


def _flat(fields: dict[str, str | bytes]) -> list[str | bytes]:
    return [part for pair in fields.items() for part in pair]


def _literal(text: str) -> str:
    """*text* in a pattern of Redis, where some characters mean more than themselves."""
    return "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in text)
