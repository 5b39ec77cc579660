"""Tensors of safetensors files, by name.

Of a file that is here already nothing is copied: tensors lie in the daemon's memory, and keep it.
Of one that is not, only the pieces travel that the wanted tensors lie in::

    tensors = pantala.safetensors.load(url, keys=lambda name: ".layers.3." in name)

A model in several files is the URLs of all of them, or that of its index, which is called
``model.safetensors.index.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from pantala.errors import Corrupt, InvalidRequest, NotFound
from pantala.model.urls import public_url

from .asking import Asking
from .default import _CLIENT
from .tensor_arrays import Maker
from .tensor_files import Made, TensorFile
from .tensor_header import Header, TensorInfo, shown
from .tensor_index import MAX_INDEX, is_index, shards_of
from .wishes import Wishes

if TYPE_CHECKING:
    from .blocking import Client

__all__ = ["Header", "TensorInfo", "header", "load", "stream"]

#: Which tensors are wanted: those for which it is true, those that are named, or all.
Keys = Callable[[str], object] | Iterable[str] | None


def load(
    urls: str | Iterable[str],
    *,
    keys: Keys = None,
    framework: str = "np",
    copy: bool = False,
    client: Client | None = None,
    **wishes: Unpack[Wishes],
) -> dict[str, Any]:
    """Tensors by name, in the order of the files and of the tensors in them.

    They are read-only, in the memory where they came to lie, and keep it. That of a file that is
    here as a whole, or of which all is wanted, is the daemon's, which all processes of the machine
    share. Otherwise it is this process's own: neighbours lie in one buffer, which goes when none of
    them is left, and has 64 MiB at most unless one tensor has more.

    Args:
        urls: Of a file, of several, or of an index: JSON whose ``weight_map`` has for each tensor
            the name of a file beside it. Only the files of wanted tensors are asked for.
        keys: A function of a name that says whether that tensor is wanted, or names; None: all.
        framework: ``"np"`` or ``"torch"``, of which neither is imported before. numpy has BF16 and
            the F8 kinds with the package ml_dtypes. What torch makes of read-only memory it warns
            of, with reason: who writes into such a tensor ends the process.
        copy: Into memory of this process's own, which may be written, each tensor for itself.
        client: None: the one that all functions of :mod:`pantala` share.
        wishes: See :class:`.Wishes`. A digest is that of one file, all of which is asked for.

    Raises:
        NotFound: No file has a tensor of a name in *keys*.
        InvalidRequest: The framework is not there, or has no such dtype; two files have a tensor of
            the same name; a wish makes no sense.
        Corrupt: A file is no safetensors file, or its header cannot be right.
        SourceChanged: A file changed while parts of it were read.
        DragonflyError: A file cannot be had; :mod:`pantala.errors` has the reasons.
    """
    call = _Call(urls, keys, Maker(framework, copy=copy), Asking(client or _CLIENT, wishes), wishes)
    found = {name: tensor for made in call.run(begin_whole=True) for name, tensor in made}
    return {name: found[name] for name in call.names()}


def stream(
    urls: str | Iterable[str],
    *,
    keys: Keys = None,
    framework: str = "np",
    copy: bool = False,
    client: Client | None = None,
    **wishes: Unpack[Wishes],
) -> Iterator[tuple[str, Any]]:
    """Names and tensors, each once, in the order in which their last bytes come.

    All of a tensor is verified when it comes. Those of several files are mixed. Leaving off early
    ends the wait; the daemon goes on. Arguments and errors are those of :func:`load`; errors may
    also come after the first tensors. A digest is checked at the end, so there is none here.
    """
    if wishes.get("digest") is not None:
        raise InvalidRequest(
            "digest: it is known at the end, when tensors have been used: see load"
        )
    call = _Call(urls, keys, Maker(framework, copy=copy), Asking(client or _CLIENT, wishes), wishes)
    return (pair for made in call.run() for pair in made)


def header(url: str, *, client: Client | None = None, **wishes: Unpack[Wishes]) -> Header:
    """What a file says of itself: names, dtypes and shapes of its tensors, and its metadata.

    A mebibyte travels as a rule, or as much as the header has. Raises as :func:`load` does.
    """
    asking = Asking(client or _CLIENT, wishes)
    (file,) = TensorFile(url, asking).open()
    return file.header


class _Call:
    """One call: its files, and which tensors of them are wanted.

    Args:
        urls: As they were given.
        keys: Likewise.
        maker: Makes tensors.
        asking: How files are asked for.
        wishes: What is asked of them.
    """

    def __init__(
        self, urls: str | Iterable[str], keys: Keys, maker: Maker, asking: Asking, wishes: Wishes
    ) -> None:
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        self._names = None if keys is None or callable(keys) else _names(keys)
        self._function = keys if callable(keys) else None
        self._maker = maker
        self._asking = asking
        self._digest = wishes.get("digest") is not None
        if self._digest and (len(self._urls) != 1 or is_index(self._urls[0])):
            raise InvalidRequest("digest: it is that of one file; ask for each file by itself")
        self._files: list[TensorFile] = []
        #: What an index says is in a file, by its URL.
        self._indexed: dict[str, set[str]] = {}
        self._homes: dict[str, TensorFile] = {}

    def names(self) -> list[str]:
        """Of the tensors that are wanted, in order, when their headers have been read."""
        return [tensor.name for file in self._files for tensor in file.wanted]

    def run(self, *, begin_whole: bool = False) -> Iterator[Made]:
        """Tensors as they come.

        Args:
            begin_whole: Where all is wanted, ask for all at once, and bring all of a file at once.
        """
        self._find_files()
        if self._digest or (begin_whole and self._names is None and self._function is None):
            yield from self._asking.all([partial(f.whole, self._choose) for f in self._files])
            self._must_have_all()
            return
        for _ in self._asking.all([file.open for file in self._files]):
            pass
        for file in self._files:
            self._choose(file)
        self._must_have_all()
        yield from self._asking.all([work for file in self._files for work in file.works()])

    def _find_files(self) -> None:
        """Those that are named; of an index, those that have something that is wanted."""
        urls: dict[str, None] = {}
        for url in self._urls:
            urls |= dict.fromkeys(self._read_index(url) if is_index(url) else [url])
        self._files = [TensorFile(url, self._asking, self._maker) for url in urls]

    def _read_index(self, url: str) -> list[str]:
        name = public_url(url)
        fetch = self._asking.fetch(url, (0, MAX_INDEX))
        for _ in self._asking.steps(fetch):
            pass
        size, landing = fetch.arrival.content_length, fetch.landing
        if size > MAX_INDEX:
            raise Corrupt(f"{name} has {size} bytes, and an index has {MAX_INDEX} at most")
        for tensor, shard in shards_of(landing.view(0, size), url, name).items():
            if self._wants(tensor):
                self._indexed.setdefault(shard, set()).add(tensor)
        found = sorted(self._indexed)
        if len(self._urls) == 1:
            self._must_have_all(set().union(*self._indexed.values()))
        return found

    def _wants(self, name: str) -> bool:
        if self._names is not None:
            return name in self._names
        return self._function is None or bool(self._function(name))

    def _choose(self, file: TensorFile) -> None:
        """Say which tensors of a file are wanted; its header is here."""
        indexed = self._indexed.get(file.url)
        if indexed is None:
            file.choose(self._wants)
        else:
            if missing := indexed - file.header.tensors.keys():
                name = shown(min(missing))
                raise Corrupt(f"{file.name} has no tensor {name}, which its index has there")
            file.choose(indexed.__contains__)
        for tensor in file.wanted:
            other = self._homes.setdefault(tensor.name, file)
            if other is not file:
                raise InvalidRequest(
                    f"tensor {shown(tensor.name)} is in {other.name} and in {file.name}"
                )

    def _must_have_all(self, known: Container[str] | None = None) -> None:
        """Each name has a tensor. Raises NotFound."""
        known = self._homes if known is None else known
        for name in sorted(self._names or ()):
            if name not in known:
                where = ", ".join(map(public_url, self._urls))
                raise NotFound(f"no tensor {shown(name)} in {where}")


def _names(keys: Iterable[str]) -> frozenset[str]:
    """Names of tensors. Raises InvalidRequest: they are none."""
    if isinstance(keys, str):
        raise InvalidRequest("keys: want names, or a function of a name, and not one text")
    found = list(keys)
    if not all(isinstance(name, str) for name in found):
        raise InvalidRequest("keys: want names, which are texts")
    return frozenset(found)
