"""What a peer and its scheduler tell each other of one download; the same words for every kind.

A peer opens with a :class:`Registration` and goes on with reports, the scheduler has answers:

    Registration ─────────────► CandidateParents │ NeedBackToSource │ EmptyTask │ MetadataOnly
    Started, PieceFinished … ─►
    Reschedule ───────────────► CandidateParents │ NeedBackToSource
    Finished, Failed … ───────► the end

Their names are those of the contract, ``Source`` standing for its ``BackToSource``. How they look
on the wire differs from kind to kind: :mod:`pantala.rpc.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from .addresses import host_port
from .pieces import ByteRange
from .task import DownloadRequest, Kind, PieceRecord
from .urls import public_url

#: Weight of a host that says nothing of its bandwidth, as Dragonfly's client.
_DEFAULT_WEIGHT: Final = 10e9


def free_bandwidth(most: int, used: int) -> float:
    """What a host can still send, bits a second: above 0, however busy it says it is.

    A tenth of all is left to every host, as Dragonfly's client has it.
    """
    return float(max(most - used, most / 10)) if most else _DEFAULT_WEIGHT


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host says of itself.

    Attributes:
        port: Where its gRPC service for other hosts listens.
        download_port: Likewise; Dragonfly's daemons announce one port twice.
        type: 0 is a normal host, anything else a seed.
        disable_shared: It must never be a parent.
        idc: Data centre, ``""`` if unknown.
        location: Elements from the largest to the smallest, separated by ``|``.
        tx_bandwidth: Bits a second that it sends now.
        max_tx_bandwidth: Bits a second that it may send, 0 if unknown.
        disk_free: Bytes that its disk has left, 0 if unknown.
        version: Of its program.
        interval: Seconds until it announces itself again; 0 if it does not say.
        announced: The announcement as it came on the wire. Not looked into here.
    """

    id: str
    hostname: str
    ip: str
    port: int
    download_port: int = 0
    type: int = 0
    disable_shared: bool = False
    idc: str = ""
    location: str = ""
    tx_bandwidth: int = 0
    max_tx_bandwidth: int = 0
    disk_free: int = 0
    version: str = ""
    interval: float = 0.0
    announced: bytes = b""

    @property
    def is_seed(self) -> bool:
        """Seeds fetch from the origin so that others need not."""
        return self.type != 0

    @property
    def is_ours(self) -> bool:
        """Whether its program is pantala, which can be asked for cache tasks."""
        return self.version.startswith("pantala/")

    @property
    def address(self) -> str:
        """Where to call it, as gRPC wants it."""
        return host_port(self.ip, self.port)

    @property
    def weight(self) -> float:
        """What it can still send; see :func:`free_bandwidth`."""
        return free_bandwidth(self.max_tx_bandwidth, self.tx_bandwidth)


@dataclass(frozen=True, slots=True)
class Registration:
    """A peer's first words.

    Attributes:
        request: What is wanted; its range is what the peer will hold.
        content_length: Bytes; None when the peer does not say, which for a task that nobody
            holds means that it is empty.
        piece_length: Bytes; None when it does not say.
        piece_count: Of the whole content; None when it does not say.
        concurrent_piece_count: Fetches at once; None when it does not say.
        digest: Of the content, as a caller of its gave it; nobody else is held to it.
        metadata_only: The peer has the content already and only says so.
        version: Of the content that it has, or will have and no other, as an origin named it;
            ``""``: that is to show. The contract has no place for it.
    """

    host_id: str
    task_id: str
    peer_id: str
    request: DownloadRequest
    content_length: int | None = None
    piece_length: int | None = None
    piece_count: int | None = None
    concurrent_piece_count: int | None = None
    digest: str | None = None
    metadata_only: bool = False
    version: str = ""

    @property
    def kind(self) -> Kind:
        """The kind of the task that is wanted."""
        return self.request.kind

    @property
    def size(self) -> int:
        """Characters in its texts, but for headers and secrets of the origin."""
        request = self.request
        named = (self.host_id, self.task_id, self.peer_id, request.url, self.version)
        texts = (*named, request.tag, request.application, *request.filtered_query_params)
        return sum(len(text or "") for text in texts)

    def public(self) -> Registration:
        """The same without what is nobody's business but the peer's and its seed's.

        It may be kept, and shown.
        """
        request = self.request
        shown = DownloadRequest(
            kind=request.kind,
            url=public_url(request.url),
            persistent=request.persistent,
            range=request.range,
            tag=request.tag,
            application=request.application,
            priority=request.priority,
            filtered_query_params=request.filtered_query_params,
            disable_back_to_source=request.disable_back_to_source,
            need_back_to_source=request.need_back_to_source,
        )
        return replace(self, request=shown)


