"""Every error this package raises on purpose, in one tree.

    DragonflyError
    ├── Refused                     the same request will never be served
    │   ├── InvalidRequest
    │   │   └── RangeNotSatisfiable
    │   ├── NotFound
    │   │   ├── TaskNotFound
    │   │   ├── PieceNotFound
    │   │   └── HostUnknown
    │   ├── Forbidden
    │   ├── NotYours
    │   ├── FeatureOff
    │   ├── OutputExists
    │   ├── TaskExists
    │   └── ConfigError
    │       ├── UsageError
    │       └── CannotListen
    ├── Unavailable                 not now; perhaps later, perhaps elsewhere
    │   ├── Busy
    │   ├── NoRoom
    │   │   └── OutOfDescriptors
    │   ├── StoreFailed
    │   ├── ParentLost
    │   ├── SchedulerLost
    │   ├── NoProvider
    │   ├── TaskDeleted
    │   └── TimedOut
    ├── ProtocolError               raise one of the two below
    │   ├── LocalProtocolError      our bug
    │   └── RemoteProtocolError     the peer's fault
    ├── Corrupt                     bytes are not what they should be
    │   ├── DigestMismatch
    │   └── Damaged
    ├── OriginError
    │   ├── SourceUnreachable
    │   ├── SourceChanged
    │   └── OriginClosed
    │       └── OnlyPeers
    └── InvalidTransition           a state machine got an event it has no row for

A class carries all that a boundary needs to answer with: a gRPC code and a Vortex code. It also
says whose fault it is: one node's trouble, or one caller's wrong password, must not be held against
an origin by everybody. Boundaries (``rpc.status``, ``net.piece_server``,
``daemon.serving.handoff_server``, ``cli.dfget``) read these; nobody else does.

- :mod:`.codes`: the numbers and words that a class carries
- :mod:`.answers`: codes read back: the error that another process's answer stands for
"""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EAFNOSUPPORT

from .codes import Blame as Blame
from .codes import Code as Code
from .codes import VortexCode as VortexCode

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Final


class DragonflyError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        blame: Whose fault it is, as seen by the node that raised it.
    """

    blame: Blame = Blame.LOCAL
    code: ClassVar[Code] = Code.INTERNAL
    vortex: ClassVar[VortexCode] = VortexCode.INTERNAL

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, whatever its class is made from: another process may have to be told of it."""
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(cls: type[DragonflyError], args: tuple[Any, ...]) -> DragonflyError:
    return cls.__new__(cls, *args)


class Refused(DragonflyError):
    """The same request will never be served."""

    blame = Blame.CALLER
    code = Code.INVALID_ARGUMENT
    vortex = VortexCode.INVALID_ARGUMENT


class InvalidRequest(Refused):
    """A field is missing, or makes no sense."""


class RangeNotSatisfiable(InvalidRequest):
    """The range is empty, malformed, or starts past the end of the content."""

    code = Code.FAILED_PRECONDITION


class NotFound(Refused):
    """A named thing is not here."""

    code = Code.NOT_FOUND
    vortex = VortexCode.NOT_FOUND


class TaskNotFound(NotFound):
    """No task of that id is known here."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} not found")
        self.task_id = task_id


class PieceNotFound(NotFound):
    """The task may be known; this piece of it is not here."""

    def __init__(self, task_id: str, number: int) -> None:
        super().__init__(f"piece {number} of task {task_id} not found")
        self.task_id = task_id
        self.number = number


class HostUnknown(NotFound):
    """A scheduler does not know the host that calls. Once it is announced, it may try again."""


class Forbidden(Refused):
    """The operator does not allow it; the message names the key."""

    code = Code.PERMISSION_DENIED


class NotYours(Refused):
    """The thing belongs to somebody else."""

    code = Code.PERMISSION_DENIED


class FeatureOff(Refused):
    """Switched off by configuration; the message names the key."""

    code = Code.FAILED_PRECONDITION


class OutputExists(Refused):
    """The output path exists and overwriting was not asked for."""

    code = Code.ALREADY_EXISTS


class TaskExists(Refused):
    """A task that is to come to be is there already, or somebody else is about to make it."""

    code = Code.ALREADY_EXISTS


class ConfigError(Refused):
    """A setting is unknown or makes no sense; the message names it."""

    blame = Blame.LOCAL


class UsageError(ConfigError):
    """The command line says what it must not; the message names the flag."""


class CannotListen(ConfigError):
    """An address is taken, or is not one of this machine.

    Args:
        address: ``host:port``.
        why: What the system said, in words.
        number: And its ``errno``, if it has one; negative when a name does not resolve.
        ip_key: The setting that says on which IP to listen.
        port_key: The setting that says on which port.
        any_port: What that one is set to for any free port.
    """

    def __init__(
        self,
        address: str,
        why: str,
        number: int | None,
        *,
        ip_key: str,
        port_key: str,
        any_port: str = "0",
    ) -> None:
        foreign = number is not None and (number < 0 or number in {EADDRNOTAVAIL, EAFNOSUPPORT})
        advice = (
            f"set {ip_key} to an address of this machine"
            if foreign
            else f"set {port_key} to another port, or to {any_port} for any free one"
        )
        super().__init__(f"cannot listen on {address}: {why}; {advice}")


class Unavailable(DragonflyError):
    """Not now; perhaps later, perhaps elsewhere."""

    code = Code.UNAVAILABLE


class Busy(Unavailable):
    """At a limit that the operator has set."""

    code = Code.RESOURCE_EXHAUSTED


class NoRoom(Unavailable):
    """The store cannot hold this much.

    Args:
        needed: Bytes asked for on top of what the task already has.
        capacity: Bytes the store may hold in all.
        leased: Bytes of tasks in use, which eviction must not touch.
        kept: Bytes of replicas, which stay until their time is over.
        where: The store is, in words.
        advice: What an operator does about it.
    """

    code = Code.RESOURCE_EXHAUSTED

    #: It does not fit into a store of replicas alone either: waiting is in vain.
    hopeless = False

    def __init__(
        self,
        needed: int,
        *,
        capacity: int,
        leased: int,
        kept: int = 0,
        where: str = "in memory",
        advice: str = "raise storage.cacheCapacity",
    ) -> None:
        self.hopeless = kept + needed > capacity
        advice += "" if self.hopeless else ", or wait"
        room = f"{needed} bytes needed, capacity {capacity}, {leased} in use"
        room += f", {kept} kept as replicas of imported tasks" if kept else ""
        super().__init__(f"no room {where}: {room}; {advice}")
        self.needed = needed
        self.capacity = capacity
        self.leased = leased

    @classmethod
    def told(cls, message: str, needed: int, capacity: int) -> NoRoom:
        """That of another process, in its words."""
        error = cls.__new__(cls, message)
        error.needed, error.capacity, error.leased = needed, capacity, 0
        return error


class OutOfDescriptors(NoRoom):
    """Tasks in use have as many descriptors, or mappings (*what*), as tasks may have (*limit*)."""

    def __init__(self, what: str, limit: int | None) -> None:
        where = "the limit on open files" if what == "descriptors" else "vm.max_map_count"
        Exception.__init__(
            self,
            f"no room in memory: tasks in use have all {limit} {what} that they may have; "
            f"raise {where}, or wait",
        )
        self.hopeless = not limit


class StoreFailed(Unavailable):
    """What content is kept on refuses to take it: the disk is full, or fails."""


class ParentLost(Unavailable):
    """A parent could not be reached, or its connection ended too soon."""

    blame = Blame.PARENT


class SchedulerLost(Unavailable):
    """No scheduler answers, or its stream broke off."""


class NoProvider(Unavailable):
    """No peer offers the content and the origin may not be asked."""


class TaskDeleted(Unavailable):
    """The task was deleted or evicted while it was being used."""

    code = Code.ABORTED
    vortex = VortexCode.NOT_FOUND


class TimedOut(Unavailable):
    """A wait reached its end."""

    code = Code.DEADLINE_EXCEEDED


class ProtocolError(DragonflyError):
    """Someone broke a wire protocol; the two subclasses say who."""


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol forbids. Always a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids."""

    blame = Blame.PARENT
    vortex = VortexCode.INVALID_ARGUMENT


