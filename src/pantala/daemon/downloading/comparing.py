"""Whether what is here is what its origin has."""

from __future__ import annotations

from typing import NamedTuple

from pantala.core.policy import policy_of
from pantala.daemon.config import Backend
from pantala.model.task import READING, Description, Kind, TaskRecord

from .origin import Origin


def revalidates(kind: Kind, backend: Backend) -> bool:
    """Contents of this kind are compared with their origins before they are given away."""
    return policy_of(kind).revalidates and backend.enable_revalidation


class Word(NamedTuple):
    """What an origin says of its content now.

    Attributes:
        total: Bytes; None where it does not say, or others had to read all to know.
        version: As it named it; ``""`` if it named none.
    """

    total: int | None
    version: str


def is_still(record: TaskRecord, word: Word, *, strictly: bool = False) -> bool:
    """Whether the content that is here is the one that its origin has now.

    Where either names no version, the length decides; where that is not told, nothing does, and
    what cannot be compared is not the same.

    Args:
        record: What is here.
        word: What the origin says.
        strictly: The length alone shows nothing: many a change keeps it.
    """
    if word.total is not None and word.total != record.content_length:
        return False
    named = record.version != "" and not record.version.startswith(READING)
    if named and word.version:
        return record.version == word.version
    return word.total is not None and not strictly


def word_of(said: Origin | Description) -> Word:
    """What an origin says, to us or to another."""
    if isinstance(said, Description):
        version = "" if said.version.startswith(READING) else said.version
        return Word(None if said.read else said.content_length, version)
    return Word(said.total, said.version if said.reading is None else "")
