"""The last good answer of somebody who may be away when this program starts: a small file.

It is JSON, of whom it is, and of what; what somebody else answered is not used.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Bytes of the file.
_LARGEST: Final = 16 << 20


class LastAnswer:
    """See the module.

    Args:
        path: Of the file. It, and its directory, need not exist.
        whose: Who answers, and what he was asked for; what JSON can say.
    """

    def __init__(self, path: Path, whose: Mapping[str, str | int]) -> None:
        self._path = path
        self._whose = dict(whose)
        self._saved: Mapping[str, Any] | None = None
        #: What was wrong the last time, so that it is told of once.
        self._problem = ""

    def load(self) -> Mapping[str, Any] | None:
        """What was answered last; None if that is not known."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("last answer not read", path=str(self._path), why=error.strerror)
            return None
        try:
            whose, answer = _parts(content)
        except (ValueError, RecursionError) as error:
            logger.warning("last answer not read", path=str(self._path), why=f"damaged: {error}")
            return None
        if whose != self._whose:
            return None
        self._saved = answer
        return answer

    def save(self, answer: Mapping[str, Any]) -> None:
        """Keep *answer*, of which :meth:`load` gives a copy. That it cannot be kept is logged."""
        if answer == self._saved:
            return
        content = json.dumps({"of": self._whose, "answer": answer}, indent=1).encode()
        new = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write(new, content)
            new.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            problem = error.strerror or str(error)
            if problem != self._problem:
                logger.warning("last answer not kept", path=str(self._path), why=problem)
            self._problem = problem
            return
        self._problem = ""
        self._saved = answer


def _parts(content: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    read = json.loads(content)
    if isinstance(read, dict):
        whose, answer = read.get("of"), read.get("answer")
        if isinstance(whose, dict) and isinstance(answer, dict):
            return whose, answer
    raise ValueError("it is no answer")


def _write(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, to the disk itself."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123  a descriptor has no path
        file.write(content)
        file.flush()
        os.fsync(fd)
