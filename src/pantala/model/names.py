"""What a file is called that came from a URL."""

from __future__ import annotations

from typing import Final

from .urls import path_of

#: Bytes that a name may have on the file systems that there are.
_MAX_NAME: Final = 255

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


def file_name(url: str) -> str:
    """The last segment of the path of *url*, percent-decoded: the name of a file in a directory.

    >>> file_name("https://me:pw@host/models/a%20b.bin?token=1")
    'a b.bin'

    Raises:
        ValueError: That is no name which a file should have; in words that show only the name.
    """
    path = path_of(url)
    last = path[max(path.rfind("/"), path.rfind("\\")) + 1 :]
    try:
        name = _unquoted(last.encode()).decode()
    except UnicodeError:
        raise ValueError("the last part of its path is not UTF-8") from None
    if not name:
        raise ValueError("its path ends with no name")
    if name in (".", "..") or "/" in name:
        raise ValueError(f"{name[:100]!r} is no name of a file")
    # Besides control characters, those that turn what is shown around.
    if not name.isprintable():
        raise ValueError(f"{name[:100]!r} has characters that cannot be shown")
    if len(name.encode()) > _MAX_NAME:
        raise ValueError(f"the last part of its path has more than {_MAX_NAME} bytes")
    return name


def _unquoted(text: bytes) -> bytes:
    """*text* with the bytes that ``%41`` and the like stand for.

    :func:`urllib.parse.unquote_to_bytes` does the same; dfget has no time to import it.
    """
    first, *others = text.split(b"%")
    parts = [first]
    for each in others:
        code, rest = each[:2], each[2:]
        if len(code) == 2 and _HEX.issuperset(code):
            parts += (bytes([int(code, 16)]), rest)
        else:
            parts += (b"%", each)
    return b"".join(parts)
