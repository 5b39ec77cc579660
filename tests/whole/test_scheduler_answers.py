"""What a scheduler on a real port says of tasks, peers, hosts and itself, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from pantala import BUILD_VERSION
from pantala.pb import common_pb2, errordetails_pb2, scheduler_pb2
from pantala.testing.announce import LIMIT, is_to_source, refusal, swarm, until
from pantala.testing.stage import MIB, task_id

pytestmark = pytest.mark.usefixtures("kind")

# What is said of tasks and peers


async def test_candidates_are_light_and_complete() -> None:
    """What a child needs to call its parent, and none of the host's figures."""
    async with swarm() as s:
        await s.host("a", port=4123, idc="i", location="l")
        await s.hosts("b")
        await s.holder("a")
        child = s.peer("b")
        answer = await child.asked()
        arm = answer.WhichOneof("response")
        (parent,) = getattr(answer, arm).candidate_parents
        assert (parent.host.id, parent.host.ip, parent.host.port) == ("a", "127.0.0.1", 4123)
        assert parent.host.download_port == 4123
        assert parent.host.network.max_tx_bandwidth == 10**10
        assert parent.state == "Succeeded"
        assert not parent.host.HasField("memory")
        assert not parent.host.HasField("build")
        assert parent.ByteSize() < 150


async def test_stat_of_a_task() -> None:
    """Length, pieces, and whether anybody usable holds it; unknown tasks are not found."""
    async with swarm() as s:
        assert await refusal(s.stat()) is grpc.StatusCode.NOT_FOUND
        await s.hosts("a", "b")
        holder = await s.holder("a", request_header={"authorization": "secret"}, tag="x")
        stat = await s.stat()
        assert (stat.content_length, stat.piece_count, stat.peer_count) == (10 * MIB, 3, 1)
        assert [(p.number, p.offset, p.length) for p in stat.pieces] == [(0, 0, 4 * MIB)]
        assert (stat.state, stat.has_available_peer) == ("Succeeded", True)
        assert (stat.type, stat.size_scope) == (s.kind, common_pb2.NORMAL)
        assert not stat.request_header
        await s.delete_peer(holder.id)
        await s.delete_peer(holder.id)
        stat = await s.stat()
        assert (stat.has_available_peer, stat.peer_count) == (False, 0)


async def test_stat_of_a_peer() -> None:
    """Its task and its host are in it, and how long it took."""
    async with swarm() as s:
        await s.hosts("a")
        peer = await s.holder("a", range=common_pb2.Range(start=1, length=2))
        stat = await s.stat_peer(peer.id)
        assert (stat.id, stat.state, stat.need_back_to_source) == (peer.id, "Succeeded", True)
        assert (stat.task.id, stat.host.id) == (task_id("t"), "a")
        assert (stat.range.start, stat.range.length) == (1, 2)
        assert stat.HasField("cost")
        assert stat.created_at.ToNanoseconds() <= stat.updated_at.ToNanoseconds()
        assert abs(stat.created_at.ToSeconds() - time.time()) < 3600
        assert await refusal(s.stat_peer("other")) is grpc.StatusCode.NOT_FOUND


async def test_a_joining_peer_does_not_unmake_a_task() -> None:
    """A task that is held stays Succeeded, whoever comes and goes."""
    async with swarm() as s:
        await s.hosts("a", "b")
        await s.holder("a")
        child = await s.child("b")
        assert (await s.stat()).state == "Succeeded"
        await child.failed()
        assert (await s.stat()).state == "Succeeded"


async def test_a_changed_file_is_not_mixed_with_the_old() -> None:
    """Whoever has another length than the holders is left to the origin; theirs stays known."""
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        await s.holder("a")
        other = s.peer("b")
        assert is_to_source(await other.asked(length=11 * MIB))
        await other.source_started()
        assert (await s.stat()).content_length == 10 * MIB
        child = s.peer("c")
        await child.register()
        assert other.id not in await child.parents()
        await other.failed()
        await child.failed()
        await s.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="a"))
        fresh = s.peer("b")
        assert is_to_source(await fresh.asked(length=12 * MIB))
        assert (await s.stat()).content_length == 12 * MIB


