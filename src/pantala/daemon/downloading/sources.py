"""Sources of this daemon by scheme, as its settings want them, and counted."""

from __future__ import annotations

import time

from pantala.daemon.config import Backend
from pantala.daemon.metrics import Metrics
from pantala.ports import Abort, Source, SourceBody, SourceRequest
from pantala.sources.file import FileSource
from pantala.sources.http import HttpSettings, HttpSource
from pantala.sources.registry import Registry


class MeteredSource:
    """A source whose requests are counted.

    Args:
        source: It.
        scheme: What they are counted under.
        metrics: Where.
    """

    def __init__(self, source: Source, scheme: str, metrics: Metrics) -> None:
        self._source = source
        self._scheme = scheme
        self._metrics = metrics

    def open(
        self,
        request: SourceRequest,
        *,
        timeout: float,
        answer: float | None = None,
        abort: Abort | None = None,
    ) -> SourceBody:
        """See :meth:`pantala.ports.Source.open`."""
        started, ok = time.monotonic(), False
        try:
            body = self._source.open(request, timeout=timeout, answer=answer, abort=abort)
            ok = True
        finally:
            seconds = time.monotonic() - started
            self._metrics.backend_request(self._scheme, "GET", seconds=seconds, ok=ok)
        return body


def sources(backend: Backend, metrics: Metrics) -> Registry:
    """One for each scheme, as the settings want them."""
    http = HttpSource(
        HttpSettings(
            ca_cert=backend.ca_cert,
            insecure_skip_verify=backend.insecure_skip_verify,
            max_retries=backend.max_retries,
            request_header=backend.request_header,
            redirect_ttl=(
                backend.cache_temporary_redirect_ttl
                if backend.enable_cache_temporary_redirect
                else 0.0
            ),
        )
    )
    made: dict[str, Source] = {
        "http": http,
        "https": http,
        "file": FileSource(backend.file_roots),
    }
    metered = {s: MeteredSource(source, s, metrics) for s, source in made.items()}
    return Registry(metered, off=() if backend.file_roots else ("file",))
