"""rpc/dialects.py: every name in the tables is one of the contract's."""

from __future__ import annotations

from typing import get_args

import pytest

from pantala.core.policy import POLICIES
from pantala.errors import FeatureOff
from pantala.model.announce import Answer, Registration, Report, Started
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import scheduler_pb2
from pantala.rpc.dialects import DIALECTS, Dialect, dialect_of

SCHEDULER = scheduler_pb2.DESCRIPTOR.services_by_name["Scheduler"].methods_by_name

dialects = pytest.mark.parametrize(
    "dialect", [pytest.param(dialect, id=kind.name) for kind, dialect in DIALECTS.items()]
)


def test_every_kind_that_is_served_is_spoken_of() -> None:
    """And the one that nobody speaks of is refused."""
    assert POLICIES.keys() <= DIALECTS.keys()
    assert all(dialect.codec.kind is kind for kind, dialect in DIALECTS.items())
    assert dialect_of(Kind.CACHE) is DIALECTS[Kind.CACHE]
    with pytest.raises(FeatureOff, match="PERSISTENT tasks are not served"):
        dialect_of(Kind.PERSISTENT)


@dialects
def test_methods(dialect: Dialect) -> None:
    """They exist, and take these messages."""
    announce = SCHEDULER[dialect.announce]
    assert announce.input_type is dialect.codec.request.DESCRIPTOR
    assert announce.output_type is dialect.codec.answer.DESCRIPTOR
    for method, request in (dialect.stat, dialect.delete):
        assert SCHEDULER[method].input_type is request.DESCRIPTOR
        assert {"host_id", "task_id"} <= set(request.DESCRIPTOR.fields_by_name)


@dialects
def test_arms(dialect: Dialect) -> None:
    """Each report has one of its own; together with the register message they are all there are."""
    codec = dialect.codec
    arms = {field.name for field in codec.request.DESCRIPTOR.oneofs_by_name["request"].fields}

    assert codec.report_arms.keys() <= set(get_args(Report))
    assert {codec.register_arm, *codec.report_arms.values()} == arms
    assert len(arms) == len(codec.report_arms) + 1


@dialects
def test_what_each_report_is_called(dialect: Dialect) -> None:
    """So that none is swapped with another."""
    for report, arm in dialect.codec.report_arms.items():
        words = arm.split("_")
        assert ("source" in words) == report.__name__.startswith("Source"), arm
        assert ("piece" in words) == ("Piece" in report.__name__), arm
        verb = report.__name__.removeprefix("Source").removeprefix("Piece")
        assert verb.lower() in words, arm


@dialects
def test_answers(dialect: Dialect) -> None:
    """All that there are."""
    codec = dialect.codec
    arms = {field.name for field in codec.answer.DESCRIPTOR.oneofs_by_name["response"].fields}
    assert codec.answer_arms.keys() <= set(get_args(Answer))
    assert set(codec.answer_arms.values()) == arms


@dialects
def test_a_message(dialect: Dialect) -> None:
    """Set, though there is nothing to say in it."""
    peer = Registration("h", "t", "p", DownloadRequest(dialect.codec.kind, ""))
    for said, arm in (
        (peer, dialect.codec.register_arm),
        (Started(), dialect.codec.report_arms[Started]),
    ):
        message = dialect.codec.encode(peer, said)
        assert message.WhichOneof("request") == arm
        assert (message.host_id, message.task_id, message.peer_id) == ("h", "t", "p")
