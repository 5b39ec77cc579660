"""What a daemon is asked for in place of a path of another fsspec file system.

The daemon reads ``http``, ``https`` and ``file`` itself. Of file systems that sign URLs, such as
those of S3, Google Cloud Storage and Azure, it is given a signed URL. That one is another each
time, so it is not what identifies the content: the object is, and its version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from errno import EISDIR
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from fsspec import AbstractFileSystem

from pantala.model.urls import public_url

from .wishes import DEFAULT_TIMEOUT

#: By what a file system tells that an object has changed; the first that it has counts.
_VERSIONS: Final = ("ETag", "etag", "generation", "md5Hash", "VersionId", "version_id")
_DATES: Final = ("LastModified", "last_modified", "updated", "mtime")

#: Wishes that are part of the identity, and that the object's would stand in place of.
_FOLDED: Final = ("tag", "application", "piece_length")

#: Seconds for which a URL is signed, at least and at most: more than a week nobody grants.
_SIGNED: Final = (3600, 7 * 24 * 3600)


class Asked(NamedTuple):
    """What a client is asked for.

    Attributes:
        url: Of the content.
        wishes: See :class:`.Wishes`.
    """

    url: str
    wishes: dict[str, Any]


class Target:
    """Another file system, whose bytes a daemon is to bring.

    Args:
        fs: That file system.

    Attributes:
        is_http: Its paths are URLs, any of which may be a file and a directory.
        is_local: Its files are this machine's.

    Raises:
        ValueError: No daemon can get at its files, or not in the same way.
    """

    def __init__(self, fs: AbstractFileSystem) -> None:
        names = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        self._fs = fs
        self._headers: dict[str, str] = {}
        self.is_http = not names.isdisjoint(("http", "https"))
        self.is_local = "file" in names
        self._ask: Callable[[str, dict[str, Any]], Asked]
        if self.is_http:
            self._headers = _headers(fs)
            self._ask = self._ask_http
        elif self.is_local:
            self._ask = self._ask_file
        elif type(fs).sign is not AbstractFileSystem.sign:
            self._ask = self._ask_signed
        else:
            raise ValueError(
                f"{min(names)}: a daemon reads http, https and file, and what has URLs that can "
                "be signed, such as s3, gs and abfs"
            )

    def ask(self, path: str, wishes: Mapping[str, Any]) -> Asked:
        """What to ask for so as to have the file at a path; *wishes* are the caller's.

        Raises:
            FileNotFoundError, IsADirectoryError: The file system has no such file. Where the daemon
                can see that for itself it is not asked.
            OSError: What else it has to say.
        """
        return self._ask(path, dict(wishes))

    def _ask_http(self, path: str, wishes: dict[str, Any]) -> Asked:
        if headers := self._headers | dict(wishes.get("headers") or {}):
            wishes["headers"] = headers
        return Asked(path, wishes)

    def _ask_file(self, path: str, wishes: dict[str, Any]) -> Asked:
        if Path(path).is_dir():
            raise _directory(path)
        return Asked(f"file://{quote(path)}", wishes)

    def _ask_signed(self, path: str, wishes: dict[str, Any]) -> Asked:
        found = self._fs.info(path)
        if found.get("type") == "directory":
            raise _directory(path)
        least, most = _SIGNED
        seconds = min(max(int(wishes.get("timeout") or DEFAULT_TIMEOUT), least), most)
        url = self._fs.sign(path, expiration=seconds)
        names = [*_VERSIONS, *_DATES]
        version = next((str(found[name]) for name in names if found.get(name)), None)
        identity = {name: wishes.pop(name, None) for name in _FOLDED}
        identity |= {"object": public_url(url), "path": path}
        identity |= {"version": version, "size": found.get("size")}
        told = {name: value for name, value in identity.items() if value is not None}
        wishes["content_for_calculating_task_id"] = f"fsspec {json.dumps(told, sort_keys=True)}"
        # None of them says what the content is, so all that they say is who may have it.
        query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
        wishes["filtered_query_params"] = sorted({name for name, _ in query})
        return Asked(url, wishes)


def _directory(path: str) -> IsADirectoryError:
    return IsADirectoryError(EISDIR, os.strerror(EISDIR), path)


def _headers(fs: AbstractFileSystem) -> dict[str, str]:
    """What an HTTP file system sends an origin with each request. Raises ValueError."""
    options = {**fs.client_kwargs, **fs.kwargs}
    if options.get("params"):
        raise ValueError("params: what is part of the URL must stand in it")
    found: dict[str, str] = {}
    for given in (fs.client_kwargs, fs.kwargs):
        found |= {str(name): str(value) for name, value in (given.get("headers") or {}).items()}
    if auth := options.get("auth"):
        found["Authorization"] = auth.encode()
    if cookies := options.get("cookies"):
        found["Cookie"] = "; ".join(f"{name}={value}" for name, value in dict(cookies).items())
    return found
