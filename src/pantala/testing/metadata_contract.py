"""What every implementation of :class:`pantala.storage.metadata.MetadataStore` must do.

A subclass provides the ``store`` fixture, and says how to look behind the store's back: a store
must not vouch for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pantala.errors import InvalidRequest, TaskNotFound
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.storage.metadata import MetadataStore

MIB = 1024 * 1024

#: A task of three pieces.
RECORD = TaskRecord(
    kind=Kind.CACHE,
    id="a" * 64,
    url="http://origin/file",
    created_at=100.0,
    updated_at=100.0,
    tag="tag",
    application="application",
    piece_length=4 * MIB,
    content_length=9 * MIB,
    response_header={"Content-Type": "text/plain"},
    version='"1"',
)

#: Every transition, and what becomes of :data:`RECORD` by it at 200.
TRANSITIONS: dict[str, dict[str, Any]] = {
    "download_finished": {"finished_at": 200.0},
    "download_failed": {"failed_at": 200.0},
    "prefetch_started": {"prefetched_at": 200.0},
    "prefetch_failed": {"prefetched_at": None},
    "upload_started": {"uploading_count": 1},
    "touch": {},
}


def piece(number: int) -> PieceRecord:
    """A piece of :data:`RECORD`."""
    return PieceRecord(
        number=number,
        offset=number * 4 * MIB,
        length=4 * MIB if number < 2 else MIB,
        digest=f"crc32:{number}",
        parent_id="parent" if number else None,
        traffic=Traffic.REMOTE_PEER if number else Traffic.BACK_TO_SOURCE,
        cost=0.25,
        created_at=150.0 + number,
    )


class MetadataContract:
    """Tests for one implementation."""

    @pytest.fixture
    def store(self) -> MetadataStore:
        """An empty store."""
        raise NotImplementedError

    def peek(self, store: Any, kind: Kind, task_id: str) -> TaskRecord | None:
        """The record, read in another way than by the store's own methods."""
        raise NotImplementedError

    def peek_pieces(self, store: Any, kind: Kind, task_id: str) -> list[PieceRecord]:
        """The pieces by number, likewise."""
        raise NotImplementedError

    def test_it_begins_empty(self, store: MetadataStore) -> None:
        """Nothing is known of anything."""
        assert store.get(Kind.CACHE, RECORD.id) is None
        assert not store.exists(Kind.CACHE, RECORD.id)
        assert store.list() == store.list(Kind.CACHE) == []
        assert dict(store.pieces(Kind.CACHE, RECORD.id)) == {}

    def test_a_record_is_kept_as_it_is(self, store: MetadataStore) -> None:
        """Every field."""
        assert store.download_started(RECORD) == RECORD
        assert self.peek(store, Kind.CACHE, RECORD.id) == RECORD
        assert store.get(Kind.CACHE, RECORD.id) == RECORD
        assert store.exists(Kind.CACHE, RECORD.id)
        assert store.list() == [RECORD]

    def test_a_second_start_refreshes(self, store: MetadataStore) -> None:
        """Lengths and headers are news; when and what it was, and its pieces, are not."""
        store.download_started(replace(RECORD, content_length=None, piece_length=None))
        store.piece_finished(Kind.CACHE, RECORD.id, piece(0))
        store.upload_started(Kind.CACHE, RECORD.id, 110.0)
        store.download_failed(Kind.CACHE, RECORD.id, 120.0)
        again = replace(
            RECORD, created_at=130.0, updated_at=130.0, url="other", response_header={"a": "b"}
        )
        expected = replace(RECORD, updated_at=130.0, uploading_count=1, response_header={"a": "b"})

        assert store.download_started(again) == expected
        assert self.peek(store, Kind.CACHE, RECORD.id) == expected
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == [piece(0)]

    def test_silence_is_no_news(self, store: MetadataStore) -> None:
        """Whoever does not know the headers or the version does not make them forgotten."""
        store.download_started(RECORD)
        silent = replace(RECORD, response_header={}, version="", updated_at=130.0)

        assert store.download_started(silent) == replace(RECORD, updated_at=130.0)

    @pytest.mark.parametrize("name", TRANSITIONS)
    def test_transitions(self, store: MetadataStore, name: str) -> None:
        """Each changes its field and the time of the last use, and returns what is kept now."""
        store.download_started(RECORD)
        new = getattr(store, name)(Kind.CACHE, RECORD.id, 200.0)

        assert new == replace(RECORD, updated_at=200.0, **TRANSITIONS[name])
        assert self.peek(store, Kind.CACHE, RECORD.id) == store.get(Kind.CACHE, RECORD.id) == new

    @pytest.mark.parametrize("name", [*TRANSITIONS, "upload_finished", "upload_failed"])
    def test_transitions_of_the_unknown(self, store: MetadataStore, name: str) -> None:
        """They make nothing known."""
        transition: Callable[..., TaskRecord] = getattr(store, name)
        with pytest.raises(TaskNotFound):
            transition(Kind.CACHE, RECORD.id, 200.0)
        assert self.peek(store, Kind.CACHE, RECORD.id) is None

    def test_success_makes_up_for_failure(self, store: MetadataStore) -> None:
        """A task is not both."""
        store.download_started(RECORD)
        store.download_failed(Kind.CACHE, RECORD.id, 110.0)
        store.download_finished(Kind.CACHE, RECORD.id, 120.0)

        found = self.peek(store, Kind.CACHE, RECORD.id)
        assert found == replace(RECORD, updated_at=120.0, finished_at=120.0)

    def test_one_prefetch_at_a_time(self, store: MetadataStore) -> None:
        """The second is refused and changes nothing; after a failure another may try."""
        store.download_started(RECORD)
        first = store.prefetch_started(Kind.CACHE, RECORD.id, 110.0)
        with pytest.raises(InvalidRequest, match="being prefetched already"):
            store.prefetch_started(Kind.CACHE, RECORD.id, 120.0)
        assert self.peek(store, Kind.CACHE, RECORD.id) == first
        store.prefetch_failed(Kind.CACHE, RECORD.id, 130.0)
        assert store.prefetch_started(Kind.CACHE, RECORD.id, 140.0).prefetched_at == 140.0

    def test_uploads_are_counted(self, store: MetadataStore) -> None:
        """Those under way, and those that ended well."""
        store.download_started(RECORD)
        for at, name in enumerate(
            ("started", "started", "started", "finished", "failed"), start=101
        ):
            getattr(store, f"upload_{name}")(Kind.CACHE, RECORD.id, float(at))

        found = self.peek(store, Kind.CACHE, RECORD.id)
        assert found == replace(RECORD, updated_at=105.0, uploading_count=1, uploaded_count=1)

    def test_pieces(self, store: MetadataStore) -> None:
        """Every field, by number, in whatever order they came."""
        store.download_started(RECORD)
        for number in (2, 0):
            store.piece_finished(Kind.CACHE, RECORD.id, piece(number))

        assert dict(store.pieces(Kind.CACHE, RECORD.id)) == {0: piece(0), 2: piece(2)}
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == [piece(0), piece(2)]

    def test_pieces_of_the_unknown(self, store: MetadataStore) -> None:
        """There are none, and there can be none."""
        with pytest.raises(TaskNotFound):
            store.piece_finished(Kind.CACHE, RECORD.id, piece(0))
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == []

    def test_who_asks_for_pieces_cannot_change_them(self, store: MetadataStore) -> None:
        """There is one way to remember a piece."""
        store.download_started(RECORD)
        pieces: Any = store.pieces(Kind.CACHE, RECORD.id)
        with pytest.raises(TypeError):
            pieces[0] = piece(0)
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == []

    def test_deleting_forgets_everything(self, store: MetadataStore) -> None:
        """The record and its pieces; a second time, and of the unknown, does nothing."""
        store.download_started(RECORD)
        store.piece_finished(Kind.CACHE, RECORD.id, piece(0))
        store.delete(Kind.CACHE, RECORD.id)
        store.delete(Kind.CACHE, RECORD.id)

        assert self.peek(store, Kind.CACHE, RECORD.id) is None
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == []
        store.download_started(RECORD)
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == []

    def test_kinds_do_not_see_each_other(self, store: MetadataStore) -> None:
        """The same id of another kind is another task."""
        other = replace(RECORD, kind=Kind.STANDARD)
        store.download_started(RECORD)
        store.download_started(other)
        store.piece_finished(Kind.STANDARD, RECORD.id, piece(1))
        store.download_finished(Kind.STANDARD, RECORD.id, 200.0)

        assert self.peek(store, Kind.CACHE, RECORD.id) == RECORD
        assert self.peek_pieces(store, Kind.CACHE, RECORD.id) == []
        assert store.list(Kind.CACHE) == [RECORD]
        assert sorted(r.kind for r in store.list()) == [Kind.STANDARD, Kind.CACHE]
        store.delete(Kind.STANDARD, RECORD.id)
        assert store.list() == [RECORD]
