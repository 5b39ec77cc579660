"""A manager played by the contract: a real gRPC server that can be stopped and started again.

It knows what Dragonfly's manager would have in its database, and what it was sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack
from typing import Any, Final, Self

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pantala.pb import manager_pb2, manager_pb2_grpc

from . import ports

#: Calls at once; each stream of a scheduler that keeps alive is one.
_WORKERS: Final = 16


class ManagerServer(manager_pb2_grpc.ManagerServicer):
    """A context manager; inside, it is up until :meth:`stop`.

    Attributes:
        schedulers: Its rows, in the order in which they are told.
        clusters: By id.
        applications: What ``ListApplications`` answers; none: NOT_FOUND.
        asked: Every request, by the method's name.
        failing: What methods answer instead of what they should.
    """

    def __init__(self) -> None:
        self._kept = ExitStack()
        self.port = 0
        self._server: grpc.Server | None = None
        self._lock = threading.Lock()
        self.schedulers: list[manager_pb2.Scheduler] = []
        self.clusters: dict[int, manager_pb2.SchedulerCluster] = {}
        self.applications: list[manager_pb2.Application] = []
        self.asked: list[tuple[str, Any]] = []
        self.failing: dict[str, grpc.StatusCode] = {}

    def __enter__(self) -> Self:
        self.port = self._kept.enter_context(ports.port())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._kept.close()

    @property
    def address(self) -> str:
        """``host:port``; its own, also while it is stopped."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        server = grpc.server(
            futures.ThreadPoolExecutor(_WORKERS), options=(("grpc.so_reuseport", 0),)
        )
        manager_pb2_grpc.add_ManagerServicer_to_server(self, server)
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_insecure_port(self.address)
        server.start()
        self._server = server

    def stop(self) -> None:
        """End as if it had been killed: every call breaks off."""
        if self._server is not None:
            self._server.stop(None).wait()
        self._server = None

    def requests(self, method: str) -> list[Any]:
        """What it was sent so far by calls of *method*."""
        with self._lock:
            return [request for name, request in self.asked if name == method]

    # -- its database --------------------------------------------------------------------------

    def cluster(self, number: int = 1, **parts: object) -> None:
        """Have a cluster; *parts* are its configurations, such as ``client_config``.

        Bytes are told as they are, anything else as JSON.
        """
        told = {
            name: value if isinstance(value, bytes) else json.dumps(value).encode()
            for name, value in parts.items()
        }
        self.clusters[number] = manager_pb2.SchedulerCluster(
            id=number,
            name=f"cluster-{number}",
            **told,  # type: ignore[arg-type]  # its fields that are bytes
        )

    def add(
        self, port: int, cluster: int = 1, *, ip: str = "127.0.0.1", state: str = "active"
    ) -> None:
        """Have a scheduler at *port*."""
        self.schedulers.append(
            manager_pb2.Scheduler(
                id=len(self.schedulers) + 1,
                hostname=f"scheduler-{port}",
                ip=ip,
                port=port,
                state=state,
                scheduler_cluster_id=cluster,
            )
        )

    def _told(self, row: manager_pb2.Scheduler) -> manager_pb2.Scheduler:
        told = manager_pb2.Scheduler()
        told.CopyFrom(row)
        if row.scheduler_cluster_id in self.clusters:
            told.scheduler_cluster.CopyFrom(self.clusters[row.scheduler_cluster_id])
        return told

    def _note(self, method: str, request: Any, context: Any) -> None:
        with self._lock:
            self.asked.append((method, request))
        if method in self.failing:
            context.abort(self.failing[method], f"{method} fails")

    # -- the contract --------------------------------------------------------------------------

    def ListSchedulers(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """All of a cluster, or of all clusters for who names none."""
        self._note("ListSchedulers", request, context)
        wanted = request.scheduler_cluster_id
        return manager_pb2.ListSchedulersResponse(
            schedulers=[
                self._told(row)
                for row in self.schedulers
                if wanted in (0, row.scheduler_cluster_id)
            ]
        )

    def UpdateScheduler(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Have the row, or the one that is there, as it says. It becomes active by KeepAlive."""
        self._note("UpdateScheduler", request, context)
        key = (request.hostname, request.ip, request.port, request.scheduler_cluster_id)
        for row in self.schedulers:
            if (row.hostname, row.ip, row.port, row.scheduler_cluster_id) == key:
                break
        else:
            self.add(request.port, request.scheduler_cluster_id, ip=request.ip, state="inactive")
            row = self.schedulers[-1]
        row.hostname = request.hostname
        row.idc, row.location = request.idc, request.location
        row.features = json.dumps(list(request.features)).encode()
        return self._told(row)

    def GetScheduler(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """The row by hostname and cluster, without what is for seeds' clients."""
        self._note("GetScheduler", request, context)
        for row in self.schedulers:
            if (row.hostname, row.scheduler_cluster_id) == (
                request.hostname,
                request.scheduler_cluster_id,
            ):
                told = self._told(row)
                told.scheduler_cluster.ClearField("seed_client_config")
                return told
        context.abort(grpc.StatusCode.INTERNAL, "record not found")
        return None

    def ListApplications(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Those that there are."""
        self._note("ListApplications", request, context)
        if not self.applications:
            context.abort(grpc.StatusCode.NOT_FOUND, "no applications")
        return manager_pb2.ListApplicationsResponse(applications=self.applications)

    def _for_old_daemons(self, request: Any, context: Any) -> Any:
        """What no program asks any longer."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, type(request).__name__)

    GetSeedPeer = ListSeedPeers = UpdateSeedPeer = DeleteSeedPeer = _for_old_daemons

    def KeepAlive(self, requests: Iterator[Any], context: Any) -> Any:  # noqa: N802  the contract's name
        """The sender is active from its first word until the stream ends."""
        sender: manager_pb2.Scheduler | None = None
        try:
            for request in requests:
                self._note("KeepAlive", request, context)
                sender = next((r for r in self.schedulers if r.hostname == request.hostname), None)
                if sender is not None:
                    sender.state = "active"
        except grpc.RpcError:
            pass  # it broke off
        finally:
            if sender is not None:
                sender.state = "inactive"
        return Empty()