async def test_news_of_pieces_of_a_deleted_peer_do_not_end_the_stream() -> None:
    """Only what it says of itself does."""
    async with swarm() as s:
        await s.hosts("a")
        peer = await s.source("a")
        await s.delete_peer(peer.id)
        await peer.piece(0)
        await peer.piece(1, "somebody")
        await peer.piece_failed("somebody")
        request = scheduler_pb2.DownloadPieceBackToSourceFailedRequest()
        await peer.tell(download_piece_back_to_source_failed_request=request)
        await peer.source_started()
        assert "register it first" in await peer.ends(grpc.StatusCode.NOT_FOUND)


async def test_a_stream_has_one_peer() -> None:
    """A second registration ends it, and with it the first."""
    async with swarm() as s:
        await s.hosts("a", "b")
        peer = await s.source("a")
        first = dict(peer.ids)
        peer.ids["peer_id"] = "another"
        await peer.register()
        await peer.ends(grpc.StatusCode.INVALID_ARGUMENT)
        assert (await s.stat_peer(first["peer_id"])).state == "Failed"
        assert await refusal(s.stat_peer("another")) is grpc.StatusCode.NOT_FOUND
        assert is_to_source(await s.peer("b").asked())


async def test_a_length_that_no_number_of_pieces_can_have() -> None:
    """Is refused at the door; the contract numbers pieces in 32 bits."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(length=2**63)
        assert "more pieces" in await peer.ends(grpc.StatusCode.INVALID_ARGUMENT)
        assert await refusal(s.stat()) is grpc.StatusCode.NOT_FOUND
        peer = s.peer("a")
        await peer.register(length=(2**32 - 1) * 4 * MIB)
        await peer.to_source()
        assert (await s.stat()).piece_count == 2**32 - 1


async def test_what_an_announcement_leaves_out_still_holds() -> None:
    """As Dragonfly's scheduler has it: parts come when they have changed."""
    async with swarm() as s:
        await s.host("a", idc="here", location="there")
        host = common_pb2.Host(id="a", hostname="a", ip="127.0.0.1", port=4001, download_port=4001)
        await s.stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=host))
        (listed,) = (await s.stub.ListHosts(scheduler_pb2.ListHostsRequest())).hosts
        assert (listed.port, listed.network.idc, listed.memory.total) == (4001, "here", 1)
        assert (listed.network.location, listed.build.git_version) == ("there", BUILD_VERSION)
        host.network.idc = "elsewhere"
        await s.stub.AnnounceHost(scheduler_pb2.AnnounceHostRequest(host=host))
        (listed,) = (await s.stub.ListHosts(scheduler_pb2.ListHostsRequest())).hosts
        assert (listed.network.idc, listed.network.location) == ("elsewhere", "")


async def test_holders_may_announce_again_and_again() -> None:
    """As after a restart of the scheduler; one host counts once."""
    async with swarm() as s:
        await s.hosts("a", "b")
        for _ in range(3):
            held = await s.holder("a")
        assert (await s.stat()).peer_count == 1
        child = s.peer("b")
        await child.register()
        assert await child.parents() == {held.id}


# Hosts


async def test_hosts_come_and_go() -> None:
    """Announced, listed by type, deleted with all they hold."""
    async with swarm() as s:
        await s.hosts("a")
        await s.host("z", type=1)
        holder = await s.holder("a")

        async def listed(**kind: int) -> list[str]:
            found = await s.stub.ListHosts(scheduler_pb2.ListHostsRequest(**kind))
            return [host.id for host in found.hosts]

        assert await listed() == ["a", "z"]
        assert (await listed(type=0), await listed(type=1)) == (["a"], ["z"])
        assert await listed(type=2) == []
        await s.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="a"))
        assert await s.gone(holder)
        assert (
            await refusal(s.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="a")))
            is grpc.StatusCode.NOT_FOUND
        )
        assert await refusal(s.delete_task("a")) is grpc.StatusCode.NOT_FOUND


