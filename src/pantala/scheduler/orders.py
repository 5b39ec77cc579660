"""What a caller wants preheated, read and judged before anything is begun."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from pantala.core.sched.preheat import Scope, Selection, check_number, selection
from pantala.core.sched.rules import RULES
from pantala.errors import FeatureOff, Forbidden, InvalidRequest
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.model.ids import check_url, identity_of
from pantala.model.images import Reference, parse_manifest_url
from pantala.model.task import PRIORITIES, PRIORITY_FORBIDDEN, DownloadRequest, Kind
from pantala.model.urls import public_url
from pantala.pb import jobs_pb2, scheduler_pb2
from pantala.rpc.convert import download_request, get, kind_of, optional, seconds

from .convert import check_piece_length

#: What a job has unless it says otherwise, and at most; as in the contract.
_TASKS_AT_ONCE: Final = (8, 100)
_PEERS_AT_ONCE: Final = (500, 1000)
_TIMEOUT: Final = (3600.0, 7 * 86400.0)

#: URLs of one job, and bytes of one of them. Servers take 8 KiB.
MAX_URLS: Final = 10_000
_MAX_URL: Final = 16 * 1024

#: Fields of ``common.v2.Download`` that a job has no use for.
_NOT_OF_A_JOB: Final = ("url", "digest", "output_path", "range")


@dataclass(frozen=True, slots=True)
class ImageAccess:
    """How to get at the manifest of an image; see ``jobs.proto``."""

    platform: str = ""
    username: str | None = None
    password: str | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A job that makes sense.

    Attributes:
        wanted: Of each URL; its own is empty.
        urls: Files, and directories, which end with a slash, and images (``oci:``).
        selection: Which hosts.
        tasks_at_once: URLs.
        peers_at_once: Hosts of one URL.
        timeout: Seconds for all of it.
        output_path: Where stock daemons are to write it besides.
        image: For those URLs that are images.
        reference: Of the only URL, if that is a manifest's, as in the contract.
    """

    wanted: DownloadRequest
    urls: tuple[str, ...]
    selection: Selection = field(default_factory=Selection)
    tasks_at_once: int = _TASKS_AT_ONCE[0]
    peers_at_once: int = _PEERS_AT_ONCE[0]
    timeout: float = _TIMEOUT[0]
    output_path: str | None = None
    image: ImageAccess = field(default_factory=ImageAccess)
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One task of a job."""

    request: DownloadRequest
    task_id: str

    @property
    def url(self) -> str:
        """As it may be shown."""
        return public_url(self.request.url)


def file_order(message: scheduler_pb2.PreheatFileRequest | scheduler_pb2.StatFileRequest) -> Order:
    """What the contract's PreheatFile and StatFile ask for.

    Raises:
        InvalidRequest: It makes no sense; one line says what.
    """
    order = Order(_contracts(message), (message.url,))
    return _told(order, message)


def image_order(
    message: scheduler_pb2.PreheatImageRequest | scheduler_pb2.StatImageRequest,
) -> Order:
    """What the contract's PreheatImage and StatImage ask for.

    Raises:
        InvalidRequest: It makes no sense; one line says what.
    """
    reference = parse_manifest_url(message.url)
    order = Order(_contracts(message), (message.url,), reference=reference)
    return _told(replace(order, image=_image_access(message)), message)


def _image_access(message: Any) -> ImageAccess:
    return ImageAccess(
        message.platform,
        optional(message, "username"),
        optional(message, "password"),
        message.insecure_skip_verify,
    )


def _contracts(message: Any) -> DownloadRequest:
    """What the contract's messages say of the content: the same fields in all of them."""
    wanted = download_request(Kind.STANDARD, message)
    return replace(
        wanted,
        url="",
        request_header=dict(message.header),
        filtered_query_params=wanted.filtered_query_params or DEFAULT_FILTERED_QUERY_PARAMS,
    )


def _told(order: Order, message: Any) -> Order:
    """*order* with what all of the contract's messages say of how; it is judged."""
    known = message.DESCRIPTOR.fields_by_name
    targets = Selection()
    if "scope" in known:
        count, percentage = optional(message, "count"), optional(message, "percentage")
        targets = selection(message.scope, message.ips, count, percentage)
        if targets.scope is Scope.SINGLE_SEED:  # stock ones take no notice of the rest
            targets = Selection()
    tasks = next(
        (name for name in ("concurrent_task_count", "concurrent_layer_count") if name in known),
        None,
    )
    order = replace(
        order,
        selection=targets,
        tasks_at_once=_TASKS_AT_ONCE[0]
        if tasks is None
        else _number(message, tasks, _TASKS_AT_ONCE),
        peers_at_once=_number(message, "concurrent_peer_count", _PEERS_AT_ONCE),
        timeout=_timeout(message),
        output_path=optional(message, "output_path") if "output_path" in known else None,
    )
    _check(order)
    return order


