"""rpc/daemon_dialects.py: every name in the table is one of the contract's."""

from __future__ import annotations

import pytest

from pantala.core.policy import POLICIES
from pantala.errors import FeatureOff, InvalidRequest
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2
from pantala.rpc.daemon_dialects import (
    DAEMON_DIALECTS,
    DOWNLOAD_SERVICE,
    UPLOAD_SERVICE,
    DaemonDialect,
    daemon_dialect,
)

#: A kind whose requests nest what is wanted, and for which the contract has other methods.
NESTED = DaemonDialect(
    kind=Kind.STANDARD,
    word="",
    started="download_task_started_response",
    numbers="interested_piece_numbers",
    download="download",
)

SERVICES = dfdaemon_pb2.DESCRIPTOR.services_by_name

dialects = pytest.mark.parametrize(
    "dialect", [*DAEMON_DIALECTS.values(), NESTED], ids=lambda d: d.kind.name
)


def test_every_kind_that_is_served_is_spoken_of() -> None:
    """And no other."""
    assert DAEMON_DIALECTS.keys() == POLICIES.keys()
    assert daemon_dialect(Kind.CACHE) is DAEMON_DIALECTS[Kind.CACHE]
    with pytest.raises(FeatureOff, match="PERSISTENT tasks are not served"):
        daemon_dialect(Kind.PERSISTENT)


@dialects
@pytest.mark.parametrize("service", ["DfdaemonDownload", "DfdaemonUpload"])
def test_methods_and_their_messages(dialect: DaemonDialect, service: str) -> None:
    """Messages are named after the method, or after what it describes."""
    methods = SERVICES[service].methods_by_name
    for pattern in ("Download{}Task", "Stat{}Task", "Delete{}Task"):
        method = dialect.method(pattern, f"dfdaemon.v2.{service}")
        if method is None:  # what was imported is deleted by its scheduler
            assert POLICIES[dialect.kind].imported
            continue
        assert methods[method].input_type is dialect.message(pattern + "Request").DESCRIPTOR
    download = methods[dialect.name("Download{}Task")]
    assert download.output_type is dialect.message("Download{}TaskResponse").DESCRIPTOR
    stat = methods[dialect.name("Stat{}Task")]
    assert stat.output_type is dialect.message("{}Task").DESCRIPTOR


@dialects
def test_downloads(dialect: DaemonDialect) -> None:
    """Where the request says what is wanted, and the answer what has been found."""
    request = dialect.message("Download{}TaskRequest")
    wanted = request() if dialect.download is None else request(**{dialect.download: {}})
    what = "task_id" if POLICIES[dialect.kind].imported else "url"
    assert what in dialect.wanted(wanted).DESCRIPTOR.fields_by_name
    started = dialect.message("Download{}TaskResponse").DESCRIPTOR.fields_by_name[dialect.started]
    assert started.message_type is dialect.message("Download{}TaskStartedResponse").DESCRIPTOR


@dialects
def test_pieces(dialect: DaemonDialect) -> None:
    """What a child asks for, and how it may be fetched."""
    request = dialect.message("Sync{}PiecesRequest").DESCRIPTOR
    assert {"host_id", "task_id", dialect.numbers} == set(request.fields_by_name)
    answer = dialect.message("Sync{}PiecesResponse").DESCRIPTOR
    assert {"number", "offset", "length", "ip", "tcp_port"} <= set(answer.fields_by_name)


def test_what_the_contract_lacks() -> None:
    """No method, and no message."""
    cache = DAEMON_DIALECTS[Kind.CACHE]
    assert cache.method("Download{}Piece", UPLOAD_SERVICE) == "DownloadCachePiece"
    assert NESTED.method("Download{}Piece", UPLOAD_SERVICE) is None
    assert cache.method("DeleteLocal{}Task", DOWNLOAD_SERVICE) is None
    assert NESTED.method("DeleteLocal{}Task", DOWNLOAD_SERVICE) == "DeleteLocalTask"
    with pytest.raises(LookupError, match="no message StatLocalCacheTaskResponse"):
        cache.message("StatLocal{}TaskResponse")


def test_nothing_is_asked_for() -> None:
    """Said as what it is."""
    request = dfdaemon_pb2.DownloadTaskRequest()
    with pytest.raises(InvalidRequest, match="no download: nothing is asked for"):
        NESTED.wanted(request)
    request.download.url = "u"
    assert NESTED.wanted(request) == common_pb2.Download(url="u")
