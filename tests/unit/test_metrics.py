"""What is counted, read back as a monitor reads it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pantala import BUILD_VERSION
from pantala.daemon.metrics import Metrics, StoreFigures, TaskLabels, size_level
from pantala.model.task import Kind, Traffic

CACHE = TaskLabels(Kind.CACHE, tag="t", app="a", priority=6)
LABELS = {"type": "3", "tag": "t", "app": "a", "priority": "6"}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Everything that :meth:`Metrics.render` says, by name and labels."""
    return {
        (sample.name.removeprefix("dragonfly_client_"), frozenset(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample; None if it is not there."""
    return samples(metrics).get((name, frozenset(labels.items())))


def test_a_download_that_succeeds() -> None:
    """Counted at its start, going on until its end, then timed by size."""
    metrics = Metrics()
    metrics.download_started(CACHE)
    assert value(metrics, "download_task_total", **LABELS) == 1
    assert value(metrics, "concurrent_download_task_total", **LABELS) == 1
    metrics.download_finished(CACHE, seconds=0.003, size=5 << 20)
    assert value(metrics, "concurrent_download_task_total", **LABELS) == 0
    assert value(metrics, "download_task_failure_total", **LABELS) is None
    timed = {"task_type": "3", "task_size_level": "3"}
    name = "download_task_duration_milliseconds"
    assert value(metrics, f"{name}_sum", **timed) == 3
    assert value(metrics, f"{name}_bucket", le="2.0", **timed) == 0
    assert value(metrics, f"{name}_bucket", le="4.0", **timed) == 1


def test_a_download_that_fails() -> None:
    """It is a failure, and no longer going on; nothing is timed."""
    metrics = Metrics()
    metrics.download_started(CACHE)
    metrics.download_failed(CACHE)
    assert value(metrics, "download_task_failure_total", **LABELS) == 1
    assert value(metrics, "concurrent_download_task_total", **LABELS) == 0
    assert not any("duration" in name for name, _ in samples(metrics))


def test_prefetch() -> None:
    """Started and failed prefetches are counted."""
    metrics = Metrics()
    metrics.prefetch_started(CACHE)
    metrics.prefetch_started(CACHE)
    metrics.prefetch_failed(CACHE)
    assert value(metrics, "prefetch_task_total", **LABELS) == 2
    assert value(metrics, "prefetch_task_failure_total", **LABELS) == 1


def test_traffic() -> None:
    """Bytes by where they came from, and bytes that went out, under Dragonfly's names."""
    metrics = Metrics()
    metrics.piece_traffic(Traffic.REMOTE_PEER, 10)
    metrics.piece_traffic(Traffic.REMOTE_PEER, 5)
    metrics.piece_traffic(Traffic.BACK_TO_SOURCE, 1)
    metrics.upload_started()
    metrics.upload_traffic(7)
    assert value(metrics, "download_traffic", type="REMOTE_PEER") == 15
    assert value(metrics, "download_traffic", type="BACK_TO_SOURCE") == 1
    assert value(metrics, "upload_traffic") == 7
    assert value(metrics, "concurrent_upload_piece_total") == 1
    metrics.upload_finished()
    assert value(metrics, "concurrent_upload_piece_total") == 0


def test_requests() -> None:
    """Origins, stats and deletions are counted, with what failed of them."""
    metrics = Metrics()
    metrics.backend_request("https", "GET", seconds=1.5, ok=True)
    metrics.backend_request("https", "GET", seconds=0.5, ok=False)
    origin = {"scheme": "https", "method": "GET"}
    assert value(metrics, "backend_request_total", **origin) == 2
    assert value(metrics, "backend_request_failure_total", **origin) == 1
    assert value(metrics, "backend_request_duration_milliseconds_sum", **origin) == 2000
    metrics.stat(Kind.CACHE, ok=True)
    metrics.stat(Kind.CACHE, ok=False)
    metrics.delete(Kind.CACHE, ok=False)
    metrics.delete(Kind.STANDARD, ok=True)
    assert value(metrics, "stat_task_total", type="3") == 2
    assert value(metrics, "stat_task_failure_total", type="3") == 1
    assert value(metrics, "delete_task_total", type="3") == 1
    assert value(metrics, "delete_task_failure_total", type="3") == 1
    assert value(metrics, "delete_task_failure_total", type="0") is None


def test_the_memory_store() -> None:
    """Gauges are asked for at each look, and only then."""
    metrics = Metrics()
    figures = [StoreFigures(100, 40, 30, 10, 20, 2, 3), StoreFigures(100, 0, 0, 0, 0, 0, 0)]
    metrics.observe_store("cache", lambda: figures.pop(0))
    metrics.observe_store("disk", lambda: StoreFigures(9, 5, 4, 0, None, 1, 0))
    metrics.evicted("lru")
    metrics.cache_hit()
    metrics.cache_hit()
    metrics.cache_miss()
    found = {name: number for (name, _), number in samples(metrics).items()}
    seen = {name: number for name, number in found.items() if "cache" in name}
    assert seen == {
        "cache_capacity_bytes": 100,
        "cache_used_bytes": 40,
        "cache_leased_bytes": 30,
        "cache_pinned_bytes": 10,
        "cache_reserved_bytes": 20,
        "cache_tasks": 2,
        "cache_waiting": 3,
        "cache_evictions_total": 1,
        "cache_hits_total": 2,
        "cache_misses_total": 1,
    }
    assert {name: number for name, number in found.items() if "disk" in name} == {
        "disk_capacity_bytes": 9,
        "disk_used_bytes": 5,
        "disk_leased_bytes": 4,
        "disk_pinned_bytes": 0,
        "disk_tasks": 1,
        "disk_waiting": 0,
    }
    assert value(metrics, "cache_used_bytes") == 0


def test_version() -> None:
    """One series says what runs."""
    ((_, labels),) = [key for key in samples(Metrics()) if key[0] == "version"]
    assert ("git_version", BUILD_VERSION) in labels


def test_labels_have_a_limit() -> None:
    """Words that callers choose freely cannot fill the memory; old ones keep their series."""
    metrics = Metrics()
    for number in range(600):
        metrics.download_started(TaskLabels(Kind.CACHE, tag=f"t{number}"))
    metrics.download_started(TaskLabels(Kind.CACHE, tag="t0"))
    other = {"type": "3", "tag": "other", "app": "other", "priority": "0"}
    assert value(metrics, "download_task_total", **other) == 100
    assert value(metrics, "download_task_total", **(other | {"tag": "t0", "app": ""})) == 2
    metrics.download_failed(TaskLabels(Kind.CACHE, tag="t599"))
    assert value(metrics, "concurrent_download_task_total", **other) == 99


def test_labels_have_a_length() -> None:
    """A long word is not repeated at every look."""
    metrics = Metrics()
    metrics.download_started(TaskLabels(Kind.CACHE, app="x" * 129))
    assert b"xxx" not in metrics.render()
    assert b"other" in metrics.render()


def test_two_daemons_in_one_process() -> None:
    """Each has its own registry."""
    one, two = Metrics(), Metrics()
    one.cache_hit()
    assert value(two, "cache_hits_total") == 0


@pytest.mark.parametrize(
    ("size", "level"),
    [
        (-1, "0"),
        (0, "0"),
        (1, "1"),
        ((1 << 20) - 1, "1"),
        (1 << 20, "2"),
        (4 << 20, "3"),
        (8 << 20, "4"),
        (512 << 20, "10"),
        ((1 << 30) - 1, "10"),
        (1 << 30, "11"),
        (2 << 30, "11"),
        (4 << 30, "12"),
        ((1 << 40) - 1, "19"),
        (1 << 40, "20"),
        (1 << 60, "20"),
    ],
)
def test_size_level(size: int, level: str) -> None:
    """Bounds belong to the level above them, and there is none at 2 GiB."""
    assert size_level(size) == level