class Corrupt(DragonflyError):
    """Bytes are not what they should be."""

    blame = Blame.PARENT
    code = Code.DATA_LOSS


class DigestMismatch(Corrupt):
    """They arrived whole and wrong."""

    def __init__(self, what: str, *, want: str, got: str) -> None:
        super().__init__(f"digest mismatch of {what}: expected {want}, actual {got}")
        self.want = want
        self.got = got


class Damaged(Corrupt):
    """What is kept here is not any more what was verified. To others it is as if it were not here.

    Args:
        what: What should be here.
        why: How that shows.
        whole: All of the content, not a piece alone.
    """

    blame = Blame.LOCAL
    code = Code.NOT_FOUND
    vortex = VortexCode.NOT_FOUND

    def __init__(self, what: str, why: str, *, whole: bool = False) -> None:
        super().__init__(f"{what} is damaged on this node: {why}")
        self.whole = whole


#: Statuses of HTTP by which an origin refuses one caller's credentials.
CREDENTIALS_REFUSED: Final = frozenset({401, 403})


class OriginError(DragonflyError):
    """The origin refused, or could not be reached.

    Args:
        message: What happened, in words; for HTTP ``"404 Not Found"``.
        status: The origin's HTTP status, when there was an answer.
        header: The origin's response headers, likewise.
        transient: Whether the same request may succeed a little later.
        blame: Whose fault. None: the caller's if it refused credentials (401, 403), else its own.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        header: Mapping[str, str] | None = None,
        transient: bool = False,
        blame: Blame | None = None,
    ) -> None:
        super().__init__(message)
        refused = status in CREDENTIALS_REFUSED
        self.blame = blame or (Blame.CALLER if refused else Blame.ORIGIN)
        self.message = message
        self.status = status
        self.header = dict(header or {})
        self.transient = transient


class SourceUnreachable(OriginError):
    """No answer came of the origin, and one may come a little later: asking again may help."""

    code = Code.UNAVAILABLE


class SourceChanged(OriginError):
    """What comes is not, or cannot be shown to be, of the content that is here in part.

    Args:
        message: What disagrees, in words.
        version: Which version the origin says its content has now; ``""`` if it does not say.
        wavers: The origin's own answers disagree with one another.
        answer: As for every failure of an origin.
    """

    code = Code.ABORTED

    def __init__(
        self, message: str, *, version: str = "", wavers: bool = False, **answer: Any
    ) -> None:
        super().__init__(message, **answer)
        self.version = version
        self.wavers = wavers


class OriginClosed(OriginError):
    """A scheduler does not let this download go to the origin: its priority forbids that.

    It is nobody's failure, and the origin has not been asked.
    """

    code = Code.FAILED_PRECONDITION

    def __init__(self, message: str) -> None:
        super().__init__(message, blame=Blame.LOCAL)


class OnlyPeers(OriginClosed):
    """Likewise; peers could have had it, and have not."""

    code = Code.NOT_FOUND


class InvalidTransition(DragonflyError):
    """A state machine got an event it has no row for."""

    def __init__(self, who: str, state: str, event: str, story: tuple[str, ...]) -> None:
        super().__init__(f"{who}: no {event!r} from {state!r}; story: {' '.join(story)}")
        self.state = state
        self.event = event
        self.story = story
