"""testing/plugin.py: what tests of those who use pantala have, run as theirs are."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import os, signal

    import pantala
    import pytest
    from pantala.testing.origin import Fault, Pattern

    ENDPOINTS = []
    KEPT = []


    def test_get(pantala_swarm):
        url = pantala_swarm.put("/m", b"content")
        assert url == pantala_swarm.url("/m")
        assert pantala_swarm.client.get(url) == b"content"
        assert pantala.get(url) == b"content"
        assert pantala_swarm.origin_bytes("/m") <= len(b"content") + 1
        assert os.environ["PANTALA_ENDPOINT"] == pantala_swarm.endpoint
        ENDPOINTS.append(pantala_swarm.endpoint)


    @pytest.mark.parametrize("kind", ["CACHE", "STANDARD"])
    def test_leaves_something(pantala_swarm, kind):
        url = pantala_swarm.put("/m", Pattern(5 << 20), headers={"X-Is": "large"})
        KEPT.append(pantala.open(url, kind=kind))
        assert KEPT[-1].size == 5 << 20
        assert len(pantala_swarm.client.list(kind)) == 1


    def test_begins_with_nothing(pantala_swarm):
        assert pantala_swarm.client.list("CACHE") == []
        assert pantala_swarm.client.list("STANDARD") == []
        with pytest.raises(pantala.DragonflyError, match="404"):
            pantala.get(pantala_swarm.url("/m"))
        assert [content.view[-1] for content in KEPT] == [Pattern(5 << 20).read()[-1]] * 2
        assert ENDPOINTS == [pantala_swarm.endpoint]


    def test_fails_at_the_origin(pantala_swarm):
        url = pantala_swarm.put("/m", b"content")
        pantala_swarm.origin.fault("/m", Fault(status=403))
        with pytest.raises(pantala.DragonflyError, match="403"):
            pantala.get(url)


    def test_ends_the_daemon(pantala_swarm):
        os.kill(pantala_swarm.node.pid, signal.SIGKILL)
        pantala_swarm.node.process.wait(10)


    def test_has_another(pantala_swarm):
        assert pantala.get(pantala_swarm.put("/m", b"again")) == b"again"
        assert pantala_swarm.endpoint not in ENDPOINTS


    def test_without_it():
        assert os.environ.get("PANTALA_ENDPOINT") == "/nowhere/of-the-user"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Of somebody else's, to whom a warning is a failure."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Its tests, in a process of their own; of plugins it has ours."""
    others = ("no:cacheprovider", "no:asyncio", "no:xdist", "no:timeout", "no:hypothesispytest")
    chosen = [word for name in others for word in ("-p", name)]
    return project.runpytest_subprocess(*chosen, *arguments, timeout=100)


def test_tests_have_a_daemon_and_an_origin(
    project: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is one for all, unless one has ended it; each test finds it empty.

    What was set before is set again; nothing is left open, and no file.
    """
    monkeypatch.setenv("PANTALA_ENDPOINT", "/nowhere/of-the-user")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    project.makepyfile(TESTS)
    run(project, "-v").assert_outcomes(passed=8)
    assert [*tmp_path.glob("pp-*")] == []


def test_it_is_nothing_to_those_who_do_not_ask(project: pytest.Pytester) -> None:
    """What they import is what they would without it, but for a few names."""
    project.makepyfile("""
        import sys

        def test_nothing():
            ours = {name for name in sys.modules if name.startswith("pantala")}
            assert ours == {"pantala", "pantala.testing", "pantala.testing.plugin"}
            assert "grpc" not in sys.modules
    """)
    run(project).assert_outcomes(passed=1)
    run(project, "--fixtures").stdout.fnmatch_lines(["pantala_swarm*"])
