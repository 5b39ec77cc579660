"""Kinds of task, what a caller asks for, and what is remembered of a task and its pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from .pieces import ByteRange

#: Opens the version of content whose origin names none. What follows is new for each reading
#: of the origin, so that what was read twice is never joined.
READING: Final = "reading:"


class Kind(IntEnum):
    """A kind of task; the numbers are ``common.v2.TaskType``. What differs is in core.policy."""

    STANDARD = 0
    PERSISTENT = 1
    PERSISTENT_CACHE = 2
    CACHE = 3


class Traffic(IntEnum):
    """Where a piece came from; the numbers are ``common.v2.TrafficType``."""

    BACK_TO_SOURCE = 0
    REMOTE_PEER = 1
    LOCAL_PEER = 2


#: Dragonfly's priorities are LEVEL0 to LEVEL6: nothing is downloaded at 1, and at 2 only what
#: peers have. The others differ in who may go to the origin, which schedulers decide.
PRIORITIES: Final = range(7)
PRIORITY_FORBIDDEN: Final = 1
PRIORITY_ONLY_PEERS: Final = 2


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What is wanted: a file or a range of it, and where it may be fetched from.

    The fields are those of ``common.v2.Download`` and its like. How a caller wants to get it is
    a :class:`Delivery`.
    """

    kind: Kind
    url: str
    #: Names what was imported, which has no URL.
    task_id: str | None = None
    #: What comes is a replica: it stays until its time is over, whatever room others need.
    persistent: bool = False
    range: ByteRange | None = None
    tag: str | None = None
    application: str | None = None
    priority: int = 0
    filtered_query_params: tuple[str, ...] = ()
    request_header: Mapping[str, str] = field(default_factory=dict)
    piece_length: int | None = None
    disable_back_to_source: bool = False
    need_back_to_source: bool = False
    prefetch: bool = False
    is_prefetch: bool = False
    content_for_calculating_task_id: str | None = None
    remote_ip: str | None = None
    #: The id is the digest in the URL, where that is one of an image's blob.
    enable_task_id_based_blob_digest: bool = False
    certificate_chain: tuple[bytes, ...] = ()
    #: How special origins let somebody in: values by the contract's names, of its messages
    #: ``object_storage``, ``hdfs``, ``hugging_face`` and ``model_scope``.
    access: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def revision(self) -> str | None:
        """Of what is wanted from a model hub; None: from none, or whichever is the latest."""
        hubs = (self.access.get(name, {}) for name in ("hugging_face", "model_scope"))
        return next((str(hub["revision"]) for hub in hubs if hub.get("revision")), None)

    @property
    def only_peers(self) -> bool:
        """The origin must not be asked on its behalf, whoever says that it should."""
        return self.disable_back_to_source or self.priority == PRIORITY_ONLY_PEERS


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A file of this machine that is to become a task.

    Attributes:
        path: Absolute, of a regular file.
        replicas: So many hosts shall keep it.
        ttl: Seconds that it lives.
        content_for_calculating_task_id: Stands for the bytes of the file, which are not hashed.
        piece_length: Bytes; None: as befits the file.
        timeout: Seconds that all of it may take. None: no limit of the caller's own.
    """

    kind: Kind
    path: str
    replicas: int
    ttl: float
    content_for_calculating_task_id: str | None = None
    tag: str | None = None
    application: str | None = None
    piece_length: int | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class ImportedTask:
    """What schedulers know of a task that was imported. The same to all who ask.

    Attributes:
        created_at: Unix time at which its import began.
        ttl: Seconds that it lives from then on; None: they do not say.
        version: Tells it from an earlier task of that id, whose bytes may have been others.
    """

    content_length: int
    piece_length: int
    created_at: float
    ttl: float | None
    version: str


@dataclass(frozen=True, slots=True)
class Description:
    """What a task is, by the word of its origin, as one host has it from another.

    Attributes:
        piece_length: Bytes; 0: as befits the length.
        version: As the origin named it; ``""`` if it did not.
        response_header: Of the origin's answer, fit for whoever could have asked the same.
        read: The origin names no length; the content was read to its end.
        growth: The version of the reading that ended as this, for who has followed it; ``""``: of
            none that is known.
    """

    content_length: int
    piece_length: int = 0
    version: str = ""
    response_header: Mapping[str, str] = field(default_factory=dict)
    read: bool = False
    growth: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one caller wants to get what is wanted. It concerns no other caller, and no other host.

    Attributes:
        digest: Of the whole content, ``algorithm:encoded``; what comes must be that.
        timeout: Seconds this caller is willing to wait. None: no limit of its own.
        need_piece_content: The bytes of each piece go with the news of it.
        output_path: Where the daemon is to write it.
        overwrite: A file that is there may be replaced.
        force_hard_link: What is at the output path must be the stored file itself.
        early: The caller reads the bytes where they lie, before all are here (docs/handoff.md).
        again: The caller can let go of all that it was given, and take it anew.
        progress: Tell also what is here of pieces that are not whole (docs/handoff.md).
        attended: Somebody waits for it. Nobody does for a prefetch, which its caller has left.
        patient: Where there is no room, wait for some. Who has others to ask is not.
        refresh: It must be what its origin has since this was asked for, which is asked for that.
    """

    digest: str | None = None
    timeout: float | None = None
    need_piece_content: bool = False
    output_path: str | None = None
    overwrite: bool = False
    force_hard_link: bool = False
    early: bool = False
    again: bool = False
    progress: bool = False
    attended: bool = True
    patient: bool = True
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """A verified piece. There is no record of a piece that is not.

    Attributes:
        digest: ``crc32:<decimal>`` of exactly the piece's bytes.
        parent_id: Peer that it came from; None for the origin.
        cost: Seconds from the first try to publication.
        created_at: Unix time of publication, seconds.
    """

    number: int
    offset: int
    length: int
    digest: str
    parent_id: str | None
    traffic: Traffic
    cost: float
    created_at: float


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What is remembered of a task. Times are unix seconds.

    Attributes:
        url: Its public form: records are shown to others, and nothing is fetched by them.
        identity: What it was made from, see :class:`~pantala.model.ids.Identity`; ids of some
            kinds can be those of another.
        updated_at: Last use: a transition, a local hit, or an upload.
        finished_at: Set while *every* piece is here, and only then.
        version: What the origin said of the content's identity (ETag or the like), or the
            reading that it is of (:data:`READING`); ``""`` when nobody has said.
        persistent: It is to stay until its time is over, whatever room others need.
        ttl: Seconds that it lives from its creation. None: as long as it is used, by its kind's
            time to live.
        peer_id: Of what was imported: the peer as which schedulers know this copy, or are about to.
    """

    kind: Kind
    id: str
    url: str
    created_at: float
    updated_at: float
    identity: str = ""
    tag: str | None = None
    application: str | None = None
    piece_length: int | None = None
    content_length: int | None = None
    response_header: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    uploading_count: int = 0
    uploaded_count: int = 0
    prefetched_at: float | None = None
    failed_at: float | None = None
    finished_at: float | None = None
    persistent: bool = False
    ttl: float | None = None
    peer_id: str = ""

    @property
    def piece_count(self) -> int | None:
        """Pieces in the whole content; None while its length is unknown."""
        if self.content_length is None or self.piece_length is None:
            return None
        return -(-self.content_length // self.piece_length)
