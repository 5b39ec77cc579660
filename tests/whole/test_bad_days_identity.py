"""Whose content is whose: what one caller says makes no difference to what another gets."""

from __future__ import annotations

import gzip
import subprocess
import sys
from typing import Any

import grpc
import pytest

from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2_grpc, scheduler_pb2
from pantala.rpc.daemon_dialects import daemon_dialect
from pantala.rpc.dialects import dialect_of
from pantala.testing.cluster import PATIENCE, Cluster, Node, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
PLAIN = Pattern(5 * MIB, 1).read()
ZIPPED = gzip.compress(PLAIN[: 1 * MIB] * 5)
ZIP = ("-H", "Accept-Encoding: gzip")


# Representations


def test_an_encoding_is_for_those_who_ask(cluster: Cluster, origin: Origin) -> None:
    """Whoever comes first, on whatever node, and from whatever peer or seed."""
    cluster.scheduler()
    cluster.daemon("seed", seed=True)
    a, b = cluster.daemons("a", "b")
    origin.put("/f", PLAIN)
    origin.put_encoded("/f", ZIPPED, "gzip")
    url = origin.url("/f")

    assert cluster.get(a, url, *ZIP).bytes() == ZIPPED
    assert cluster.get(a, url).bytes() == PLAIN
    assert cluster.get(b, url).bytes() == PLAIN
    sent = origin.sent()
    assert cluster.get(b, url, *ZIP).bytes() == ZIPPED
    assert cluster.get(b, url, "-H", "Accept-Encoding: identity").bytes() == PLAIN
    assert origin.sent() == sent


def test_a_name_that_two_encodings_share(cluster: Cluster, origin: Origin) -> None:
    """Ids of files know no headers: who asks for the one gets it, or reads that there is another.

    Other nodes are none of his business, whatever they hold.
    """
    cluster.kind = Kind.STANDARD
    cluster.scheduler()
    a, b = cluster.daemons("a", "b")
    origin.put("/f", PLAIN)
    origin.put_encoded("/f", ZIPPED, "gzip")
    url = origin.url("/f")

    assert cluster.get(a, url, *ZIP).bytes() == ZIPPED
    assert "is another file on this node" in cluster.get(a, url).refusal
    assert cluster.get(b, url).bytes() == PLAIN
    assert "is another file on this node" in cluster.get(b, url, *ZIP).refusal
    assert cluster.get(a, url, *ZIP).bytes() == ZIPPED


def test_an_encoding_that_nobody_asked_for(cluster: Cluster, origin: Origin) -> None:
    """Is refused, with word how to get it; the next who does not ask is not given it either."""
    a = cluster.daemon("a")
    origin.put("/f", PLAIN)
    origin.put_encoded("/f", ZIPPED, "gzip", unasked=True)
    url = origin.url("/f")
    words = "Content-Encoding gzip, which was not asked for"

    assert words in cluster.get(a, url).refusal
    assert "with the header 'Accept-Encoding: gzip'" in cluster.get(a, url).refusal
    assert cluster.get(a, url, *ZIP).bytes() == ZIPPED
    assert words in cluster.get(a, url).refusal


# Taking over


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/evil", ("--content-for-calculating-task-id", "{good}CACHE")),
        ("/evil", ("--content-for-calculating-task-id", "{good}")),
        ("/x/pub", ("--tag", "lic")),
        ("/x/pub", ("--application", "lic")),
        ("/x/public?version=evil", ("--filtered-query-param", "version")),
    ],
)
def test_nobody_takes_over(
    cluster: Cluster, origin: Origin, path: str, arguments: tuple[str, ...]
) -> None:
    """However a stranger names his task, a URL gets what is there."""
    a = cluster.daemon("a")
    for evil in ("/evil", "/x/pub"):
        origin.put(evil, b"evil")
    origin.put("/x/public", b"good")
    good = origin.url("/x/public")

    first = cluster.get(a, origin.url(path), *(text.format(good=good) for text in arguments))
    then = cluster.get(a, good)
    assert first.code == 0
    assert then.bytes() == b"good"
    assert first.result["task_id"] != then.result["task_id"]