def job_order(message: jobs_pb2.PreheatRequest) -> Order:
    """What ``pantala.v1.Jobs`` is asked for.

    Raises:
        InvalidRequest: It makes no sense; one line says what.
        FeatureOff: Tasks of that kind do not come to be by download.
    """
    kind = kind_of(message.download.type)
    rules = RULES.get(kind)
    if rules is None or not rules.from_source:
        raise FeatureOff(f"{kind.name} tasks are not preheated: want STANDARD or CACHE")
    for name in _NOT_OF_A_JOB:
        if get(message.download, name):
            raise InvalidRequest(f"download.{name}: not for a job")
    wanted = download_request(kind, message.download)
    targets: Any = message.targets
    order = Order(
        wanted=replace(
            wanted,
            filtered_query_params=wanted.filtered_query_params or DEFAULT_FILTERED_QUERY_PARAMS,
            enable_task_id_based_blob_digest=(
                wanted.enable_task_id_based_blob_digest and kind is Kind.STANDARD
            ),
        ),
        urls=tuple(dict.fromkeys(message.urls)),
        selection=selection(
            targets.scope,
            targets.ips,
            optional(targets, "count"),
            optional(targets, "percentage"),
        ),
        tasks_at_once=_number(message, "concurrent_task_count", _TASKS_AT_ONCE),
        peers_at_once=_number(message, "concurrent_peer_count", _PEERS_AT_ONCE),
        timeout=_timeout(message),
        image=_image_access(message.image),
    )
    _check(order)
    return order


#: Messages that ask for a job, by the names under which they are kept, and who reads each.
_FORMS: Final[Mapping[str, tuple[type[Any], Callable[[Any], Order]]]] = {
    "file": (scheduler_pb2.PreheatFileRequest, file_order),
    "image": (scheduler_pb2.PreheatImageRequest, image_order),
    "job": (jobs_pb2.PreheatRequest, job_order),
}


def order_of(request: Message) -> Order:
    """What a message asks for that can be kept. Raises InvalidRequest, FeatureOff."""
    return _FORMS[form_of(request)][1](request)


def form_of(request: Message) -> str:
    """The name under which a message is kept."""
    return next(form for form, (kind, _) in _FORMS.items() if isinstance(request, kind))


def kept_order(form: str, asked: bytes) -> Order:
    """What a message asked for that was kept.

    Raises:
        InvalidRequest: This version of the program knows no such message, or takes none.
        FeatureOff: Likewise.
    """
    try:
        kind, read = _FORMS[form]
        return read(kind.FromString(asked))
    except (KeyError, DecodeError):
        raise InvalidRequest(f"what was asked for cannot be read ({form[:20]!r})") from None


def planned(order: Order, urls: Iterable[DownloadRequest]) -> list[Planned]:
    """The tasks that *urls* are, each once. Raises InvalidRequest."""
    found: dict[str, Planned] = {}
    urls = list(urls)
    if len(urls) > 1 and order.wanted.content_for_calculating_task_id is not None:
        raise InvalidRequest("content_for_calculating_task_id: is of one file, and here are more")
    for request in urls:
        task_id = identity_of(request).task_id
        found.setdefault(task_id, Planned(request, task_id))
    if len(found) > MAX_URLS:
        raise InvalidRequest(f"{len(found)} files in one job: want at most {MAX_URLS}")
    if len(found) > 1 and order.output_path is not None:
        raise InvalidRequest(f"output_path: is for one file, and these are {len(found)}")
    return list(found.values())


def _number(message: Any, name: str, bounds: tuple[int, int]) -> int:
    default, most = bounds
    given = optional(message, name)
    check_number(name, given, most)
    return default if given is None else int(given)


def _timeout(message: Any) -> float:
    default, most = _TIMEOUT
    if not message.HasField("timeout"):
        return default
    given = seconds(message.timeout)
    if not 0 < given <= most:
        raise InvalidRequest(f"timeout of {given:g} s: want more than 0, and at most {most:g}")
    return given


def _check(order: Order) -> None:
    wanted = order.wanted
    if not 1 <= len(order.urls) <= MAX_URLS:
        raise InvalidRequest(f"{len(order.urls)} URLs in one job: want 1 to {MAX_URLS}")
    for url in order.urls:
        if len(url.encode()) > _MAX_URL:
            raise InvalidRequest(f"a URL of {len(url.encode())} bytes: want at most {_MAX_URL}")
        check_url(url)
    if wanted.priority not in PRIORITIES:
        raise InvalidRequest(f"priority {wanted.priority}: want LEVEL0 to LEVEL6")
    if wanted.priority == PRIORITY_FORBIDDEN:
        raise Forbidden("downloads of priority LEVEL1 are forbidden")
    check_piece_length("piece_length", wanted.piece_length)
    _check_chain(wanted.certificate_chain)


def _check_chain(chain: Collection[bytes]) -> None:
    """Whether these are certificates."""
    for number, certificate in enumerate(chain):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            raise InvalidRequest(f"certificate_chain[{number}]: is no DER certificate") from None
