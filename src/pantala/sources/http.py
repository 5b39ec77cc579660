"""Content from HTTP and HTTPS origins.

urllib3 has the connections (pooling, TLS, proxies), and the response that ``http.client`` made
on one of them fills the caller's buffer: bytes go from the socket to where they belong, and the
interpreter lock is free meanwhile (docs/adr/0001-origin-client.md has the measurement). What is
sent, what an answer means and where a redirect leads is decided in the modules beside this one.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import random
import ssl
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import urllib3

from pantala import BUILD_VERSION
from pantala.errors import Blame, ConfigError, InvalidRequest, OriginError, RangeNotSatisfiable
from pantala.model.pieces import parse_unsatisfied
from pantala.ports import Abort, SourceBody, SourceRequest

from .http_answer import Head
from .http_body import HttpBody, chunked, settle
from .http_connection import Opening, adopt
from .http_failure import failure, proxy_refusal
from .http_target import REDIRECTS, Target, first_target

# It logs URLs with their queries, which may be signed.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# Hosts whose connections are kept, and idle connections kept for each. More may be in use.
_KEPT_HOSTS: Final = 64
_KEPT_CONNECTIONS: Final = 32

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_LONGEST_RETRY_AFTER: Final = 10

# As many as Dragonfly's client remembers.
_REMEMBERED_REDIRECTS: Final = 1000


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How to speak to HTTP origins.

    Attributes:
        user_agent: Sent unless the caller sends one.
        ca_cert: Authorities to trust besides the system's, PEM.
        insecure_skip_verify: Trust any certificate.
        request_header: Sent where the caller sends none of that name.
        max_retries: Further tries after a failure that may pass, before headers have come.
        max_redirects: Redirects to follow for one request.
        redirect_ttl: Seconds to remember where a 307 led; 0 asks each time.
    """

    user_agent: str = BUILD_VERSION
    ca_cert: Path | None = None
    insecure_skip_verify: bool = False
    request_header: Mapping[str, str] = field(default_factory=dict)
    max_retries: int = 1
    max_redirects: int = 10
    redirect_ttl: float = 600.0


