"""storage/metadata.py meets its contract."""

from __future__ import annotations

import pytest

from pantala.model.task import Kind, PieceRecord, TaskRecord
from pantala.storage.metadata import MemoryMetadata, MetadataStore
from pantala.testing.metadata_contract import MetadataContract


class TestMemoryMetadata(MetadataContract):
    """Records that end with the process."""

    @pytest.fixture
    def store(self) -> MetadataStore:
        """An empty one."""
        return MemoryMetadata()

    def peek(self, store: MemoryMetadata, kind: Kind, task_id: str) -> TaskRecord | None:
        """From its dict."""
        return store._tasks.get((kind, task_id))

    def peek_pieces(self, store: MemoryMetadata, kind: Kind, task_id: str) -> list[PieceRecord]:
        """From its other dict, which has an entry for each task and for no other."""
        assert store._pieces.keys() == store._tasks.keys()
        return [record for _, record in sorted(store._pieces.get((kind, task_id), {}).items())]
