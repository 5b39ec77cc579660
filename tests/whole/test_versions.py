"""Two versions of a file are never mixed, whatever origins and parents say of them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pantala.core.policy import policy_of
from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.testing import bad_parent as bad
from pantala.testing.bad_parent import BadParent
from pantala.testing.cluster import PATIENCE, Cluster, Node, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
OLD, NEW = Pattern(10 * MIB + 77, seed=1), Pattern(10 * MIB + 77, seed=2)

#: What an origin sends that says nothing of its content's identity.
SILENT = {"ETag": ""}

#: One that fetches piece after piece, so that there is a middle in which something can happen.
SLOW = {"download": {"concurrentPieceCount": 1}}


# -- origins that name no version ------------------------------------------------------------------


@pytest.mark.usefixtures("kind")
def test_a_body_that_differs_with_each_request(cluster: Cluster, origin: Origin) -> None:
    """Two nodes read the origin at once, and got different bytes: a third has those of one."""
    cluster.scheduler()
    a, b, third = cluster.daemons("a", "b", "c")
    for number in range(3):
        path = f"/{number}"
        origin.put(path, OLD, headers=SILENT)
        for content in (OLD, NEW, OLD, NEW):
            fault = Fault(content=content, headers=SILENT, chunked=True, no_range=True)
            origin.fault(path, fault, times=1)
        begun = [cluster.begin(node, origin.url(path)) for node in (a, b)]
        for download in begun:
            assert cluster.finish(*download).bytes() in (OLD.read(), NEW.read())
        assert cluster.get(third, origin.url(path)).bytes() in (OLD.read(), NEW.read())


@pytest.mark.usefixtures("kind")
def test_a_part_of_what_has_changed_since(cluster: Cluster, origin: Origin) -> None:
    """One node holds the beginning of the old content; who wants all of it gets the new."""
    cluster.scheduler()
    first, second = cluster.daemons("a", "b")
    origin.put("/f", OLD, headers=SILENT)
    assert cluster.get(first, origin.url("/f"), "--range", "0-9").bytes() == OLD.read(0, 10)
    origin.put("/f", NEW, headers=SILENT)
    for node in (second, first):
        assert cluster.get(node, origin.url("/f")).bytes() == NEW.read()


@pytest.mark.usefixtures("kind")
def test_ranges_of_one_node_over_time(cluster: Cluster, origin: Origin) -> None:
    """Each is what the origin had at that moment; the whole is of one moment."""
    cluster.scheduler()
    node = cluster.daemon("a")
    for number, content in enumerate((OLD, NEW, OLD)):
        origin.put("/f", content, headers=SILENT)
        start = number * 4 * MIB
        got = cluster.get(node, origin.url("/f"), "--range", f"{start}-{start + 9}")
        assert got.bytes() == content.read(start, 10)
    origin.put("/f", NEW, headers=SILENT)
    assert cluster.get(node, origin.url("/f")).bytes() == NEW.read()


@pytest.mark.usefixtures("kind")
def test_a_change_while_it_is_read(cluster: Cluster, origin: Origin) -> None:
    """All is read from one answer: an origin that changes its file meanwhile mixes nothing."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", OLD, headers=SILENT)
    origin.fault("/f", Fault(), times=2)
    origin.fault("/f", Fault(content=NEW, headers=SILENT))
    assert cluster.get(node, origin.url("/f")).bytes() in (OLD.read(), NEW.read())