class HttpSource:
    """A :class:`~pantala.ports.Source` for http and https. Any thread may use it.

    Proxies come from the environment (docs/operate.md says from which variables). Bodies are
    never decompressed: content is what the origin sends. What is compressed for one who did not
    ask for that is refused. A 307's target may be remembered,
    other redirects are followed anew each time.

    Raises:
        ConfigError: The settings name authorities that cannot be read.
    """

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self._settings = settings or HttpSettings()
        ours = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"}
        # Where names are the same but for case, the first one counts.
        self._defaults = {**self._settings.request_header}
        for name, value in ours.items():
            self._defaults.setdefault(name, value)
        self._tls = _tls_context(self._settings)
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._redirects = RedirectCache(self._settings.redirect_ttl)

    def open(
        self,
        request: SourceRequest,
        *,
        timeout: float,
        answer: float | None = None,
        abort: Abort | None = None,
    ) -> SourceBody:
        """Ask; see :meth:`pantala.ports.Source.open`.

        Raises:
            InvalidRequest: The URL, a header or the range makes no sense.
            OriginError: Refused, unreachable, or not the range that was asked for.
            RangeNotSatisfiable: The range starts past the end.
            ConfigError: The environment names a proxy of a kind we do not know.
        """
        _check_range(request)
        target = first_target(request.url, request.headers, defaults=self._defaults)
        answer, abort = timeout if answer is None else answer, abort or Abort()
        with Opening(stall=timeout, answer=answer, abort=abort) as opening:
            for attempt in range(self._settings.max_retries):
                try:
                    return self._open(target, request, opening)
                except OriginError as exc:
                    pause = _pause(attempt, exc)
                    if pause is None or pause >= opening.left:
                        raise
                abort.wait(pause)
            return self._open(target, request, opening)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def _open(self, target: Target, request: SourceRequest, opening: Opening) -> SourceBody:
        shortcuts: list[Target] = []
        try:
            return self._follow(target, request, opening, shortcuts)
        except OriginError:
            if not shortcuts:
                raise
            # What we remember may have ceased to be so: signed URLs expire.
            self._redirects.forget(shortcuts)
        return self._follow(target, request, opening, [])

    def _follow(
        self, target: Target, request: SourceRequest, opening: Opening, shortcuts: list[Target]
    ) -> SourceBody:
        """Ask *target*, or whom it sends us to; the hops we knew beforehand go to *shortcuts*."""
        first = target
        for _ in range(self._settings.max_redirects + 1):
            known = self._redirects.get(target)
            if known is not None:
                shortcuts.append(target)
                target = known
                continue
            response = self._ask(target, request, opening)
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or location is None:
                return self._accept(response, target, request, opening)
            settle(response)
            following = target.redirected(location)
            if response.status == 307:
                self._redirects.put(target, following)
            target = following
        raise OriginError(f"{first.name}: more than {self._settings.max_redirects} redirects")

    def _accept(
        self,
        response: urllib3.BaseHTTPResponse,
        target: Target,
        request: SourceRequest,
        opening: Opening,
    ) -> SourceBody:
        head = Head(target.name, response.status, response.headers, chunked(response))
        try:
            answer = head.accept(request)
        except RangeNotSatisfiable:
            settle(response)
            # Empty content has no first byte, so it can only be had without a Range.
            unsatisfied = parse_unsatisfied(response.headers.get("Content-Range", ""))
            if request.start != 0 and unsatisfied != 0:
                raise
            whole = replace(request, start=None, length=None)
            return self._follow(target, whole, opening, [])
        except OriginError:
            settle(response)
            raise
        return HttpBody(response, answer, host=target.host, timeout=opening.stall)

    def _ask(
        self, target: Target, request: SourceRequest, opening: Opening
    ) -> urllib3.BaseHTTPResponse:
        if opening.abort.asked:
            raise OriginError(f"{target.host}: given up here", blame=Blame.LOCAL)
        headers = dict(target.headers)
        if request.start is not None:
            last = "" if request.length is None else request.start + request.length - 1
            headers["Range"] = f"bytes={request.start}-{last}"
        pool = self._pool(target)
        try:
            response = pool.urlopen(
                "GET",
                target.url,
                headers=headers,
                timeout=opening.limits,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.LocationValueError as exc:
            raise InvalidRequest(f"{target.name}: the host makes no sense") from exc
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as exc:
            if opening.abort.asked:
                raise OriginError(f"{target.host}: given up here", blame=Blame.LOCAL) from exc
            failed = failure(exc, host=target.host, timeout=opening.patience)
            # Whoever has not answered in all that time is not asked again.
            failed.transient = failed.transient and opening.left > 0
            raise failed from exc
        # To an https origin leads a tunnel: what comes through that is the origin's own.
        if response.status == 407 and pool.proxy is not None and target.origin.startswith("http:"):
            settle(response)
            raise proxy_refusal(target.host)
        return response

    def _pool(self, target: Target) -> urllib3.PoolManager:
        """The connections to use: those of the proxy that the environment names, or direct ones."""
        proxy = _proxy(target)
        with self._lock:
            pool = self._pools.get(proxy)
            if pool is None:
                pool = self._pools[proxy] = self._new_pool(proxy)
        return pool

    def _new_pool(self, proxy: str | None) -> urllib3.PoolManager:
        kept: dict[str, Any] = {
            "num_pools": _KEPT_HOSTS,
            "maxsize": _KEPT_CONNECTIONS,
            "ssl_context": self._tls,
        }
        if proxy is None:
            return adopt(urllib3.PoolManager(**kept))
        try:
            auth = unquote(urllib3.util.parse_url(proxy).auth or "")
            headers = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
            return adopt(
                urllib3.ProxyManager(
                    proxy, proxy_headers=headers, proxy_ssl_context=self._tls, **kept
                )
            )
        except urllib3.exceptions.LocationValueError:
            # The proxy is left out: its URL may hold a password, which would be printed.
            raise ConfigError(
                "the proxy named by the environment must be http://host:port or https://host:port"
            ) from None


class RedirectCache:
    """Remembers where redirects led, for each URL *and* the headers it was asked with.

    The headers count because a target may be signed for whoever was allowed to ask.

    Args:
        ttl: Seconds to remember; 0 remembers nothing.
        clock: Seconds that only grow.
    """

    def __init__(self, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, tuple[float, Target]] = OrderedDict()

    def get(self, source: Target) -> Target | None:
        """Where *source* leads, if that is known."""
        key = _key(source)
        with self._lock:
            deadline, target = self._known.get(key, (0.0, None))
            if target is None:
                return None
            if deadline <= self._clock():
                del self._known[key]
                return None
            self._known.move_to_end(key)
            return target

    def put(self, source: Target, target: Target) -> None:
        """Remember; the least recently used is forgotten when there are too many."""
        if self._ttl <= 0:
            return
        with self._lock:
            self._known[_key(source)] = (self._clock() + self._ttl, target)
            self._known.move_to_end(_key(source))
            if len(self._known) > _REMEMBERED_REDIRECTS:
                self._known.popitem(last=False)

    def forget(self, sources: Iterable[Target]) -> None:
        """*sources* redirect somewhere that is of no use: ask them anew next time."""
        with self._lock:
            for source in sources:
                self._known.pop(_key(source), None)


_Key = tuple[str, frozenset[tuple[str, str]]]


def _key(target: Target) -> _Key:
    return target.url, frozenset(target.headers.items())


class _TlsContext(ssl.SSLContext):
    """TLS under which a connection that is cut looks unlike one that ends."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As it was, but an end that the other side did not declare is an error."""
        return super().wrap_socket(*args, **{**kwargs, "suppress_ragged_eofs": False})


def _tls_context(settings: HttpSettings) -> ssl.SSLContext:
    context = _TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    context.load_default_certs()
    if settings.ca_cert is not None:
        try:
            context.load_verify_locations(settings.ca_cert)
        except OSError as exc:  # ssl.SSLError is one
            why = exc.strerror or exc
            if isinstance(exc, ssl.SSLError):
                why = "it holds no certificate in PEM"
            raise ConfigError(f"backend.caCert: {settings.ca_cert}: {why}") from exc
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return context


def _proxy(target: Target) -> str | None:
    """The proxy that the environment names for *target*."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(target.url.partition(":")[0]) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(target.host):
        return None
    if _in_a_network(urlsplit(target.origin).hostname or "", proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_a_network(host: str, no_proxy: str) -> bool:
    """Whether *host* is an address in one of the networks of *no_proxy*, as ``10.0.0.0/8``.

    urllib knows names and single addresses only.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name; whose address it has is the proxy's business
    for entry in no_proxy.split(","):
        with suppress(ValueError):  # another entry, which urllib has looked at
            if "/" in entry and address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
    return False


def _check_range(request: SourceRequest) -> None:
    if request.start is None:
        if request.length is not None:
            raise InvalidRequest("a range needs a start")
    elif request.start < 0 or (request.length is not None and request.length <= 0):
        raise RangeNotSatisfiable(f"no range: {request.length} from {request.start}, in bytes")


def _pause(attempt: int, exc: OriginError) -> float | None:
    """Seconds to wait before the next try; None if it should not be made."""
    if not exc.transient:
        return None
    for name, value in exc.header.items():
        if name.lower() == "retry-after" and value.isdecimal():
            seconds = float(value)
            return seconds if seconds <= _LONGEST_RETRY_AFTER else None
    longest = min(_FIRST_PAUSE * 2.0**attempt, _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, keeps no secret