# -- reports -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """It fetches from parents. Said again after each answer that names some."""


@dataclass(frozen=True, slots=True)
class PieceFinished:
    """A parent gave it a piece."""

    piece: PieceRecord


@dataclass(frozen=True, slots=True)
class PieceSum:
    """What several reports of pieces come to, all from the same parent.

    Attributes:
        parent_id: Who; None for the origin.
        count: Pieces.
        length: Bytes in all of them.
        cost: Seconds that the last one took.
    """

    parent_id: str | None
    count: int
    length: int
    cost: float


@dataclass(frozen=True, slots=True)
class PieceFailed:
    """A parent did not give it a piece.

    Attributes:
        number: None when it does not say.
        parent_id: Who.
        temporary: Another parent may give it.
    """

    number: int | None
    parent_id: str
    temporary: bool = True


@dataclass(frozen=True, slots=True)
class Reschedule:
    """It wants other parents: these have nothing more to give."""

    parents: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """It has everything, from parents. One of four last words."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It gives up, and the origin is not why."""

    description: str = ""


@dataclass(frozen=True, slots=True)
class SourceStarted:
    """It fetches from the origin."""

    description: str = ""


@dataclass(frozen=True, slots=True)
class SourcePieceFinished:
    """The origin gave it a piece."""

    piece: PieceRecord


@dataclass(frozen=True, slots=True)
class SourcePieceFailed:
    """The origin did not give it a piece, or something on the way to it went wrong.

    Attributes:
        description: What.
        by_origin: It was the origin.
        status_code: What that answered, by HTTP; None when it did not.
        number: None when it does not say.
    """

    description: str = ""
    by_origin: bool = False
    status_code: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class SourceFinished:
    """It has everything, some of it from the origin."""


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """It gives up, for the origin failed it."""

    description: str = ""


#: Of single pieces.
PieceReport = PieceFinished | PieceFailed | SourcePieceFinished | SourcePieceFailed
#: After these the scheduler ends the stream, and a daemon waits for that.
LastReport = Finished | Failed | SourceFinished | SourceFailed
#: Of the download.
DownloadReport = Started | SourceStarted | LastReport
Report = DownloadReport | PieceReport | Reschedule

# -- answers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that the scheduler proposes as a parent.

    Attributes:
        peer_id: Its id.
        host: Where it is; of a host only what its children need is told.
        state: Where its own download is, by the contract's names.
        priority: Of its download.
        range: The part that it has or fetches; None: everything.
        concurrent_piece_count: Pieces that it fetches at once.
        host_told: What is told of the host, as it goes on the wire, where that is at hand.
    """

    peer_id: str
    host: HostFacts
    state: str = ""
    priority: int = 0
    range: ByteRange | None = None
    concurrent_piece_count: int | None = None
    host_told: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CandidateParents:
    """Fetch from these, best first."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class NeedBackToSource:
    """The peer is to fetch from the origin.

    Attributes:
        description: Why, in words for a log.
    """

    description: str = ""


@dataclass(frozen=True, slots=True)
class EmptyTask:
    """There is nothing to fetch."""


@dataclass(frozen=True, slots=True)
class MetadataOnly:
    """The scheduler has noted what this host has; nothing is to be fetched."""


Answer = CandidateParents | NeedBackToSource | EmptyTask | MetadataOnly