async def test_a_silent_host_is_forgotten() -> None:
    """Silent for twice its interval: its peers are gone and no longer offered."""
    async with swarm(
        scheduler__gc__hostGCInterval="50ms", scheduler__gc__peerGCInterval="50ms"
    ) as s:
        await s.host("a", interval=Duration(nanos=100_000_000))
        await s.hosts("b")
        holder = await s.holder("a")
        await until(lambda: s.gone(holder))
        other = s.peer("b")
        await other.register()
        await other.to_source()


async def test_a_restart_shows() -> None:
    """The epoch is the same within a run and another one after a restart."""
    epochs = []
    for _ in range(2):
        async with swarm() as s:
            for _ in range(2):
                trailing = await (await s.host("a")).trailing_metadata()
                epochs.append(dict(trailing)["pantala-epoch"])
    assert epochs[0] == epochs[1] != epochs[2] == epochs[3]
    assert all(epochs)


# Refusals


async def test_an_unknown_host_is_told_to_announce() -> None:
    """NOT_FOUND names the host and what to do."""
    async with swarm() as s:
        peer = s.peer("nobody")
        await peer.register()
        details = await peer.ends(grpc.StatusCode.NOT_FOUND)
        assert "host nobody" in details
        assert "announce" in details


async def test_messages_out_of_order() -> None:
    """Before registering NOT_FOUND; what the state does not allow INTERNAL."""
    async with swarm() as s:
        await s.hosts("a")
        early = s.peer("a")
        await early.started()
        await early.ends(grpc.StatusCode.NOT_FOUND)
        confused = await s.source("a")
        await confused.started()
        assert "BackToSource" in await confused.ends(grpc.StatusCode.INTERNAL)
        await s.until_state(confused, "Failed")
        empty = s.peer("a")
        await empty.tell()
        await empty.ends(grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"url": ""}, "url"),
        ({"piece_length": 1}, "piece_length"),
        ({"actual_piece_length": 65 * MIB}, "actual_piece_length"),
        ({"digest": "md5:1"}, "digest"),
        ({"range": common_pb2.Range(start=1)}, "range"),
        ({"url": "x" * 70_000}, "registration"),
    ],
)
async def test_bad_registrations_are_named(fields: dict[str, Any], word: str) -> None:
    """INVALID_ARGUMENT says which field."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(**fields)
        assert word in await peer.ends(grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("name", "value"),
    [("task_id", "short"), ("peer_id", ""), ("host_id", ""), ("peer_id", "x" * 2000)],
)
async def test_bad_ids_are_named(name: str, value: str) -> None:
    """Ids become keys: they are checked where they enter."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        peer.ids[name] = value
        await peer.register()
        assert name.replace("_", " ") in await peer.ends(grpc.StatusCode.INVALID_ARGUMENT)


