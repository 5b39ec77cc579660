"""Dragonfly in Python: files distributed inside a cluster, from peers before the origin.

Read ARCHITECTURE.md for the map. Layers, imports only downward:

    cli                                     programs
    client                                  what programs ask a daemon with: the SDK
    daemon  scheduler                       assembly
    storage  net  sources  rpc              adapters; they do not know each other
    settings  background  logs  paths  pb   what several of the above share
    yaml_file  files                        files that settings are read from, or that share bytes
    ports                                   interfaces
    sim                                     a swarm on a virtual clock
    core  wire  model  errors               pure: nothing here waits, or asks the time

Of the modules at the top, :mod:`.settings` says what configuration files may hold, which
:mod:`.yaml_file` reads, :mod:`.background` runs what goes on beside the requests, :mod:`.logs` sets
logging up, :mod:`.paths` says where a daemon's sockets lie, :mod:`.files` has ways for files to
share their bytes, and :mod:`.pb` is the contract, generated. :mod:`.sim` runs the pure parts alone.
:mod:`.testing` is for those who test; nothing else imports it.

What a program uses stands here, too: :class:`.Client`, the functions of a client that all share
(``pantala.open``, ``pantala.get`` and so on), what reads tensors (:mod:`.client.safetensors`), and
the errors to catch. ``docs/sdk.md`` shows how. They are imported when they are first looked at,
since everything imports this module.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the programs that import this have no time to import typing
if TYPE_CHECKING:
    from typing import Any

    from pantala import errors as errors
    from pantala.client import safetensors as safetensors
    from pantala.client.asynchronous import AsyncClient as AsyncClient
    from pantala.client.blocking import Client as Client
    from pantala.client.content import Content as Content
    from pantala.client.content import Sources as Sources
    from pantala.client.default import array as array
    from pantala.client.default import download as download
    from pantala.client.default import evict as evict
    from pantala.client.default import get as get
    from pantala.client.default import get_into as get_into
    from pantala.client.default import get_ranges as get_ranges
    from pantala.client.default import open as open  # noqa: A004  as other libraries name what opens
    from pantala.client.default import open_file as open_file
    from pantala.client.default import prefetch as prefetch
    from pantala.client.default import refresh as refresh
    from pantala.client.default import stat as stat
    from pantala.client.default import stream as stream
    from pantala.client.progress import Progress as Progress
    from pantala.client.reading import ContentFile as ContentFile
    from pantala.client.tasks import Task as Task
    from pantala.client.wishes import Range as Range
    from pantala.errors import Corrupt as Corrupt
    from pantala.errors import DragonflyError as DragonflyError
    from pantala.errors import Forbidden as Forbidden
    from pantala.errors import InvalidRequest as InvalidRequest
    from pantala.errors import NoRoom as NoRoom
    from pantala.errors import NotFound as NotFound
    from pantala.errors import OriginError as OriginError
    from pantala.errors import OutputExists as OutputExists
    from pantala.errors import SourceChanged as SourceChanged
    from pantala.errors import TimedOut as TimedOut
    from pantala.errors import Unavailable as Unavailable

__version__ = "0.1.0"

#: What we announce as ``build.git_version``. Its prefix is how a scheduler knows that a host
#: speaks the cache RPCs (a stock daemon aborts on one).
BUILD_VERSION = f"pantala/{__version__}"

#: Where what a program uses is defined; the names of modules are relative to this one.
_PUBLIC = {
    "client.asynchronous": ("AsyncClient",),
    "client.blocking": ("Client",),
    "client.content": ("Content", "Sources"),
    "client.default": (
        *("array", "download", "evict", "get", "get_into", "get_ranges"),
        *("open", "open_file", "prefetch", "refresh", "stat", "stream"),
    ),
    "client.progress": ("Progress",),
    "client.reading": ("ContentFile",),
    "client.tasks": ("Task",),
    "client.wishes": ("Range",),
    "errors": (
        *("Corrupt", "DragonflyError", "Forbidden", "InvalidRequest", "NoRoom", "NotFound"),
        *("OriginError", "OutputExists", "SourceChanged", "TimedOut", "Unavailable"),
    ),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  all of them texts, from above

#: Modules that programs use, some by a shorter name.
_MODULES = {"errors": "errors", "safetensors": "client.safetensors"}


def __getattr__(name: str) -> Any:
    """Import what is public when it is first looked at."""
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  only who looks needs it

    module = import_module(f"{__name__}.{_MODULES.get(name) or _HOMES[name]}")
    found = module if name in _MODULES else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
