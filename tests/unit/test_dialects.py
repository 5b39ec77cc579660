"""rpc/dialects.py: every name in the tables is one of the contract's."""

from __future__ import annotations

import pytest

from pantala.core.policy import POLICIES
from pantala.core.transfer import Note
from pantala.errors import FeatureOff
from pantala.model.task import Kind
from pantala.pb import scheduler_pb2
from pantala.rpc.dialects import DIALECTS, Dialect, dialect_of

SCHEDULER = scheduler_pb2.DESCRIPTOR.services_by_name["Scheduler"].methods_by_name

dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda _: "")


def test_every_kind_that_is_served_is_spoken_of() -> None:
    """And no other."""
    assert DIALECTS.keys() == POLICIES.keys()
    assert dialect_of(Kind.CACHE) is DIALECTS[Kind.CACHE]
    with pytest.raises(FeatureOff, match="STANDARD tasks are not served"):
        dialect_of(Kind.STANDARD)


@dialects
def test_methods(dialect: Dialect) -> None:
    """They exist, and take these messages."""
    announce = SCHEDULER[dialect.announce]
    assert announce.input_type is dialect.request.DESCRIPTOR
    for method, request in (dialect.stat, dialect.delete):
        assert SCHEDULER[method].input_type is request.DESCRIPTOR
        assert {"host_id", "task_id"} <= set(request.DESCRIPTOR.fields_by_name)


@dialects
def test_arms(dialect: Dialect) -> None:
    """Each note has one of its own; together with the register message they are all there are."""
    arms = {field.name for field in dialect.request.DESCRIPTOR.oneofs_by_name["request"].fields}

    assert dialect.note_arms.keys() == set(Note)
    assert {dialect.register_arm, *dialect.note_arms.values()} == arms
    assert len(arms) == len(Note) + 1


@dialects
def test_what_each_note_is_called(dialect: Dialect) -> None:
    """So that none is swapped with another."""
    for note, arm in dialect.note_arms.items():
        words = arm.split("_")
        assert ("source" in words) == note.name.startswith("SOURCE_"), arm
        assert ("piece" in words) == ("PIECE" in note.name), arm
        assert note.name.rpartition("_")[2].lower() in words, arm


@dialects
def test_answers(dialect: Dialect) -> None:
    """Those that are acted on, and the one that all kinds share, are all there are."""
    answer = SCHEDULER[dialect.announce].output_type
    arms = {field.name for field in answer.oneofs_by_name["response"].fields}
    assert arms == {dialect.normal_arm, dialect.empty_arm, "need_back_to_source_response"}


@dialects
def test_a_message(dialect: Dialect) -> None:
    """Set, though there is nothing to say in it."""
    ids = {"host_id": "h", "task_id": "t", "peer_id": "p"}
    for note, arm in dialect.note_arms.items():
        message, part = dialect.message(ids, dialect.note_arms[note])
        assert message.WhichOneof("request") == arm
        assert getattr(message, arm) is part or getattr(message, arm) == part
        assert (message.host_id, message.task_id, message.peer_id) == ("h", "t", "p")
