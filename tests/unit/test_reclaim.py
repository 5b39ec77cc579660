"""core/reclaim.py: who has outlived his time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.reclaim import expired
from pantala.model.task import Kind, TaskRecord


def _record(name: str, updated_at: float, kind: Kind = Kind.CACHE) -> TaskRecord:
    return TaskRecord(kind=kind, id=name, url="u", created_at=0.0, updated_at=updated_at)


def test_what_nobody_used_for_its_time_goes() -> None:
    """At the second, and in the order given."""
    records = [_record("old", 1), _record("just", 40), _record("young", 41)]

    assert expired(records, ttl={Kind.CACHE: 60}, now=100) == records[:2]


def test_each_kind_has_its_own_time() -> None:
    """One day for one, a minute for another."""
    records = [_record("a", 0, Kind.STANDARD), _record("b", 0)]

    assert expired(records, ttl={Kind.STANDARD: 86400, Kind.CACHE: 60}, now=100) == records[1:]


@given(st.lists(st.floats(0, 1e9)), st.floats(0, 1e6), st.floats(0, 2e9))
def test_none_is_forgotten_and_none_taken_too_soon(
    times: list[float], ttl: float, now: float
) -> None:
    """Those that stay have been used within their time, those that go have not."""
    records = [_record(str(n), at) for n, at in enumerate(times)]
    dead = expired(records, ttl={Kind.CACHE: ttl}, now=now)

    assert [r for r in records if r not in dead] == [r for r in records if r.updated_at + ttl > now]
    assert all(r.updated_at + ttl <= now for r in dead)
