"""rpc/codec.py: what is said comes out as it went in, for each shape; and what strangers say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantala.errors import InvalidRequest, SchedulerLost
from pantala.model import announce
from pantala.model.announce import Answer, Candidate, HostFacts, Registration, Report
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind, PieceRecord, Traffic
from pantala.pb import common_pb2, dfdaemon_pb2, scheduler_pb2
from pantala.rpc.codec import Codec
from pantala.rpc.convert import download_request
from pantala.rpc.dialects import DIALECTS

CODECS = [pytest.param(row.codec, id=kind.name) for kind, row in DIALECTS.items()]
codecs = pytest.mark.parametrize("codec", CODECS)

CACHE, STANDARD, IMPORTED = (
    DIALECTS[kind].codec for kind in (Kind.CACHE, Kind.STANDARD, Kind.PERSISTENT_CACHE)
)

# -- what can be said ----------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(0, 2**32 - 1)
lengths = st.integers(0, 2**63)
times = st.floats(0, 1e6).map(lambda seconds: round(seconds, 3))
ranges = st.builds(ByteRange, lengths, lengths)
access = st.fixed_dictionaries(
    {},
    optional={
        "object_storage": st.fixed_dictionaries(
            {}, optional={"region": texts, "insecure_skip_verify": st.booleans()}
        ),
        "hdfs": st.fixed_dictionaries({}, optional={"delegation_token": texts}),
    },
)
pieces = st.builds(
    PieceRecord,
    number=numbers,
    offset=lengths,
    length=lengths,
    digest=texts,
    parent_id=st.none() | texts,
    traffic=st.sampled_from(Traffic),
    cost=times,
    created_at=times,
)
hosts = st.builds(
    HostFacts,
    id=texts,
    hostname=texts,
    ip=texts.filter(bool),
    port=st.integers(1, 65535),
    download_port=st.integers(0, 65535),
    type=st.integers(0, 3),
    idc=texts,
    location=texts,
    tx_bandwidth=lengths,
    max_tx_bandwidth=lengths,
)


def requests(codec: Codec) -> st.SearchStrategy[DownloadRequest]:
    """Whatever this kind has words for."""
    has = _fields(codec, codec.download()) & _fields(codec, _register_part(codec))
    words: dict[str, st.SearchStrategy[Any]] = {
        "url": texts,
        "range": st.none() | ranges,
        "tag": st.none() | texts,
        "application": st.none() | texts,
        "priority": st.integers(0, 6),
        "filtered_query_params": st.lists(texts, max_size=3).map(tuple),
        "request_header": st.dictionaries(texts, texts, max_size=3),
        "piece_length": st.none() | lengths,
        "disable_back_to_source": st.booleans(),
        "need_back_to_source": st.booleans(),
        "prefetch": st.booleans(),
        "is_prefetch": st.booleans(),
        "content_for_calculating_task_id": st.none() | texts,
        "remote_ip": st.none() | texts,
        "enable_task_id_based_blob_digest": st.booleans(),
        "persistent": st.booleans(),
        "certificate_chain": st.lists(st.binary(max_size=4), max_size=2).map(tuple),
    }
    said = {name: words[name] for name in words.keys() & has}
    if "object_storage" in has:
        said["access"] = access
    return st.builds(DownloadRequest, st.just(codec.kind), **({"url": st.just("")} | said))


def _fields(codec: Codec, message: Any) -> set[str]:
    return set(codec.layout.of(message).DESCRIPTOR.fields_by_name)


def _register_part(codec: Codec) -> Any:
    return getattr(codec.request(), codec.register_arm)


def registrations(codec: Codec) -> st.SearchStrategy[Registration]:
    """Likewise."""
    has = _fields(codec, _register_part(codec))
    optional = codec is not IMPORTED  # which knows no "does not say" of these
    lacking = st.none() if optional else st.nothing()
    found = st.builds(
        Registration,
        host_id=texts,
        task_id=texts,
        peer_id=texts,
        request=requests(codec),
        content_length=st.none() | lengths if codec.layout.content_length else st.none(),
        piece_length=lacking | lengths,
        piece_count=lacking | lengths,
        concurrent_piece_count=st.none() | numbers,
        digest=st.none() | texts if "digest" in has else st.none(),
        metadata_only=st.booleans() if "metadata_only" in has else st.sampled_from([False]),
    )
    return found if optional else found.map(_as_it_is_cut)


def _as_it_is_cut(said: Registration) -> Registration:
    """There is one field for how it is cut and how it shall be."""
    return replace(said, request=replace(said.request, piece_length=said.piece_length))


def reports(codec: Codec) -> st.SearchStrategy[Report]:
    """Likewise."""
    by_origin = st.builds(
        announce.SourcePieceFailed,
        texts,
        by_origin=st.sampled_from([True]),
        status_code=st.none() | st.integers(0, 999),
        number=st.none() | numbers,
    )
    otherwise = st.builds(announce.SourcePieceFailed, texts, number=st.none() | numbers)
    all_reports: dict[type[Any], st.SearchStrategy[Any]] = {
        announce.Started: st.builds(announce.Started),
        announce.PieceFinished: st.builds(announce.PieceFinished, pieces),
        announce.PieceFailed: st.builds(
            announce.PieceFailed, st.none() | numbers, texts, st.booleans()
        ),
        announce.Reschedule: st.builds(
            announce.Reschedule, st.lists(texts, max_size=3).map(tuple), texts
        ),
        announce.Finished: st.builds(announce.Finished),
        announce.Failed: st.builds(announce.Failed, texts),
        announce.SourceStarted: st.builds(announce.SourceStarted, texts),
        announce.SourcePieceFinished: st.builds(announce.SourcePieceFinished, pieces),
        announce.SourcePieceFailed: by_origin | otherwise,
        announce.SourceFinished: st.builds(announce.SourceFinished),
        announce.SourceFailed: st.builds(announce.SourceFailed, texts),
    }
    assert all_reports.keys() == set(get_args(Report))
    return st.one_of([all_reports[report] for report in codec.report_arms])


def answers(codec: Codec) -> st.SearchStrategy[Answer]:
    """Likewise."""
    imported = codec is IMPORTED
    candidates = st.builds(
        Candidate,
        peer_id=texts.filter(bool),
        host=hosts,
        state=texts,
        priority=st.just(0) if imported else st.integers(0, 6),
        range=st.none() if imported else st.none() | ranges,
        concurrent_piece_count=numbers if imported else st.none() | numbers,
    )
    all_answers: dict[type[Any], st.SearchStrategy[Any]] = {
        announce.CandidateParents: st.builds(
            announce.CandidateParents, st.lists(candidates, max_size=3).map(tuple)
        ),
        announce.NeedBackToSource: st.builds(announce.NeedBackToSource, texts),
        announce.EmptyTask: st.builds(announce.EmptyTask),
        announce.MetadataOnly: st.builds(announce.MetadataOnly),
    }
    assert all_answers.keys() == set(get_args(Answer))
    return st.one_of([all_answers[answer] for answer in codec.answer_arms])


def wired(message: Any) -> Any:
    """The same after its way over the wire."""
    return type(message).FromString(message.SerializeToString())


# -- there and back ------------------------------------------------------------------------------


@codecs
@settings(max_examples=40)
@given(st.data())
def test_a_registration(codec: Codec, data: st.DataObject) -> None:
    """Nothing is lost."""
    said = data.draw(registrations(codec))
    assert codec.decode(wired(codec.encode(said, said))) == said


@codecs
@settings(max_examples=40)
@given(st.data())
def test_a_report(codec: Codec, data: st.DataObject) -> None:
    """Nothing is lost, and it says of whom it is."""
    peer, said = data.draw(registrations(codec)), data.draw(reports(codec))
    message = wired(codec.encode(peer, said))
    assert codec.decode(message) == said
    ids = (peer.host_id, peer.task_id, peer.peer_id)
    assert (message.host_id, message.task_id, message.peer_id) == ids


@codecs
@settings(max_examples=40)
@given(st.data())
def test_an_answer(codec: Codec, data: st.DataObject) -> None:
    """Nothing is lost."""
    said = data.draw(answers(codec))
    assert codec.decode_answer(wired(codec.encode_answer(said))) == said


@codecs
@settings(max_examples=40)
@given(st.data())
def test_a_request_to_a_daemon(codec: Codec, data: st.DataObject) -> None:
    """Nothing is lost."""
    said = data.draw(requests(codec))
    message = codec.layout.of(wired(codec.encode_download(said)))
    assert download_request(codec.kind, message) == said


# -- fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [CACHE, STANDARD])
def test_registering(codec: Codec) -> None:
    """What is wanted, and beside it how the content is cut."""
    peer = Registration("h", "t", "p", DownloadRequest(codec.kind, "u", tag="x"), 350, 100, 4, 8)
    part = codec.layout.of(getattr(codec.encode(peer, peer), codec.register_arm))
    assert (part.url, part.type, part.tag) == ("u", codec.kind, "x")
    assert (part.actual_content_length, part.actual_piece_length) == (350, 100)
    assert (part.actual_piece_count, part.concurrent_piece_count) == (4, 8)


def test_asking_a_daemon() -> None:
    """In the message itself, or one level down."""
    cache = CACHE.encode_download(DownloadRequest(Kind.CACHE, "u"))
    assert cache == dfdaemon_pb2.DownloadCacheTaskRequest(url="u", type=common_pb2.CACHE)
    task = STANDARD.encode_download(DownloadRequest(Kind.STANDARD, "u"))
    assert task == dfdaemon_pb2.DownloadTaskRequest(download=common_pb2.Download(url="u"))


def test_registering_for_what_was_imported() -> None:
    """It has little to say."""
    wanted = DownloadRequest(Kind.PERSISTENT_CACHE, "", tag="t", application="a", persistent=True)
    peer = Registration("h", "t", "p", wanted, None, 100, 4, 8)
    message = IMPORTED.encode(peer, peer)
    assert message.register_persistent_cache_peer_request == (
        scheduler_pb2.RegisterPersistentCachePeerRequest(
            persistent=True,
            tag="t",
            application="a",
            piece_length=100,
            concurrent_piece_count=8,
            piece_count=4,
        )
    )


# -- what strangers say --------------------------------------------------------------------------


@codecs
def test_nothing_is_no_report(codec: Codec) -> None:
    """It is refused."""
    with pytest.raises(InvalidRequest, match="no request in it"):
        codec.decode(codec.request())


@codecs
def test_nothing_is_no_answer(codec: Codec) -> None:
    """Nor is what a later version may say."""
    with pytest.raises(SchedulerLost, match="unexpected answer of the scheduler: None"):
        codec.decode_answer(codec.answer())


def test_long_words_are_cut() -> None:
    """On both sides: what is told is logged."""
    peer = Registration("h", "t", "p", DownloadRequest(Kind.CACHE, "u"))
    for said in (announce.Failed("x" * 5000), announce.SourcePieceFailed("x" * 5000)):
        message = CACHE.encode(peer, said)
        assert message.ByteSize() < 1200
        assert CACHE.decode(message) == replace(said, description="x" * 1024)
    longer = scheduler_pb2.AnnounceCachePeerRequest(
        download_cache_peer_failed_request=scheduler_pb2.DownloadCachePeerFailedRequest(
            description="y" * 5000
        )
    )
    assert CACHE.decode(longer) == announce.Failed("y" * 1024)
