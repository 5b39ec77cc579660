"""storage/answers.py: what somebody answered last outlives a program, and is nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pantala.storage.answers import LastAnswer

WHOSE: dict[str, str | int] = {"manager": "m:1", "cluster": 1}


def test_kept(tmp_path: Path) -> None:
    """Readable for its user alone, replaced as a whole, without anything beside it."""
    path = tmp_path / "below" / "a.json"
    one = LastAnswer(path, WHOSE)
    assert one.load() is None
    one.save({"x": [1]})
    one.save({"x": [2]})
    assert LastAnswer(path, WHOSE).load() == {"x": [2]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_not_written_again(tmp_path: Path) -> None:
    """What is there already."""
    path = tmp_path / "a.json"
    one = LastAnswer(path, WHOSE)
    one.save({"x": 1})
    before = path.stat().st_ino
    one.save({"x": 1})
    assert path.stat().st_ino == before
    again = LastAnswer(path, WHOSE)
    again.load()
    again.save({"x": 1})
    assert path.stat().st_ino == before


@pytest.mark.parametrize("whose", [{"manager": "n:1", "cluster": 1}, {"manager": "m:1"}])
def test_of_somebody_else(tmp_path: Path, whose: dict[str, str | int]) -> None:
    """It is not used."""
    LastAnswer(tmp_path / "a.json", WHOSE).save({"x": 1})
    with capture_logs() as logs:
        assert LastAnswer(tmp_path / "a.json", whose).load() is None
    assert logs == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"of": 1, "answer": {}}', b"[" * 100_000),
        json.dumps({"of": WHOSE, "answer": [1]}).encode(),
    ],
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    """It is ignored, with one warning, and replaced by the next answer."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    one = LastAnswer(path, WHOSE)
    with capture_logs() as logs:
        assert one.load() is None
    assert [log["event"] for log in logs] == ["last answer not read"]
    one.save({"x": 1})
    assert LastAnswer(path, WHOSE).load() == {"x": 1}


def test_cannot_be_kept(tmp_path: Path) -> None:
    """That is told once, and is no failure."""
    (tmp_path / "file").touch()
    one = LastAnswer(tmp_path / "file" / "a.json", WHOSE)
    with capture_logs() as logs:
        one.save({"x": 1})
        one.save({"x": 2})
    assert [log["event"] for log in logs] == ["last answer not kept"]