@pytest.mark.parametrize("new", [OLD, NEW], ids=["the same", "another"])
def test_an_answer_that_breaks_off(cluster: Cluster, origin: Origin, new: Pattern) -> None:
    """What was read is read again and compared, before the next answer goes on with it."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", OLD, headers=SILENT)
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(cut_after=5 * MIB), times=1)
    origin.fault("/f", Fault(content=new, headers=SILENT))
    assert cluster.get(node, origin.url("/f")).bytes() == new.read()


def _half_from_a_seed(cluster: Cluster, origin: Origin, *arguments: str) -> subprocess.Popen[str]:
    """A child has a piece of what a seed reads when that dies, and the origin changes."""
    cluster.scheduler()
    seed, child = cluster.daemon("s", seed=True, config=SLOW), cluster.daemon("a", config=SLOW)
    url = origin.url("/f")
    origin.put("/f", OLD, headers=SILENT)
    origin.fault("/f", Fault(rate=4 * MIB))
    command = [sys.executable, "-m", "pantala.cli.dfget", url, "-e", str(child.socket)]
    command += ["--cache"] if cluster.kind is Kind.CACHE else []
    process = subprocess.Popen(
        [*command, *arguments], stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True
    )
    identity = task_id(cluster.kind, url)

    def has_a_piece() -> bool:
        task = child.tasks().get(identity)
        return task is not None and task.finished_piece_count == 1

    until(has_a_piece, "the child has its first piece")
    origin.put("/f", NEW, headers=SILENT)
    origin.heal("/f")
    seed.kill()
    return process


@pytest.mark.usefixtures("kind")
def test_a_parent_that_dies_in_the_middle(cluster: Cluster, origin: Origin) -> None:
    """What is here cannot be joined with what the origin has now, so all begins anew."""
    path = cluster.directory / "out"
    process = _half_from_a_seed(cluster, origin, "-O", str(path))
    _, words = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 0, words
    assert path.read_bytes() == NEW.read()


@pytest.mark.usefixtures("kind")
def test_a_reader_on_the_way_is_told(cluster: Cluster, origin: Origin) -> None:
    """Who has been given bytes that cannot be taken back reads what happened."""
    process = _half_from_a_seed(cluster, origin, "-O", "/dev/null")
    _, words = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 1, words
    assert "earlier reading" in words


# -- mirrors, liars --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_mirrors_with_tags_of_their_own(cluster: Cluster, origin: Origin, number: int) -> None:
    """One name, two servers, the same bytes: one answer of one of them will do."""
    cluster.scheduler()
    nodes = cluster.daemons("a", "b")
    origin.put("/f", OLD)
    origin.fault("/f", Fault(), times=1 + number)
    for _ in range(100):
        origin.fault("/f", Fault(headers={"ETag": '"other"'}), times=1)
        origin.fault("/f", Fault(), times=1)
    for node in nodes:
        assert cluster.get(node, origin.url("/f")).bytes() == OLD.read()


def _liar(cluster: Cluster, url: str, **terms: object) -> BadParent:
    return BadParent(
        cluster.scheduler_port,
        task_id(cluster.kind, url),
        NEW.read(),
        conduct=bad.honest,
        url=url,
        version="strong:evil",
        kind=cluster.kind,
        **terms,  # type: ignore[arg-type]  # names are checked there
    )


@pytest.mark.usefixtures("kind")
def test_a_liar_and_the_origin(cluster: Cluster, origin: Origin) -> None:
    """A parent names a version that is none, and has one piece: the origin's word wins.

    It is not even asked by who has asked the origin first.
    """
    cluster.scheduler()
    child = cluster.daemon("a", config=SLOW)
    url = origin.url("/f")
    origin.put("/f", OLD)
    with _liar(cluster, url, offers=1) as parent:
        parent.released.set()
        assert cluster.get(child, url).bytes() == OLD.read()
        assert bool(parent.asked) != policy_of(cluster.kind).revalidates


@pytest.mark.usefixtures("kind")
def test_a_liar_among_honest_parents(cluster: Cluster, origin: Origin) -> None:
    """Most say otherwise, and the origin is dead: the liar's pieces go, not the download."""
    cluster.scheduler()
    a, b, child = cluster.daemons("a", "b", "c")
    url = origin.url("/f")
    origin.put("/f", OLD)
    for node in (a, b):
        assert cluster.get(node, url).bytes() == OLD.read()
    origin.pause()
    with _liar(cluster, url, offers=1) as parent:
        parent.released.set()
        assert cluster.get(child, url).bytes() == OLD.read()


