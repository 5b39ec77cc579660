"""testing/kill_scene.py: what is told of a round in which something did not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from pantala.testing.cluster import Cluster
from pantala.testing.kill_scene import Scene


def test_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The round, when, and what went before and after; of rounds that went well, nothing."""
    scene = Scene(Cluster(tmp_path), 1)
    for number in (1, 2, 3):
        scene.begin_round(number)
        scene.note(f"dice of {number}")
        if number == 2:
            scene.complain("a piece is gone")
        scene.note("all are back")
    (told,) = scene.wrong
    assert told.startswith("round 2, ")
    assert told.endswith(" s): a piece is gone")
    assert capsys.readouterr().err == f"{told}\n"
    assert list(scene.histories) == [2]
    said = [line.partition("  ")[2] for line in scene.histories[2]]
    assert said == ["dice of 2", "COMPLAINT: a piece is gone", "all are back"]
