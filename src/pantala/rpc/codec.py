"""Announce streams on the wire: values of :mod:`pantala.model.announce` to messages, and back.

The contract has the same stream once for each kind of task, with other names and in three layouts:
what a peer says of its download stands in the register message itself (CACHE), in a message
within it (STANDARD), or is only as much as an imported file needs (PERSISTENT_CACHE). A
:class:`Layout` says which field has what, a :class:`Codec` adds the names of one kind. Daemon and
scheduler use the same one.

What comes from a stranger is read as it is, and judged by whoever reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pantala.errors import InvalidRequest, SchedulerLost
from pantala.model import announce
from pantala.model.announce import Answer, Candidate, HostFacts, Registration, Report
from pantala.model.task import DownloadRequest, Kind, Traffic
from pantala.pb import common_pb2

from .convert import (
    download_request,
    fill_download,
    get,
    optional,
    piece_message,
    piece_record,
    put,
    read_range,
    write_range,
)

#: Characters of a description; the rest is cut off.
MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the contract says what a peer wants, and how the content is cut.

    Attributes:
        part: The field that the download is described in; None: the message itself.
        content_length: The field of that name of a registration; None: it is not told.
        piece_length: Likewise.
        piece_count: Likewise.
    """

    part: str | None = None
    content_length: str | None = "actual_content_length"
    piece_length: str = "actual_piece_length"
    piece_count: str = "actual_piece_count"

    def of(self, message: Any) -> Any:
        """Where *message* describes a download."""
        return message if self.part is None else getattr(message, self.part)


FLAT: Final = Layout()
NESTED: Final = Layout(part="download")
#: The length of what was imported is known by its task.
IMPORTED: Final = Layout(
    content_length=None, piece_length="piece_length", piece_count="piece_count"
)


@dataclass(frozen=True, eq=False)
class Codec:
    """The announce stream of one kind.

    Attributes:
        kind: Of task.
        layout: Where things stand.
        request: Message of a peer.
        register_arm: The arm of it that opens the stream.
        report_arms: The arm of each report.
        answer, answer_arms: Message to a peer, and the arm of each answer.
        candidates: Field of an answer with parents that lists them.
        download: Message that asks a daemon to fetch.
    """

    kind: Kind
    layout: Layout
    request: type[Any]
    register_arm: str
    report_arms: Mapping[type[Report], str]
    answer: type[Any]
    answer_arms: Mapping[type[Answer], str]
    candidates: str
    download: type[Any]

    # -- what a peer says

    def encode(self, peer: Registration, said: Registration | Report) -> Any:
        """A message of *peer*: its registration, or a report."""
        message = self.request(host_id=peer.host_id, task_id=peer.task_id, peer_id=peer.peer_id)
        if isinstance(said, Registration):
            self._write_registration(_set(message, self.register_arm), said)
        else:
            _write_report(_set(message, self.report_arms[type(said)]), said)
        return message

    def decode(self, message: Any) -> Registration | Report:
        """What a peer says.

        Raises:
            InvalidRequest: Nothing.
        """
        arm = message.WhichOneof("request")
        if arm is None:
            raise InvalidRequest("the message has no request in it")
        if arm == self.register_arm:
            return self._read_registration(message, getattr(message, arm))
        return _read_report(self._reports[arm], getattr(message, arm))

    @functools.cached_property
    def _reports(self) -> Mapping[str, type[Report]]:
        return {arm: report for report, arm in self.report_arms.items()}

    def _write_registration(self, arm: Any, said: Registration) -> None:
        part = self.layout.of(arm)
        part.SetInParent()
        fill_download(part, said.request)
        put(part, "digest", said.digest)
        put(part, "metadata_only", said.metadata_only)
        put(part, "concurrent_piece_count", said.concurrent_piece_count)
        for name in ("content_length", "piece_length", "piece_count"):
            put(part, getattr(self.layout, name), getattr(said, name))

    def _read_registration(self, message: Any, arm: Any) -> Registration:
        part = self.layout.of(arm)
        actual = {
            name: get(part, getattr(self.layout, name))
            for name in ("content_length", "piece_length", "piece_count")
        }
        return Registration(
            host_id=message.host_id,
            task_id=message.task_id,
            peer_id=message.peer_id,
            request=download_request(self.kind, part),
            concurrent_piece_count=get(part, "concurrent_piece_count"),
            digest=get(part, "digest"),
            metadata_only=bool(get(part, "metadata_only")),
            **actual,
        )

    # -- what it is answered

    def encode_answer(self, said: Answer) -> Any:
        """A message to a peer."""
        message = self.answer()
        arm = _set(message, self.answer_arms[type(said)])
        match said:
            case announce.CandidateParents(candidates):
                listed = getattr(arm, self.candidates)
                for candidate in candidates:
                    write_candidate(listed.add(), candidate)
            case announce.NeedBackToSource(description):
                put(arm, "description", description or None)
        return message

    def decode_answer(self, message: Any) -> Answer:
        """What a scheduler answers. Candidates that nobody could call are left out.

        Raises:
            SchedulerLost: Nothing that is known.
        """
        arm = message.WhichOneof("response")
        said = self._answers.get(arm)
        if said is announce.CandidateParents:
            listed = getattr(getattr(message, arm), self.candidates)
            found = (_read_candidate(peer) for peer in listed)
            return announce.CandidateParents(tuple(c for c in found if c is not None))
        if said is announce.NeedBackToSource:
            return announce.NeedBackToSource(getattr(message, arm).description)
        if said is None:
            raise SchedulerLost(f"unexpected answer of the scheduler: {arm}")
        return said()  # type: ignore[call-arg]  # the others have nothing in them

    @functools.cached_property
    def _answers(self) -> Mapping[str, type[Answer]]:
        return {arm: answer for answer, arm in self.answer_arms.items()}

    # -- what a daemon is asked

    def encode_download(self, request: DownloadRequest) -> Any:
        """A message that asks a daemon to fetch."""
        message = self.download()
        part = self.layout.of(message)
        part.SetInParent()
        fill_download(part, request)
        return message


