"""client/tensor_header.py, tensor_index.py, tensor_plan.py, tensor_arrays.py: without a daemon.

What is right is what the library safetensors reads and writes.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import deserialize as deserialize_untyped
from safetensors.numpy import save

from pantala.client.coverage import Coverage
from pantala.client.tensor_arrays import Maker
from pantala.client.tensor_header import (
    BITS,
    MAX_HEADER,
    Header,
    TensorInfo,
    header_end,
    parse_header,
)
from pantala.client.tensor_index import is_index, shards_of
from pantala.client.tensor_plan import Due, Part, parts_of, touch_all_pieces
from pantala.errors import Corrupt, InvalidRequest
from pantala.testing.tensors import packed, rows

MIB = 1 << 20

DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32"),
    *("int64", "uint64", "float64", "complex64"),
]
NARROW = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"]


def deserialize(file: bytes) -> list[tuple[str, dict[str, Any]]]:
    """What the library makes of a file."""
    found: list[tuple[str, dict[str, Any]]] = deserialize_untyped(file)  # type: ignore[no-untyped-call]  # it has no types
    return found


def read(file: bytes) -> Header:
    """The header of a file that is here as a whole."""
    end = header_end(file, len(file), "f")
    return parse_header(memoryview(file)[:end], len(file), "f")


def arrays_of(file: bytes) -> dict[str, Any]:
    """Its tensors."""
    maker = Maker("np", copy=False)
    view = memoryview(file)
    return {n: maker.make(t, view[t.first : t.end]) for n, t in read(file).tensors.items()}


def dtype_of(name: str) -> np.dtype[Any]:
    """Of numpy, or of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name) if name in NARROW else name)


shapes = st.lists(st.integers(0, 4), max_size=4)
written = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter("__metadata__".__ne__),
    st.tuples(st.sampled_from(DTYPES + NARROW), shapes),
    max_size=6,
)


#: The library writes no JSON where there are neither texts nor tensors.
metadatas = st.dictionaries(st.text('ab"\\é', max_size=4), st.text("xy"), min_size=1)


@given(written, st.none() | metadatas)
def test_what_the_library_writes_is_read_alike(
    wanted: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None
) -> None:
    """Of every dtype and shape, and whatever tensors are called."""
    rng = random.Random(1)
    tensors = {}
    for name, (dtype, shape) in wanted.items():
        size = int(np.prod(shape)) * dtype_of(dtype).itemsize
        tensors[name] = np.frombuffer(rng.randbytes(size), dtype_of(dtype)).reshape(shape)
    file = save(tensors, metadata)
    found = arrays_of(file)
    assert read(file).metadata == (metadata or {})
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == tensor.tobytes()


def test_each_dtype_of_the_format() -> None:
    """That is known to the library is known here, and has the same size."""
    for dtype, bits in BITS.items():
        row = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
        file = packed({"a": row}, bytes(bits))
        ((name, told),) = deserialize(file)
        assert (name, told["dtype"], told["shape"]) == ("a", dtype, [8])
        assert read(file).tensors["a"].nbytes == bits == len(told["data"])


GOOD = packed(rows({"a": 8, "bb": 0, "c": 40}) | {"__metadata__": {"format": "pt"}}, bytes(48))


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 49), st.binary(max_size=3), st.integers(0, 3))),
    st.integers(-3, 3),
)
def test_what_is_mutated_is_read_right_or_refused(
    changes: list[tuple[int, bytes, int]], more: int
) -> None:
    """And nothing is read here that the library does not read, nor otherwise."""
    file = bytearray(GOOD)
    for at, new, gone in changes:
        file[at : at + gone] = new
    del file[len(file) + min(more, 0) :]
    file += bytes(max(more, 0))
    try:
        header = read(bytes(file))
    except Corrupt:
        return
    theirs = {
        name: (told["dtype"], told["shape"], told["data"])
        for name, told in deserialize(bytes(file))
    }
    assert theirs == {
        t.name: (t.dtype, list(t.shape), file[t.first : t.end]) for t in header.tensors.values()
    }


