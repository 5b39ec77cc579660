"""The index of a model in several safetensors files: which tensor is in which file; no I/O."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import quote

from pantala.errors import Corrupt

from .tensor_header import shown

#: Bytes in an index at most, as for a header.
MAX_INDEX: Final = 100_000_000

#: A URL up to its last slash; the name after it; a query and a fragment.
_URL: Final = re.compile(r"([^?#]*/)([^/?#]*)(.*)", re.DOTALL)


def is_index(url: object) -> bool:
    """Whether a URL names an index, and no safetensors file.

    >>> is_index("https://host/model.safetensors.index.json?x=1"), is_index("https://host/a.json/b")
    (True, False)
    """
    found = _URL.match(url) if isinstance(url, str) else None
    return found is not None and found[2].endswith(".json")


def shards_of(raw: bytes | memoryview, url: str, name: str) -> dict[str, str]:
    """The URLs of files by the names of tensors.

    They lie beside the index, or below. A query of its URL is not theirs: it may be a signature.

    Args:
        raw: The index.
        url: Of it.
        name: What it is called in messages.

    Raises:
        Corrupt: It is no index, or names a file elsewhere.
    """
    try:
        told = json.loads(bytes(raw).decode())
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{name} is no index of safetensors files: {error}") from None
    weight_map: Any = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(weight_map, dict):
        raise Corrupt(f"{name} is no index of safetensors files: it has no weight_map")
    found = _URL.match(url)
    base = found[1] if found else ""
    urls = {file: base + quote(file) for file in _files(weight_map, name)}
    return {tensor: urls[file] for tensor, file in weight_map.items()}


def _files(weight_map: dict[str, object], name: str) -> set[str]:
    """The names of files. Raises Corrupt."""
    found = set()
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _is_beside(file):
            raise Corrupt(
                f"{name} has tensor {shown(tensor)} in {file!r:.100}, which is no file beside it"
            )
        found.add(file)
    return found


def _is_beside(file: str) -> bool:
    return file.isprintable() and "\\" not in file and not {"", ".", ".."} & {*file.split("/")}
