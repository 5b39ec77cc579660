"""The daemons' services as a table: what is asked of them, by other names for each kind of task.

Names of methods and messages follow one pattern, in which each kind has a word of its own; what
does not follow it is a field of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from pantala.errors import FeatureOff, InvalidRequest
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2

DOWNLOAD_SERVICE: Final = dfdaemon_pb2.DESCRIPTOR.services_by_name["DfdaemonDownload"].full_name
UPLOAD_SERVICE: Final = dfdaemon_pb2.DESCRIPTOR.services_by_name["DfdaemonUpload"].full_name

#: Trailing metadata of a download that was carried out as a task of another kind: which.
STORED_AS_KEY: Final = "pantala-stored-as"


@dataclass(frozen=True, slots=True)
class DaemonDialect:
    """How one kind is spoken of.

    Attributes:
        kind: Of task.
        word: What the kind's names have where others have nothing, or another: ``"Cache"``.
        started: The arm of a download's first message.
        numbers: The field of a child's request that names the pieces it wants to hear of.
        download: The field of a request to download that says what is wanted; None where its
            own fields do.
    """

    kind: Kind
    word: str
    started: str
    numbers: str
    download: str | None

    def name(self, pattern: str) -> str:
        """What *pattern* is for this kind: ``Stat{}Task`` is ``StatCacheTask``."""
        return pattern.format(self.word)

    def message(self, pattern: str) -> type[Any]:
        """The message that is named so, of either package."""
        for package in ("dfdaemon.v2", "common.v2"):
            try:
                found = _POOL.FindMessageTypeByName(f"{package}.{self.name(pattern)}")
            except KeyError:
                continue
            return GetMessageClass(found)
        raise LookupError(f"the contract has no message {self.name(pattern)}")

    def method(self, pattern: str, service: str = UPLOAD_SERVICE) -> str | None:
        """The method that is named so; None where the contract has none for this kind."""
        methods = _POOL.FindServiceByName(service).methods_by_name
        name = self.name(pattern)
        return name if name in methods else None

    def wanted(self, request: Any) -> Any:
        """The message within a request to download that says what is wanted.

        Raises:
            InvalidRequest: There is none.
        """
        if self.download is None:
            return request
        if not request.HasField(self.download):
            raise InvalidRequest(f"the request has no {self.download}: nothing is asked for")
        return getattr(request, self.download)


_POOL: Final = descriptor_pool.Default()

DAEMON_DIALECTS: Final = {
    Kind.STANDARD: DaemonDialect(
        kind=Kind.STANDARD,
        word="",
        started="download_task_started_response",
        numbers="interested_piece_numbers",
        download="download",
    ),
    Kind.PERSISTENT_CACHE: DaemonDialect(
        kind=Kind.PERSISTENT_CACHE,
        word="PersistentCache",
        started="download_persistent_cache_task_started_response",
        numbers="interested_piece_numbers",
        download=None,
    ),
    Kind.CACHE: DaemonDialect(
        kind=Kind.CACHE,
        word="Cache",
        started="download_cache_task_started_response",
        numbers="interested_cache_piece_numbers",
        download=None,
    ),
}


def daemon_dialect(kind: Kind) -> DaemonDialect:
    """The row of *kind*. Raises FeatureOff for a kind that nobody speaks of yet."""
    try:
        return DAEMON_DIALECTS[kind]
    except KeyError:
        raise FeatureOff(f"{kind.name} tasks are not served") from None