def write_candidate(message: Any, candidate: Candidate) -> None:
    """A parent as its children need it: they ask it for the rest."""
    message.id = candidate.peer_id
    message.state = candidate.state
    put(message, "priority", candidate.priority)
    put(message, "concurrent_piece_count", candidate.concurrent_piece_count)
    # A host has many children: what they are told of it can have been written once for all.
    message.host.MergeFromString(candidate.host_told or write_host(candidate.host))
    write_range(message, candidate.range)


def write_host(host: HostFacts) -> bytes:
    """What of a host its children are told, as it goes on the wire."""
    return common_pb2.Host(
        id=host.id,
        type=host.type,
        hostname=host.hostname,
        ip=host.ip,
        port=host.port,
        download_port=host.download_port,
        network=common_pb2.Network(
            idc=host.idc,
            location=host.location,
            tx_bandwidth=host.tx_bandwidth,
            max_tx_bandwidth=host.max_tx_bandwidth,
        ),
    ).SerializeToString()


def read_host(message: common_pb2.Host) -> HostFacts:
    """What of a host stands in every message that has one: who and where it is, and its links."""
    network = message.network
    return HostFacts(
        id=message.id,
        type=message.type,
        hostname=message.hostname,
        ip=message.ip,
        port=message.port,
        download_port=message.download_port,
        idc=network.idc,
        location=network.location,
        tx_bandwidth=network.tx_bandwidth,
        max_tx_bandwidth=network.max_tx_bandwidth,
    )


def _read_candidate(message: Any) -> Candidate | None:
    host = read_host(message.host)
    if not message.id or not host.ip or not 0 < host.port < 65536:
        return None
    return Candidate(
        peer_id=message.id,
        host=host,
        state=message.state,
        priority=get(message, "priority") or 0,
        range=read_range(message),
        concurrent_piece_count=get(message, "concurrent_piece_count"),
    )


def _write_report(arm: Any, said: Report) -> None:
    match said:
        case announce.PieceFinished(piece) | announce.SourcePieceFinished(piece):
            arm.piece.CopyFrom(piece_message(piece))
        case announce.PieceFailed(number, parent_id, temporary):
            put(arm, "piece_number", number)
            arm.parent_id, arm.temporary = parent_id, temporary
        case announce.SourcePieceFailed(description, by_origin, status_code, number):
            put(arm, "piece_number", number)
            told = arm.backend if by_origin else arm.unknown
            told.message = description[:MAX_TEXT]
            if by_origin:
                put(told, "status_code", status_code)
        case announce.Reschedule(parents):
            for parent in parents:
                arm.candidate_parents.add(id=parent)
    if not isinstance(said, announce.SourcePieceFailed):
        put(arm, "description", getattr(said, "description", "")[:MAX_TEXT] or None)


def _read_report(report: type[Report], arm: Any) -> Report:
    # Of all that is said most is that, and it has no description.
    if report is announce.PieceFinished:
        return announce.PieceFinished(piece_record(arm.piece, Traffic.REMOTE_PEER))
    if report is announce.SourcePieceFinished:
        return announce.SourcePieceFinished(piece_record(arm.piece, Traffic.BACK_TO_SOURCE))
    said: dict[str, Any] = {}
    if report is announce.PieceFailed:
        said = {
            "number": optional(arm, "piece_number"),
            "parent_id": arm.parent_id,
            "temporary": arm.temporary,
        }
    elif report is announce.SourcePieceFailed:
        by_origin = arm.WhichOneof("response") == "backend"
        said = {
            "number": optional(arm, "piece_number"),
            "description": (arm.backend if by_origin else arm.unknown).message[:MAX_TEXT],
            "by_origin": by_origin,
            "status_code": optional(arm.backend, "status_code") if by_origin else None,
        }
    elif report is announce.Reschedule:
        said["parents"] = tuple(parent.id for parent in arm.candidate_parents)
    description = get(arm, "description")
    if description is not None:
        said["description"] = description[:MAX_TEXT]
    return report(**said)


def _set(message: Any, name: str) -> Any:
    """A field that is a message, set, to be filled in."""
    part = getattr(message, name)
    part.SetInParent()
    return part
