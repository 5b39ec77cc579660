"""Everybody who waits for one task, and with whose credentials its origin may be asked."""

from __future__ import annotations

from pantala.core.policy import policy_of
from pantala.core.transfer import Wanted
from pantala.errors import DragonflyError
from pantala.model.task import DownloadRequest

from .download import Download

#: What the origin is asked with: URL and headers, but for ranges. Two callers with the same need
#: only one answer from it.
Credentials = tuple[str, tuple[tuple[str, str], ...]]


def credentials(request: DownloadRequest) -> Credentials:
    """What *request* would ask the origin with."""
    headers = ((k, v) for k, v in request.request_header.items() if k.lower() != "range")
    return request.url, tuple(sorted(headers))


class Callers:
    """The downloads of one flight, those that are over included."""

    def __init__(self, first: Download) -> None:
        self._downloads = [first]
        #: The origin may be asked at all.
        self._from_source = policy_of(first.request.kind).from_source

    def __len__(self) -> int:
        return len(self._downloads)

    def add(self, download: Download) -> None:
        """One more caller wants something of the content."""
        self._downloads = [*self.active(), download]

    def active(self) -> list[Download]:
        """Those that still wait for pieces: neither served nor failed."""
        return [d for d in self._downloads if not d.over]

    @property
    def is_waited_for(self) -> bool:
        """Some caller is still there. A prefetch has none."""
        return any(d.delivery.attended and not d.closed for d in self.active())

    @property
    def is_patient(self) -> bool:
        """Some caller is there who waits for room."""
        return any(d.patient and not d.closed for d in self.active())

    def remove(self, download: Download) -> None:
        """One is no longer ours to serve."""
        self._downloads = [d for d in self._downloads if d is not download]

    @property
    def is_prefetch(self) -> bool:
        """Nobody waits but for prefetching."""
        return all(d.request.is_prefetch for d in self.active())

    def wanted(self, but: frozenset[int] = frozenset()) -> Wanted:
        """All pieces that somebody waits for, and where the origin may be asked for them.

        Args:
            but: Without these, which are here.
        """
        pieces: dict[int, bool] = {}
        for download in self.active():
            allowed = self._may_ask(download)
            for number in download.missing - but:
                pieces[number] = pieces.get(number, False) or allowed
        return Wanted(pieces)

    def fail(self, error: DragonflyError) -> None:
        """All who still wait are told *error*, and get nothing more."""
        for download in self.active():
            download.fail(error)

    def fail_refreshing(self, error: DragonflyError) -> None:
        """What is here cannot be compared with the origin: those who insist on that are told so."""
        for download in self.active():
            if download.delivery.refresh:
                download.fail(error)

    @property
    def all_refresh(self) -> bool:
        """Nobody waits whom anything but the origin's word would serve."""
        return all(d.delivery.refresh for d in self.active())

    def begin_again(self, error: DragonflyError) -> bool:
        """Have everybody take all anew, but for those who cannot; whether anybody is left."""
        for download in self.active():
            if download.can_begin_again:
                download.begin_again()
            else:
                download.fail(error)
        return bool(self.active())

    def refuse(self, pieces: frozenset[int], error: DragonflyError) -> None:
        """Fail those who wait for any of *pieces*."""
        for download in self.active():
            if download.missing & pieces:
                download.fail(error)

    def _may_ask(self, download: Download) -> bool:
        return self._from_source and download.may_use_source

    def sponsor(self) -> DownloadRequest | None:
        """The request on whose behalf the origin may be asked now; None: nobody's."""
        return next((d.request for d in self.active() if self._may_ask(d)), None)

    def close_source(self) -> None:
        """From here on, the origin is asked on nobody's behalf."""
        self._from_source = False

    def fail_sponsored(self, key: Credentials, error: DragonflyError) -> None:
        """The origin refused these credentials; it may like those of others better."""
        for download in self.active():
            if self._may_ask(download) and credentials(download.request) == key:
                download.fail(error)
