"""Preheating images of a real registry, with daemons of ours."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.pb import scheduler_pb2
from pantala.testing.cluster import Cluster, Program, until
from pantala.testing.content import Pattern
from pantala.testing.registry_server import PASSWORD, USER, RegistryServer, index_of

LAYERS = [Pattern(3_000_000, seed=n).read() for n in range(3)]
REPOSITORY = "team/app"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """One that lets not everybody in, with an image for two platforms."""
    with RegistryServer(tmp_path, private=True) as server:
        manifests = {
            "linux/amd64": server.push(REPOSITORY, LAYERS[:2]),
            "linux/arm64": server.push(REPOSITORY, LAYERS[1:]),
        }
        server.put(REPOSITORY, index_of(manifests), "1")
        yield server


def test_an_image_into_memory(
    cluster: Cluster, scheduler: Program, registry: RegistryServer
) -> None:
    """That of the platform, on each host; no password is in a log."""
    nodes = cluster.daemons("a", "b")
    image = f"oci+http://{registry.address}/{REPOSITORY}:1"
    flags: tuple[str, ...] = ("--scope", "all_peers", "--platform", "linux/arm64")
    got = cluster.finish(*cluster.begin_preheat(image, *flags))
    assert got.code == 1
    assert "it wants a user name and a password" in got.stderr
    flags += ("--username", USER, "--password", PASSWORD)
    got = cluster.finish(*cluster.begin_preheat(image, *flags))
    assert got.code == 0, got
    *pairs, last = map(json.loads, got.stdout.splitlines())
    assert (last["done"], last["failed"]) == (6, 0)
    lengths = sorted(row["content_length"] for row in pairs)
    assert lengths[2:] == [3_000_000] * 4
    ids = {row["task_id"] for row in pairs}
    assert all(row["task_id"] == task_id(Kind.CACHE, row["url"]) for row in pairs)
    for node in nodes:
        assert {one for one, t in node.tasks().items() if t.HasField("finished_at")} == ids
    for program in (scheduler, *nodes):
        assert PASSWORD not in program.log
        assert "Basic" not in program.log


def test_the_contracts_methods(
    cluster: Cluster, scheduler: Program, registry: RegistryServer
) -> None:
    """PreheatImage takes it, StatImage says who has it."""
    cluster.daemon("a")
    url = f"{registry.url}/v2/{REPOSITORY}/manifests/1"
    terms: dict[str, Any] = {"url": url, "username": USER, "password": PASSWORD}
    terms["platform"] = "linux/amd64"
    with grpc.insecure_channel(f"127.0.0.1:{cluster.scheduler_port}") as channel:
        stub = cluster.scheduler_stub(channel)
        stub.PreheatImage(scheduler_pb2.PreheatImageRequest(**terms, scope="all_peers"))

        def there() -> Any:
            answer = stub.StatImage(scheduler_pb2.StatImageRequest(**terms))
            layers = [layer for peer in answer.peers for layer in peer.cached_layers]
            done = sum(layer.is_finished for layer in layers)
            return answer if done == len(answer.image.layers) == 3 else None

        answer = until(there, "the image on the host")
        assert [peer.hostname.partition(".")[0] for peer in answer.peers] == ["a"]
        with pytest.raises(grpc.RpcError) as caught:
            stub.PreheatImage(scheduler_pb2.PreheatImageRequest(url=url + "x", scope="all_peers"))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not scheduler.errors


def test_certificates_are_checked(cluster: Cluster, scheduler: Program, tmp_path: Path) -> None:
    """Unless the caller does not want that, or brings along who vouches."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    trusted, certificate, key = (tmp_path / name for name in ("ca", "certificate", "key"))
    authority.cert_pem.write_to_path(str(trusted))
    made.cert_chain_pems[0].write_to_path(str(certificate))
    made.private_key_pem.write_to_path(str(key))
    node = cluster.daemon("a", config={"backend": {"caCert": str(trusted)}})
    with RegistryServer(tmp_path, tls=(certificate, key), trusted=trusted) as server:
        server.push(REPOSITORY, LAYERS[:1], "1")
        image = f"oci://{server.address}/{REPOSITORY}:1"
        flags = ("--scope", "all_peers")
        got = cluster.finish(*cluster.begin_preheat(image, *flags))
        assert got.code == 1
        assert "TLS: unable to get local issuer certificate" in got.stderr
        got = cluster.finish(*cluster.begin_preheat(image, *flags, "--insecure-skip-verify"))
        assert got.code == 0, got
        assert len(node.tasks()) == 2
        der = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
        wanted = scheduler_pb2.StatImageRequest(
            url=f"{server.url}/v2/{REPOSITORY}/manifests/1", certificate_chain=[der]
        )
        with grpc.insecure_channel(f"127.0.0.1:{cluster.scheduler_port}") as channel:
            answer = cluster.scheduler_stub(channel).StatImage(wanted)
        assert len(answer.image.layers) == 2
    assert not scheduler.errors
