"""A file system for fsspec whose bytes come from a daemon: ``dragonfly::https://host/file``.

Another file system, the target, says which files there are; nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from errno import EACCES, ENOENT, EROFS
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.utils import isfilelike, stringify_path

from pantala.errors import CREDENTIALS_REFUSED, FeatureOff, InvalidRequest, OriginError
from pantala.model.urls import public_url

from .blocking import Client
from .fetch import CONCURRENCY
from .progress import Progress
from .reading import ContentFile
from .targets import Asked, Target
from .wishes import Wishes

#: Statuses by which an origin says that there is nothing.
_ABSENT: Final = frozenset({404, 410})

#: Options that every file system of fsspec's has, and those of opening that are about buffers.
_THEIRS: Final = frozenset(
    {"asynchronous", "listings_expiry_time", "loop", "max_paths", "use_listings_cache"}
)
_BUFFERS: Final = frozenset(
    {"autocommit", "block_size", "cache_options", "cache_type", "fill_cache", "size"}
)

#: Bytes that are copied at once for who reads few: lines, fields.
_BUFFER: Final = 64 << 10

#: What a range that reaches beyond the end is answered with, among other things.
_PERHAPS_THE_RANGE: Final = (InvalidRequest, FeatureOff)


class DragonflyFile(BufferedReader):
    """A file of a :class:`DragonflyFileSystem`, open for reading; ``raw`` is the content itself.

    Args:
        fs: The file system.
        path: Of the file.
        raw: Its content, on its way.
    """

    raw: ContentFile

    def __init__(self, fs: DragonflyFileSystem, path: str, raw: ContentFile) -> None:
        super().__init__(raw, _BUFFER)
        self.fs = fs
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_at, (self.fs, self.path, self.tell())

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self.raw.size

    def info(self) -> Any:
        """What the target says of it."""
        return self.fs.info(self.path)

    def read_buffer(self, size: int = -1) -> memoryview:
        """The next *size* bytes, which are not copied: what pyarrow reads by."""
        at = self.tell()
        view = self.raw.view(at, self.size if size < 0 else at + size)
        self.seek(at + len(view))
        return view


def _opened_at(fs: DragonflyFileSystem, path: str, at: int) -> DragonflyFile:
    file = fs.open(path, "rb")
    file.seek(at)
    assert isinstance(file, DragonflyFile)  # noqa: S101  what the mode makes of it
    return file


def _of_target(name: str) -> Callable[..., Any]:
    """A method that the target has, too, and that is about a path."""

    def method(self: DragonflyFileSystem, path: Any = "", *args: Any, **kwargs: Any) -> Any:
        return getattr(self.fs, name)(_bare(path), *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"As the target's ``{name}``."
    return method


def _refused(name: str) -> Callable[..., NoReturn]:
    """A method that would write."""

    def method(self: DragonflyFileSystem, path: Any = None, *_: Any, **__: Any) -> NoReturn:
        del self
        raise OSError(EROFS, f"{name}: dragonfly is a read-only file system", str(path))

    method.__name__ = name
    method.__doc__ = "Raises OSError (EROFS): it is read-only."
    return method


class DragonflyFileSystem(ChainedFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files of another file system, whose bytes a daemon brings.

    Of ``http``, ``https`` and ``file`` targets the daemon gets the URL as it is, of others a signed
    one. Instances may be pickled, and used on both sides of a fork.

    Args:
        target_protocol: Of the other file system, such as ``"https"`` or ``"s3"``.
        target_options: Its options.
        fs: That file system itself, instead of these two.
        endpoint: The path of the daemon's socket, as for :class:`~pantala.Client`.
        fo: Not used; fsspec gives it where file systems are chained.
        options: See :class:`.Wishes`: ``kind=``, ``tag=``, ``headers=`` and so on.

    Raises:
        ValueError: There is no target, or none that a daemon can read.
        InvalidRequest: There is no such option.
    """

    protocol: ClassVar[str] = "dragonfly"
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        fs: fsspec.AbstractFileSystem | None = None,
        endpoint: str | None = None,
        *,
        fo: str | None = None,
        **options: Any,
    ) -> None:
        del fo
        super().__init__(**{k: options.pop(k) for k in _THEIRS & options.keys()})
        if (fs is None) == (target_protocol is None):
            raise ValueError(
                "want target_protocol= or fs=, or a URL such as dragonfly::https://h/f"
            )
        for name in {"digest", "content_for_calculating_task_id"} & options.keys():
            raise InvalidRequest(f"{name}: it is that of one file, and this is for all")
        #: The target.
        self.fs = fs or fsspec.filesystem(target_protocol, **(target_options or {}))
        self._target = Target(self.fs)
        self._wishes = options
        self._client = Client(endpoint, **options)

        def strip(path: Any) -> Any:
            return self.fs._strip_protocol(_bare(path))  # noqa: SLF001  fsspec's way to chain

        self._strip_protocol = strip  # of this instance: the class has no target
        self._parent = self.fs._parent  # noqa: SLF001  it has no public name

    # -- what the target knows -------------------------------------------------------------------

    ls = _of_target("ls")
    info = _of_target("info")
    walk = _of_target("walk")
    find = _of_target("find")
    glob = _of_target("glob")
    du = _of_target("du")
    created = _of_target("created")
    modified = _of_target("modified")
    checksum = _of_target("checksum")
    ukey = _of_target("ukey")
    sign = _of_target("sign")

    def exists(self, path: str, **kwargs: Any) -> bool:
        """As the target has it; which over HTTP asks for the head, and not for the body."""
        if not self._target.is_http:
            return bool(self.fs.exists(_bare(path), **kwargs))
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Likewise."""
        return self.exists(path) if self._target.is_http else bool(self.fs.isfile(_bare(path)))

    def isdir(self, path: str) -> bool:
        """As the target has it. A URL is taken for that of a directory if it ends with a slash.

        For it would have to be fetched, or a part of it, to see whether it lists others.
        """
        if self._target.is_http and not path.endswith("/"):
            return False
        return bool(self.fs.isdir(_bare(path)))

    def invalidate_cache(self, path: str | None = None) -> None:
        """Have the target look anew."""
        self.fs.invalidate_cache(path)

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a file, as ``fsspec.open`` takes it."""
        return f"{self.protocol}::{self.fs.unstrip_protocol(_bare(name))}"

    # -- bytes -----------------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", **options: Any) -> DragonflyFile:
        if mode != "rb":
            raise OSError(EROFS, f"mode {mode!r}: dragonfly is a read-only file system", path)
        with self._asked(path, options) as (url, wishes):
            return DragonflyFile(self, path, self._client.open_file(url, **wishes))

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """The bytes of a file, or those from *start* to before *end*, as of a slice."""
        path = self._strip_protocol(path)
        start = start or 0
        if end is not None and 0 <= end <= start:
            return b""
        with self._asked(path, options) as (url, wishes):
            if start == 0 and end is None:
                return self._client.get(url, **wishes)
            if end is None or start >= 0 <= end:
                try:
                    return self._client.get(url, range=(start, end), **wishes)
                except _PERHAPS_THE_RANGE:  # the file itself tells: it ends before, or raises this
                    pass
            with self._client.open_file(url, **wishes) as file:
                return bytes(file.view(*slice(start, end).indices(file.size)[:2]))

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: int | Sequence[int | None] | None,
        ends: int | Sequence[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **options: Any,
    ) -> list[bytes | Exception]:
        """The bytes of several ranges, of one file or many. Those of one are asked for together.

        Args:
            paths: One for each range.
            starts: Likewise, or one for all.
            ends: Likewise.
            max_gap: Not needed: what is read together is for the client to know.
            on_error: ``"return"``: errors stand where bytes would. Else the first is raised.
            options: See :class:`.Wishes`.
        """
        del max_gap
        count = len(paths)
        firsts = [starts] * count if isinstance(starts, int | None) else [*starts]
        lasts = [ends] * count if isinstance(ends, int | None) else [*ends]
        if not len(firsts) == len(lasts) == count:
            raise ValueError(f"{count} paths, {len(firsts)} starts, {len(lasts)} ends")
        jobs: dict[str, list[int]] = {}
        for at, path in enumerate(paths):
            jobs.setdefault(self._strip_protocol(path), []).append(at)
        out: list[bytes | Exception] = [b""] * count

        def run(path: str) -> None:
            places = jobs[path]
            bounds = [(firsts[at], lasts[at]) for at in places]
            found: Sequence[bytes | Exception]
            try:
                found = self._ranges(path, bounds, options)
            except Exception as error:  # whatever it is, it stands in place of the bytes
                if on_error != "return":
                    raise
                found = [error] * len(places)
            for at, data in zip(places, found, strict=True):
                out[at] = data

        if len(jobs) < 2:
            for path in jobs:
                run(path)
        else:
            with ThreadPoolExecutor(min(CONCURRENCY, len(jobs)), "pantala") as threads:
                [*threads.map(run, jobs)]
        return out

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **options: Any,
    ) -> None:
        """Write a file to another, which appears whole or not at all, or to a file object."""
        rpath = self._strip_protocol(rpath)
        file = lpath if outfile is None and isfilelike(lpath) else outfile
        if file is None and self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return

        def told(progress: Progress) -> None:
            if progress.total is not None:
                callback.set_size(progress.total)
            callback.absolute_update(progress.done)

        with self._asked(rpath, options) as (url, wishes):
            if file is None:
                Path(lpath).parent.mkdir(parents=True, exist_ok=True)
                path = os.fspath(lpath)
                self._client.download(url, path, overwrite=True, progress=told, **wishes)
                return
            for part in self._client.stream(url, **wishes):
                file.write(part)
                callback.relative_update(len(part))

    def _ranges(
        self, path: str, bounds: Sequence[tuple[int | None, int | None]], options: dict[str, Any]
    ) -> list[bytes]:
        """Ranges of one file."""
        if all((start or 0) >= 0 and (end is None or end >= (start or 0)) for start, end in bounds):
            try:
                with self._asked(path, options) as (url, wishes):
                    return self._client.get_ranges(url, [(s or 0, e) for s, e in bounds], **wishes)
            except _PERHAPS_THE_RANGE:  # one of them
                pass
        return [self.cat_file(path, start, end, **options) for start, end in bounds]

    @contextmanager
    def _asked(self, path: str, options: Mapping[str, Any]) -> Iterator[Asked]:
        """What to ask for, and what comes of it in words that users of file systems expect."""
        options = {name: value for name, value in options.items() if name not in _BUFFERS}
        if unknown := options.keys() - Wishes.__annotations__.keys():
            raise TypeError(f"no option {min(unknown)!r}")
        wishes = {**self._wishes, **options}
        if self._wishes.get("headers") and options.get("headers"):
            wishes["headers"] = {**self._wishes["headers"], **options["headers"]}
        asked = self._target.ask(path, wishes)
        try:
            yield asked
        except OriginError as error:
            status, name = error.status, public_url(asked.url)
            missing = status is None and self._target.is_local and not self.fs.exists(path)
            if missing or status in _ABSENT:
                raise FileNotFoundError(ENOENT, str(error), name) from error
            if status in CREDENTIALS_REFUSED:
                raise PermissionError(EACCES, str(error), name) from error
            raise

    # -- what there is not -----------------------------------------------------------------------

    mkdir = _refused("mkdir")
    makedirs = _refused("makedirs")
    rmdir = _refused("rmdir")
    rm = _refused("rm")
    rm_file = _refused("rm")
    _rm = _refused("rm")
    mv = _refused("mv")
    copy = _refused("cp")
    cp_file = _refused("cp")
    touch = _refused("touch")
    pipe = _refused("pipe")
    pipe_file = _refused("pipe")
    put = _refused("put")
    put_file = _refused("put")


def _bare(path: Any) -> Any:
    """A path, or several, without our name before it."""
    if isinstance(path, list | tuple | set):
        return [_bare(each) for each in path]
    text = stringify_path(path)
    if not isinstance(text, str):
        return text
    return text.removeprefix("dragonfly::").removeprefix("dragonfly://")
