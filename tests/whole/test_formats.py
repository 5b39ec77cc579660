"""What reads through fsspec's URLs reads from a daemon: pandas, pyarrow, zarr; from HTTP and S3."""

from __future__ import annotations

import io
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import pantala
from pantala.client.filesystem import DragonflyFileSystem
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.formats import library
from pantala.testing.origin import Origin
from pantala.testing.program import Node

# What they warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ROWS = 300_000


@pytest.fixture
def node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, direct: None) -> Iterator[Node]:
    """The daemon that is asked."""
    del direct
    node = cluster.daemon("a")
    monkeypatch.setenv("PANTALA_ENDPOINT", str(node.socket))
    yield node
    DragonflyFileSystem.clear_instance_cache()


@pytest.fixture
def table() -> Any:
    """Some numbers."""
    library("pyarrow")
    numbers = np.random.default_rng(1).random(ROWS)
    return library("pandas").DataFrame({"n": np.arange(ROWS), "x": numbers})


def parquet(table: Any) -> bytes:
    """A table as a file."""
    file = io.BytesIO()
    table.to_parquet(file, row_group_size=ROWS // 10)
    return file.getvalue()


def test_pandas(node: Node, origin: Origin, table: Any) -> None:
    """Parquet and CSV; the origin sends each of them once."""
    del node
    pandas = library("pandas")
    contents = {"/x.parquet": parquet(table), "/x.csv": table.to_csv(index=False).encode()}
    for path, content in contents.items():
        origin.put(path, content)
    for _ in range(3):
        read = pandas.read_parquet(f"dragonfly::{origin.url('/x.parquet')}")
        pandas.testing.assert_frame_equal(read, table)
    some = pandas.read_parquet(f"dragonfly::{origin.url('/x.parquet')}", columns=["x"])
    assert (some.x == table.x).all()
    for _ in range(2):
        read = pandas.read_csv(f"dragonfly::{origin.url('/x.csv')}")
        pandas.testing.assert_frame_equal(read, table)
    for path, content in contents.items():
        assert origin.sent(path) <= len(content) + 1, path


def test_pyarrow(cluster: Cluster, table: Any, tmp_path: Path) -> None:
    """A file, and a data set of several in directories whose names have values."""
    config = {"backend": {"fileRoots": [str(tmp_path)]}}
    endpoint = str(cluster.daemon("a", config=config).socket)
    library("pyarrow")
    parquets, datasets = library("pyarrow.parquet"), library("pyarrow.dataset")
    fs = fsspec.filesystem("dragonfly", target_protocol="file", endpoint=endpoint)
    table["part"] = table.n % 3
    table.to_parquet(tmp_path / "set", partition_cols=["part"])
    (tmp_path / "one.parquet").write_bytes(parquet(table))
    one = parquets.read_table(str(tmp_path / "one.parquet"), filesystem=fs)
    assert one.num_rows == ROWS
    assert one.column("x").to_numpy().tobytes() == table.x.to_numpy().tobytes()
    found = datasets.dataset(str(tmp_path / "set"), filesystem=fs, partitioning="hive")
    some = found.to_table(filter=datasets.field("part") == 1, columns=["n"])
    assert sorted(some.column("n").to_pylist()) == [*range(1, ROWS, 3)]
    with pytest.raises(OSError, match="read-only"):
        parquets.write_table(one, str(tmp_path / "new.parquet"), filesystem=fs)
    fs.clear_instance_cache()


def test_zarr(node: Node, origin: Origin, tmp_path: Path) -> None:
    """Chunks, and parts of shards; what is not there is zero."""
    del node
    zarr = library("zarr")
    group = zarr.open_group(str(tmp_path / "z"), mode="w")
    numbers = np.random.default_rng(2).random((400, 300))
    group.create_array("plain", data=numbers, chunks=(100, 100))
    group.create_array("sharded", data=numbers, chunks=(20, 20), shards=(200, 100))
    group.create_array("empty", shape=(10, 10), chunks=(5, 5), dtype="f8")
    for path in (tmp_path / "z").rglob("*"):
        if path.is_file():
            origin.put(f"/z/{path.relative_to(tmp_path / 'z')}", path.read_bytes())
    found = zarr.open_group(f"dragonfly::{origin.url('/z')}", mode="r")
    assert (found["plain"][:] == numbers).all()
    assert (found["sharded"][30:260, 90:110] == numbers[30:260, 90:110]).all()
    assert (found["empty"][:] == 0).all()
    assert (found["sharded"][:] == numbers).all()
    sent = origin.sent()
    assert (found["plain"][:] == numbers).all()
    assert (found["sharded"][:] == numbers).all()
    assert origin.sent() == sent  # what is hot is asked for no more


# -- S3 --------------------------------------------------------------------------------------------


class Bucket:
    """One of an S3 of its own."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"bucket-{uuid.uuid4()}"
        self.options: dict[str, Any] = {"key": "k", "secret": "s", "endpoint_url": endpoint}
        self.fs = library("s3fs").S3FileSystem(**self.options, skip_instance_cache=True)
        self.fs.mkdir(self.name)

    def put(self, key: str, content: bytes) -> str:
        """An object, and its URL as fsspec takes it."""
        self.fs.pipe_file(f"{self.name}/{key}", content)
        return f"dragonfly::s3://{self.name}/{key}"


@pytest.fixture
def bucket(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Of a server in this process."""
    del node
    library("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = library("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Bucket(f"http://{host}:{port}")
    finally:
        server.stop()


def tasks() -> set[str]:
    """Of the daemon."""
    return {task.id for task in pantala.Client().list()}


def test_s3_objects_are_tasks(bucket: Bucket) -> None:
    """One a version, whoever signs, and when; a new version is another task."""
    content = Pattern(6 << 20).read()
    url = bucket.put("a/model 1%", content)
    with fsspec.open(url, s3=bucket.options) as file:
        assert file.read() == content
    assert len(tasks()) == 1
    again = {**bucket.options, "key": "another", "secret": "one"}
    fs, path = fsspec.url_to_fs(url, s3=again)
    assert fs.cat_file(path, 100, 200) == content[100:200]
    assert fs.cat_ranges([path, path], [0, -5], [5, None]) == [content[:5], content[-5:]]
    assert len(tasks()) == 1
    assert fs.cat_file(path, 0, 9, tag="t") == content[:9]
    assert len(tasks()) == 2

    bucket.put("a/model 1%", content[::-1])
    fs.invalidate_cache()
    assert fs.cat_file(path) == content[::-1]
    assert len(tasks()) == 3


def test_s3_errors(bucket: Bucket) -> None:
    """Those of files."""
    fs, path = fsspec.url_to_fs(bucket.put("d/x", b"x"), s3=bucket.options)
    with pytest.raises(FileNotFoundError):
        fs.open(path + "y")
    with pytest.raises(IsADirectoryError):
        fs.cat_file(f"{bucket.name}/d")
    with pytest.raises(OSError, match="read-only"):
        fs.rm(path)
    assert fs.cat(path) == b"x"


def test_s3_is_listed(bucket: Bucket, table: Any, tmp_path: Path) -> None:
    """And pandas reads a data set from it; whole directories are got."""
    pandas = library("pandas")
    for part in range(3):
        bucket.put(f"set/part={part}/0.parquet", parquet(table[table.n % 3 == part]))
    url = f"dragonfly::s3://{bucket.name}/set"
    read = pandas.read_parquet(url, storage_options={"s3": bucket.options})
    assert sorted(read.n) == [*range(ROWS)]
    fs, path = fsspec.url_to_fs(url, s3=bucket.options)
    assert len(fs.glob(f"{path}/*/*.parquet")) == 3
    fs.get(path, str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy/part=1/0.parquet").read_bytes() == fs.cat(f"{path}/part=1/0.parquet")