numbers = st.integers(-1, 50) | st.sampled_from([2**63, 2**64, 10**30, 1.5, True, None, "1"])
values = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "U8", "F4", "F6_E2M3", "X", "\ud800", 7, None]),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, min_size=1, max_size=3) | numbers,
        "more": numbers,
    },
)


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "\ud800"]), values | numbers))
def test_headers_of_anything(told: dict[str, Any]) -> None:
    """They are refused; or they are right, and the library says so, too."""
    file = packed(told, bytes(50))
    for size in (0, 4, 8, 50):
        part = file[: len(file) - 50 + size]
        try:
            header = read(part)
        except Corrupt:
            continue
        assert {name for name, _ in deserialize(part)} == header.tensors.keys()


def row(shape: object = (1,), offsets: object = (0, 4), dtype: object = "F32") -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "it has 0 bytes, and no header"),
        (b"1234567", "it has 7 bytes"),
        ((MAX_HEADER + 1).to_bytes(8, "little"), "100000001 bytes, which may have 100000000"),
        (b"\xff" * 20, "claims a header of 18446744073709551615"),
        (packed("{}")[:9], "has 9 bytes, and claims a header of 2: it was cut off"),
        (packed(""), "is no JSON object"),
        (packed(" {}"), "is no JSON object"),
        (packed("[]"), "is no JSON object"),
        (packed("{"), "is broken: "),
        (packed(b'{"\xff":1}'), "is broken: 'utf-8'"),
        (packed('{"a":NaN}'), "NaN is no JSON"),
        (packed('{"a":' * 100_000), "nested too deeply"),
        (packed(f'{{"a":{json.dumps(row())},"a":{json.dumps(row())}}}', b"1234"), "'a' stands"),
        (packed('{"a":{"shape":[],"shape":[]}}'), "'shape' stands there twice"),
        (packed({"a": 1}), "tensor 'a' has no dtype, shape and data_offsets"),
        (packed({"a": row(dtype="F33")}), "'a' is of dtype 'F33', which is not known"),
        (packed({"a": row(shape=[2])}, b"1234"), "'a' has 4 bytes, and a shape and dtype of 8"),
        (packed({"a": row(shape=[-1])}, b"1234"), "has no dtype, shape"),
        (packed({"a": row(shape=[True])}, b"1234"), "has no dtype, shape"),
        (packed({"a": row(shape=[1.0])}, b"1234"), "has no dtype, shape"),
        (packed({"a": row(shape=[2**40] * 3)}), "of more than there can be"),
        (packed({"a": row(shape=[2**64])}), "has no dtype, shape"),
        (packed({"a": row(shape=[3], dtype="F4")}, b"12"), "a shape and dtype of 1.5"),
        (packed({"a": row(offsets=[4, 0])}, b"1234"), "ends before it begins"),
        (packed({"a": row(offsets=[0, 4])}, b"123"), "and tensors up to"),
        (packed({"a": row(offsets=[0, 4])}, b"12345"), "and tensors up to"),
        (packed({"a": row(offsets=[1, 5])}, b"12345"), "a hole before tensor 'a'"),
        (packed({"a": row(), "b": row(offsets=[3, 7])}, bytes(7)), "an overlap before tensor 'b'"),
        (packed({"a": row(), "b": row()}, bytes(4)), "an overlap before tensor 'b'"),
        (packed({"__metadata__": {"a": 1}}), "__metadata__ is no object of texts"),
        (packed({"__metadata__": []}), "__metadata__ is no object of texts"),
        (packed('{"\\ud800":' + json.dumps(row()) + "}", b"1234"), "half a character"),
    ],
)
def test_each_fault_has_its_words(file: bytes, words: str) -> None:
    """And the library refuses what is refused here, but for two things that the format forbids."""
    with pytest.raises(Corrupt, match=words) as caught:
        read(file)
    assert len(str(caught.value)) < 300
    if "stand" not in words and file[8:9] != b" ":
        with pytest.raises(SafetensorError):
            deserialize(file)


