"""The files of a directory, which hosts are asked for: they know origins, a scheduler does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Final

from pantala.core.sched.world import World
from pantala.errors import DragonflyError, InvalidRequest, NoProvider, OriginError
from pantala.model.announce import HostFacts
from pantala.model.ids import task_id
from pantala.model.task import DownloadRequest
from pantala.model.urls import public_url
from pantala.pb import dfdaemon_pb2
from pantala.rpc.convert import fill_download

from .hosts import ask

#: Seconds for one host to list a directory, and hosts that are asked until one can.
_LIMIT: Final = 30.0
_TRIES: Final = 3

#: Schemes by which daemons of ours fetch. Of others, stock ones are asked first.
_OURS: Final = ("http://", "https://", "file://")


def is_directory(url: str) -> bool:
    """Whether *url* means all files below it, as in the contract."""
    return url.endswith("/")


async def files_of(world: World, directory: DownloadRequest) -> list[DownloadRequest]:
    """A request for each file at the URL of *directory*; directories in there are left out.

    Raises:
        InvalidRequest: There is none.
        NoProvider: There is no host that could be asked.
        DragonflyError: What the last one said that was asked.
    """
    message = dfdaemon_pb2.ListTaskEntriesRequest()
    fill_download(message, directory)
    message.task_id = task_id(directory.kind, directory.url)
    shown = public_url(directory.url)
    failure: DragonflyError = NoProvider("no host is known here that could list")
    for host in _whom(world, directory.url):
        try:
            answer = await ask(host, "ListTaskEntries", message, timeout=_LIMIT, stock_hello=_LIMIT)
        except OriginError as error:
            raise InvalidRequest(f"{shown}: its origin says {error.message}") from error
        except DragonflyError as error:
            failure = error
            continue
        found = _files(answer)
        if not found:
            raise InvalidRequest(
                f"{shown}: a URL that ends with a slash is a directory; no files are listed there"
            )
        return [replace(directory, url=url) for url in found]
    raise failure


def _whom(world: World, url: str) -> Sequence[HostFacts]:
    """Hosts that may list it, those first that need not be spared."""
    ours_first, roster = url.startswith(_OURS), world.roster
    normal, seeds = (roster.each(seeds=seeds, ours_first=ours_first) for seeds in (False, True))
    return list(islice(chain(normal, seeds), _TRIES))


def _files(answer: dfdaemon_pb2.ListTaskEntriesResponse) -> list[str]:
    return [entry.url for entry in answer.entries if not entry.is_dir]