# Secrets


def told(node: Node, scheduler_port: int, task_id: str) -> list[Any]:
    """All that anybody may ask of a task, at the daemon and at the scheduler."""
    upload = f"127.0.0.1:{node.ports['upload']}"
    answers: list[Any] = [*node.tasks().values()]
    names, ask_scheduler = daemon_dialect(node.kind), dialect_of(node.kind).stat
    stat = names.name("Stat{}Task")
    with (
        node.channel() as own,
        grpc.insecure_channel(upload) as far,
        grpc.insecure_channel(f"127.0.0.1:{scheduler_port}") as scheduler,
    ):
        ask = names.message("Stat{}TaskRequest")(task_id=task_id)
        daemons = (node.download_stub(own), dfdaemon_pb2_grpc.DfdaemonUploadStub(far))
        answers += [getattr(daemon, stat)(ask, timeout=PATIENCE) for daemon in daemons]
        stub = Cluster.scheduler_stub(None, scheduler)  # type: ignore[arg-type]  # it needs no cluster
        method, request = ask_scheduler
        answers.append(getattr(stub, method)(request(task_id=task_id)))
        answers.append(stub.ListHosts(scheduler_pb2.ListHostsRequest()))
    return answers


def dfctl(node: Node, *command: str) -> str:
    """What it prints."""
    noun = {Kind.CACHE: "cache-task", Kind.STANDARD: "task"}[node.kind]
    program = [sys.executable, "-m", "pantala.cli.dfctl", noun, *command]
    done = subprocess.run(
        [*program, "--endpoint", str(node.socket), "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


@pytest.mark.usefixtures("kind")
def test_secrets_are_told_to_nobody(cluster: Cluster, origin: Origin) -> None:
    """Not by any answer, and in no log or file, though the seed fetches with them."""
    scheduler = cluster.scheduler("--log-level", "debug")
    seed = cluster.daemon("seed", "--log-level", "debug", seed=True)
    a = cluster.daemon("a", "--log-level", "debug")
    secret = "s3cr3t"  # noqa: S105  of this test alone
    basic = "Basic dXNlcjpzM2NyM3Q="  # user:s3cr3t
    for path in ("/f", "/gone", "/away", "/loop"):
        origin.put(path, PLAIN)
    origin.fault("/f", Fault(require=("Authorization", basic)))
    origin.fault("/gone", Fault(status=410))
    origin.fault("/away", Fault(redirect="ftp://h/?" + secret))
    origin.fault("/loop", Fault(redirect=f"/loop?X-Amz-Signature={secret}"))

    def secretly(path: str) -> str:
        url = origin.url(path).replace("://", f"://user:{secret}@")
        return f"{url}?X-Amz-Signature={secret}#{secret}"

    got = cluster.get(a, secretly("/f"), "-H", f"X-Api-Key: {secret}")
    assert got.bytes() == PLAIN
    until(lambda: got.result["task_id"] in seed.tasks(), "the seed fetched it")
    failed = [cluster.get(a, secretly(path)) for path in ("/gone", "/away", "/loop")]
    failed.append(cluster.get(a, secretly("/f"), "--digest", "crc32:1"))
    shown = [dfctl(a, *command) for command in (("ls",), ("stat", got.result["task_id"]))]

    answers = [*told(a, cluster.scheduler_port, got.result["task_id"])]
    answers += told(seed, cluster.scheduler_port, got.result["task_id"])
    assert sum(origin.url("/f") in str(answer) for answer in answers) >= 8
    assert all(origin.url("/f") in text for text in shown)
    assert all(each.refusal for each in failed)
    texts = [*map(str, answers), *shown, got.stdout, got.stderr]
    texts += [text for each in failed for text in (each.stdout, each.stderr)]
    texts += [program.log for program in (scheduler, seed, a)]
    texts += [
        path.read_bytes().decode("latin-1")
        for node in (seed, a)
        for path in node.content_dir.parent.rglob("*")
        if path.is_file()
    ]
    assert not [text for text in texts if secret in text or basic in text]