# -- digests ---------------------------------------------------------------------------------------


def _sha256(content: Pattern) -> str:
    return f"sha256:{hashlib.sha256(content.read()).hexdigest()}"


def _poisoned(cluster: Cluster, origin: Origin, *names: str) -> tuple[list[Node], str]:
    """Nodes that hold what a liar gave them, who has left since."""
    cluster.scheduler()
    nodes = cluster.daemons(*names)
    url = origin.url("/f")
    origin.put("/f", OLD)
    task = task_id(cluster.kind, url)
    with BadParent(cluster.scheduler_port, task, NEW.read(), url=url, kind=cluster.kind):
        for node in nodes:
            assert cluster.get(node, url).bytes() == NEW.read()
    return nodes, url


@pytest.mark.usefixtures("kind")
def test_poison_does_not_stick(cluster: Cluster, origin: Origin) -> None:
    """Whoever has the digest has the content, and is the one from whom others have it then."""
    (a, b), url = _poisoned(cluster, origin, "a", "b")
    for node in (a, b):
        assert cluster.get(node, url, "--digest", _sha256(OLD)).bytes() == OLD.read()
        assert cluster.get(node, url).bytes() == OLD.read()
    fresh = cluster.daemon("c")
    assert cluster.get(fresh, url).bytes() == OLD.read()


def test_an_origin_that_was_wrong_once(cluster: Cluster, origin: Origin) -> None:
    """Its next answer is what counts."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", NEW)
    assert cluster.get(node, origin.url("/f")).bytes() == NEW.read()
    origin.put("/f", OLD)
    got = cluster.get(node, origin.url("/f"), "--digest", _sha256(OLD))
    assert got.bytes() == OLD.read()


@pytest.mark.usefixtures("kind")
def test_a_wrong_digest_empties_nothing(cluster: Cluster, origin: Origin) -> None:
    """The origin is read once for it, and has the same; what is held stays, and is good."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", OLD)
    assert cluster.get(node, origin.url("/f")).bytes() == OLD.read()
    for _ in range(3):
        refusal = cluster.get(node, origin.url("/f"), "--digest", _sha256(NEW)).refusal
        assert "digest mismatch" in refusal
    assert origin.sent("/f") <= 2 * OLD.size + 9  # a byte for each look at its length
    origin.pause()
    assert cluster.get(node, origin.url("/f")).bytes() == OLD.read()


@pytest.mark.usefixtures("kind")
def test_poison_where_the_origin_cannot_be_asked(cluster: Cluster, origin: Origin) -> None:
    """The caller is told; nothing is dropped that could not be replaced."""
    (node,), url = _poisoned(cluster, origin, "a")
    told = cluster.get(node, url, "--digest", _sha256(OLD), "--disable-back-to-source").refusal
    assert "digest mismatch" in told
    origin.pause()
    assert "digest mismatch" in cluster.get(node, url, "--digest", _sha256(OLD)).refusal
    assert cluster.get(node, url).bytes() == NEW.read()
    origin.resume()
    assert cluster.get(node, url, "--digest", _sha256(OLD)).bytes() == OLD.read()


@pytest.mark.usefixtures("kind")
def test_poison_that_was_read_on_the_way(cluster: Cluster, origin: Origin) -> None:
    """It cannot be taken back: the caller is told, and the next one has the content."""
    (node,), url = _poisoned(cluster, origin, "a")
    refusal = cluster.get(node, url, "--digest", _sha256(OLD), output=Path("/dev/null")).refusal
    assert "digest mismatch" in refusal
    assert cluster.get(node, url, "--digest", _sha256(OLD)).bytes() == OLD.read()