async def test_bad_announcements_are_refused() -> None:
    """A host without id or address cannot be anybody's parent."""
    async with swarm() as s:
        assert await refusal(s.host("")) is grpc.StatusCode.INVALID_ARGUMENT
        assert await refusal(s.host("a", ip="")) is grpc.StatusCode.INVALID_ARGUMENT
        assert await refusal(s.host("a", port=0)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_too_many_requests() -> None:
    """Beyond the rate limit RESOURCE_EXHAUSTED."""
    async with swarm(server__requestRateLimit=0.001) as s:
        await s.host("a")
        codes = [await refusal(s.host("a")) for _ in range(3)]
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3


async def test_other_kinds_are_unimplemented() -> None:
    """Only those that have rows are served."""
    async with swarm() as s:
        call = s.stub.StatPersistentTask(
            scheduler_pb2.StatPersistentTaskRequest(task_id=task_id("t"))
        )
        assert await refusal(call) is grpc.StatusCode.UNIMPLEMENTED


# Around it


async def test_what_is_counted() -> None:
    """A download shows in Dragonfly's families, by the kind of its task."""
    async with swarm(metrics__enable=True, metrics__addr="127.0.0.1:0") as s:
        await s.hosts("a", "b")
        first = await s.source("a")
        await first.piece(0)
        child = await s.child("b")
        await child.piece(0, first.id)
        await child.tell(
            download_piece_back_to_source_failed_request=(
                scheduler_pb2.DownloadPieceBackToSourceFailedRequest(
                    unknown=errordetails_pb2.Unknown(message="x")
                )
            )
        )
        await child.finished()
        kind = s.kind.name
        url = f"http://127.0.0.1:{s.scheduler.metrics_port}/metrics"
        text = await asyncio.to_thread(_fetch, url)
    labels = f'host_type="normal",priority="LEVEL0",task_type="{kind}"'
    name = "dragonfly_scheduler_"
    assert f"{name}register_peer_total{{{labels}}} 2.0" in text
    assert f"{name}download_peer_finished_total{{{labels}}} 1.0" in text
    traffic = f'{name}traffic{{host_type="normal",task_type="{kind}",type="REMOTE_PEER"}}'
    assert f"{traffic} 4.194304e+06" in text
    assert f"{name}announce_host_total 2.0" in text
    assert f'{name}download_peer_duration_milliseconds_count{{task_size_level="4"}} 1.0' in text
    assert f"{name}concurrent_schedule_total 1.0" in text


def _fetch(url: str) -> str:
    with urlopen(url, timeout=LIMIT) as answer:
        return str(answer.read().decode())


async def test_health_and_reflection() -> None:
    """The empty name is SERVING, a named service unknown; grpcurl can list the service."""
    async with swarm() as s:
        health = health_pb2_grpc.HealthStub(s.channel)
        for service in ("", "scheduler.v2.Scheduler"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        named = health.Check(health_pb2.HealthCheckRequest(service="scheduler.v2.Other"))
        assert await refusal(named) is grpc.StatusCode.NOT_FOUND
        for version in ("v1", "v1alpha"):
            ask: Any = s.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            call = ask()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            services = (await call.read()).list_services_response.service
            assert "scheduler.v2.Scheduler" in {service.name for service in services}
            call.cancel()


def test_the_program(tmp_path: Path) -> None:
    """It says where it listens, refuses a taken port in one line, and ends on SIGTERM."""
    command = [sys.executable, "-m", "pantala.cli.dfscheduler", "--listen-ip", "127.0.0.1"]
    config = tmp_path / "scheduler.yaml"
    config.write_text(
        textwrap.dedent("""
        server: {port: 0}
        tracing: {protocol: grpc}
        """)
    )
    with subprocess.Popen(
        [*command, "--config", str(config)], stderr=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stderr is not None
            listening = json.loads(first.stderr.readline())
            assert listening["event"] == "listening"
            ignored = json.loads(first.stderr.readline())
            assert ignored["keys"] == ["tracing.protocol"]
            port = str(listening["port"])
            second = subprocess.run(
                [*command, "--port", port], capture_output=True, text=True, timeout=60, check=False
            )
            assert second.returncode == 1
            assert second.stderr == (
                f"dfscheduler: cannot listen on 127.0.0.1:{port}: Address already in use; "
                "set server.port to another port, or to 0 for any free one\n"
            )
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=60) == 0
        finally:
            first.kill()


async def test_a_url_that_cannot_be_parsed_is_refused() -> None:
    """Whoever registers it: it would be told to others."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(url="http://[::1/x")
        assert await refusal(peer.answer()) is grpc.StatusCode.INVALID_ARGUMENT
