"""What ends a gRPC server, and what a moment of many calls does."""

from __future__ import annotations

import signal

import pytest

from pantala.testing import ports
from pantala.testing import raw_http2 as raw
from pantala.testing.cluster import PATIENCE, Cluster, Program
from pantala.testing.origin import Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

CONTENT = Pattern(300_000, seed=6)

#: Runs a program whose gRPC servers hang once they are told to. Whoever builds one anew finds the
#: port taken: by somebody who listens from that moment on.
HANGING = """
import asyncio, runpy, signal, socket, sys
from pantala.rpc import server

server._CHECK, server._WAITS, server._PAUSE = 0.05, (5, 0.1), 0.01
hangs = asyncio.Event()

class Hanging(server._Steadfast):
    def _make_request_call_future(self, method):
        return asyncio.ensure_future(self.take(super()._make_request_call_future(method)))

    async def take(self, taken):
        call = await taken
        if hangs.is_set():
            await asyncio.get_running_loop().create_future()
        return call

class Supervised(server.Supervised):
    async def start(self):
        await super().start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, hangs.set)

    async def _build_anew(self):
        if self._target().startswith("127."):
            ip, _, port = self._target().rpartition(":")
            self.other = socket.create_server((ip, int(port)))
        await super()._build_anew()

server._Steadfast, server.Supervised = Hanging, Supervised
module, *sys.argv = sys.argv[1:2] + sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("program", ["dfdaemon", "dfscheduler"])
def test_a_server_that_cannot_come_back(cluster: Cluster, program: str) -> None:
    """It hangs, and its port is taken meanwhile: the process ends with status 1 and says why."""
    (cluster.directory / "hanging.py").write_text(HANGING)
    cluster.wrapper = ("hanging",)
    env = {"PYTHONPATH": str(cluster.directory)}
    if program == "dfdaemon":
        started: Program = cluster.daemon("a", env=env)
        port = started.ready["upload"]
    else:
        with ports.port() as port:
            flags = ("--port", str(port), "--listen-ip", "127.0.0.1")
            started = cluster.start("pantala.cli.dfscheduler", *flags, name="s", env=env)
            started.wait_for("listening")
    started.signal(signal.SIGUSR1)
    assert started.process.wait(PATIENCE) == 1
    events = [line["event"] for line in started.events]
    assert events.count("server does not answer") >= 3
    assert "server does not start" in events
    last = started.log.splitlines()[-1]
    assert last.startswith(f"{program}: the "), last
    assert "has ended, and does not start: cannot listen on " in last
    assert f":{port}: Address already in use" in last
    assert "it cannot be built anew" in last


def test_a_path_of_any_bytes_ends_no_server(cluster: Cluster, origin: Origin) -> None:
    """On the scheduler's port, a daemon's and its socket: all serve afterwards."""
    cluster.scheduler()
    one, two = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    targets = (
        f"127.0.0.1:{cluster.scheduler_port}",
        f"127.0.0.1:{one.ports['upload']}",
        f"unix:{one.socket}",
    )
    for target in targets:
        for _ in range(2):
            with raw.Connection(target) as connection:
                connection.send(raw.HELLO + raw.call(b"/\xff\xfe"))
                assert b"grpc-status\x0212" in connection.answer()
    assert cluster.get(one, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    assert cluster.get(two, origin.url("/f")).result["bytes_from_peers"] == CONTENT.size
    assert len(one.tasks()) == 1


def test_strangers_write_no_log(cluster: Cluster) -> None:
    """Neither headers that are no UTF-8, which may be secrets, nor messages that are none."""
    scheduler = cluster.scheduler()
    target = f"127.0.0.1:{cluster.scheduler_port}"
    before = len(scheduler.log)
    head = raw.request_head(b"/scheduler.v2.Scheduler/StatCacheTask", (b"x", b"\xffsecret" * 500))
    call = raw.frame(raw.HEADERS, raw.END_HEADERS, 1, head)
    call += raw.frame(raw.DATA, raw.END_STREAM, 1, b"\0\0\0\0\0")
    for _ in range(20):
        for hello in (call, raw.call(b"/grpc.health.v1.Health/Check", message=b"\xff" * 100)):
            with raw.Connection(target) as connection:
                connection.send(raw.HELLO + hello)
                assert b"grpc-status" in connection.answer()
    assert len(scheduler.log) - before < 10_000
    assert "secret" not in scheduler.log
    assert not scheduler.errors