def test_a_shape_of_millions_is_refused_soon() -> None:
    """Its product would have more digits than anybody has time for."""
    raw = '{"a":{"dtype":"U8","shape":[' + "9," * 300_000 + '9],"data_offsets":[0,0]}}'
    with pytest.raises(Corrupt, match="more than there can be"):
        read(packed(raw))


# -- arrays -------------------------------------------------------------------------------------


def test_dtypes_that_numpy_has_not() -> None:
    """The tensor is named, and what helps."""
    maker = Maker("np", copy=False)
    with pytest.raises(InvalidRequest, match="tensor 'w' of f is of dtype F4: numpy has none such"):
        maker.check(TensorInfo("w", "F4", (2,), 0, 1), "f")


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named before anybody is asked for anything."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidRequest, match="needs torch, which is not installed"):
        Maker("torch", copy=False)
    with pytest.raises(InvalidRequest, match="want one of np, numpy, pt, torch"):
        Maker("jax", copy=False)
    maker = Maker("np", copy=False)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        InvalidRequest, match=r"'w' of f is of dtype BF16: .* pip install ml_dtypes"
    ):
        maker.check(TensorInfo("w", "BF16", (1,), 0, 2), "f")


def test_memory_of_ones_own() -> None:
    """It can be written; else it is where it was."""
    info, data = TensorInfo("w", "I16", (2,), 0, 4), b"\1\0\2\0"
    mine = Maker("np", copy=True).make(info, memoryview(data))
    mine += 1
    theirs = Maker("np", copy=False).make(info, memoryview(data))
    assert (mine.tolist(), theirs.tolist()) == ([2, 3], [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        theirs += 1


class Torch:
    """What is asked of torch, which is too large to be installed for this."""

    __version__ = "2.2"
    bfloat16 = np.dtype("<u2")

    @staticmethod
    def frombuffer(buffer: Any, dtype: Any) -> Any:
        """Refuses what is empty, as torch does."""
        if not len(buffer):
            raise ValueError("empty")
        return np.frombuffer(buffer, dtype)

    @staticmethod
    def empty(shape: Any, dtype: Any) -> Any:
        """Without elements."""
        return np.empty(shape, dtype)


def test_tensors_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its memory or ours; what this version has no dtype for is named."""
    monkeypatch.setitem(sys.modules, "torch", Torch)
    for copy in (False, True):
        maker = Maker("torch", copy=copy)
        info = TensorInfo("w", "BF16", (1, 2), 0, 4)
        maker.check(info, "f")
        found = maker.make(info, memoryview(b"\1\0\2\0"))
        assert (found.tolist(), found.flags.writeable) == ([[1, 2]], copy)
        assert maker.make(TensorInfo("e", "BF16", (3, 0), 0, 0), memoryview(b"")).shape == (3, 0)
        with pytest.raises(InvalidRequest, match=r"'u' of f is of dtype U64: torch 2.2 has none"):
            maker.check(TensorInfo("u", "U64", (), 0, 8), "f")


def test_shapes_that_numpy_cannot_have() -> None:
    """It says why."""
    with pytest.raises(InvalidRequest, match="tensor 'w': "):
        Maker("np", copy=False).make(TensorInfo("w", "U8", (1,) * 65, 0, 1), memoryview(b"x"))
    with pytest.raises(InvalidRequest, match="tensor 'w': "):
        Maker("np", copy=False).make(TensorInfo("w", "U8", (2**63, 0), 0, 0), memoryview(b""))


# -- what is asked for --------------------------------------------------------------------------


def infos(*sizes: int, begin: int = 1024) -> list[TensorInfo]:
    """Tensors of so many bytes, one after the other."""
    found = []
    for at, size in enumerate(sizes):
        found.append(TensorInfo(str(at), "U8", (size,), begin, begin + size))
        begin += size
    return found


def spans(parts: list[Part]) -> list[tuple[int, int, str]]:
    """What is asked for, and the names of the tensors in it."""
    return [(part.first, part.end, "".join(t.name for t in part.tensors)) for part in parts]


def test_neighbours_are_asked_for_together() -> None:
    """If little lies between them, and they are not too much."""
    a, gap, b, wide, c = infos(10, 1000, 20, 70_000, 30)
    assert spans(parts_of([a, b, c])) == [(1024, 2054, "02"), (72000 // 64 * 64, 72084, "4")]
    assert spans(parts_of([gap, wide])) == [(1024, 1034 + 1000 + 20 + 70_000, "13")]
    many = parts_of(infos(*[30 * MIB] * 5, 100 * MIB))
    assert [len(part.tensors) for part in many] == [2, 2, 1, 1]


def test_whether_a_piece_could_stay_away() -> None:
    """If none could, all of the file is as cheap."""
    header = Header({}, {}, 1024)
    a, b, c = infos(MIB, 2 * MIB, 3 * MIB)
    size = c.end

    def all_touched(*tensors: TensorInfo, piece: int = MIB) -> bool:
        return touch_all_pieces(parts_of(tensors), header, size, piece)

    assert all_touched(a, b, c)
    assert not all_touched(a, b)
    assert not all_touched(c)
    assert all_touched(c, piece=4 * MIB)
    assert not all_touched(a, b, c, piece=0)
    assert all_touched(a, c, piece=2 * MIB)
    assert not all_touched(a, c)


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(1, 7), st.randoms())
def test_each_tensor_lands_once(sizes: list[int], piece: int, rng: random.Random) -> None:
    """With its last byte, in whatever order pieces come."""
    tensors = infos(*sizes, begin=3)
    end = tensors[-1].end
    due, coverage, seen = Due(tensors), Coverage(), set[str]()
    pieces = [(first, min(first + piece, end)) for first in range(0, end, piece)]
    rng.shuffle(pieces)
    here = set[int]()
    for first, last in pieces:
        coverage.add(first, last)
        here |= set(range(first, last))
        landed = due.landed([(first, last)], coverage)
        for tensor in landed:
            assert tensor.name not in seen
            seen.add(tensor.name)
        assert seen == {t.name for t in tensors if here >= set(range(t.first, t.end))}
    assert not due


# -- indexes ------------------------------------------------------------------------------------


def test_an_index() -> None:
    """Its files are beside it."""
    url = "s3://bucket/dir/model.safetensors.index.json?versionId=7"
    assert is_index(url)
    assert not is_index("https://host/model.safetensors?x=/a.json")
    assert not is_index(None)
    raw = json.dumps({"metadata": {}, "weight_map": {"a": "m 1.safetensors", "b": "x/y"}})
    assert shards_of(raw.encode(), url, "i") == {
        "a": "s3://bucket/dir/m%201.safetensors",
        "b": "s3://bucket/dir/x/y",
    }


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"",
            b"\xff",
            b"[]",
            b"{}",
            b'{"weight_map":[]}',
            b'{"weight_map":{"a":1}}',
            b"[" * 10**6,
        ),
        *(
            json.dumps({"weight_map": {"a": file}}).encode()
            for file in (
                "",
                ".",
                "..",
                "../x",
                "/etc/passwd",
                "a//b",
                "x/../y",
                "a\\b",
                "a\n",
                "a/",
            )
        ),
        json.dumps({"weight_map": {"a": "http://elsewhere/x"}}).encode(),
    ],
)
def test_indexes_that_are_refused(raw: bytes) -> None:
    """They are none, or lead elsewhere."""
    with pytest.raises(Corrupt, match=r"^i "):
        shards_of(raw, "https://host/index.json", "i")
