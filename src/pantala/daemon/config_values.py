"""What a single value may be that only the daemon's configuration has.

Each is a type for a field in :mod:`.config`; those that the scheduler has, too, are in
:mod:`pantala.settings`. What is raised says what the value should have been; whoever reads the file
puts its name, the key and the value before that.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pantala.model.headers import representation
from pantala.settings import Ip, Size

from .host.machine import memory_limit

#: Bytes that the path of a unix socket may have; the kernel keeps 108 with the final zero.
_MAX_SOCKET_PATH: Final = 107


def auto_capacity() -> int:
    """Bytes for the memory store unless set: a quarter of the memory there is."""
    return memory_limit() // 4


def _capacity(value: object) -> object:
    return auto_capacity() if value == "auto" else value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("expected an absolute path")
    return path


def _socket_path(path: Path) -> Path:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise ValueError(f"longer than the {_MAX_SOCKET_PATH} bytes of a unix socket's path")
    return path


def _reachable(ip: str) -> str:
    if ip in ("0.0.0.0", "::"):
        raise ValueError("expected an address that others can reach")
    return ip


def _mode(value: object) -> int:
    # YAML reads 0660 as octal and 660 as decimal; only text leaves no doubt.
    if not isinstance(value, str) or not value.isdigit() or not set(value) <= set("01234567"):
        raise ValueError('expected octal digits in quotes, such as "0660"')
    mode = int(value, 8)
    if mode > 0o777:
        raise ValueError('expected permissions only, such as "0660"')
    return mode


def _uid(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        try:
            return pwd.getpwnam(value).pw_uid
        except (KeyError, ValueError):
            pass
    raise ValueError("expected a user's number, or the name of a user of this machine")


def _only_tcp(protocol: str) -> str:
    if protocol != "tcp":
        raise ValueError("only tcp is available in this version")
    return protocol


def _decides_no_content(headers: dict[str, str]) -> dict[str, str]:
    # It would be another file under the same id than on nodes that are set up otherwise.
    for name, _ in representation(headers):
        raise ValueError(
            f"{name} decides which content an origin sends: only a caller may set it, with --header"
        )
    return headers


#: Where there must be something on either side.
Percent = Annotated[int, Field(strict=True, ge=1, le=99)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_socket_path)]
#: An IP that is not "all of this machine's".
ReachableIp = Annotated[Ip, AfterValidator(_reachable)]
#: Permissions of a file.
Mode = Annotated[int, BeforeValidator(_mode)]
#: A user, by number or name.
Uid = Annotated[int, BeforeValidator(_uid)]
#: Bytes of memory, or "auto".
Capacity = Annotated[Size, BeforeValidator(_capacity)]
#: How pieces are fetched. Dragonfly has "quic", too.
Protocol = Annotated[Literal["tcp", "quic"], AfterValidator(_only_tcp)]
#: Headers for every request to an origin.
OriginHeaders = Annotated[dict[str, str], AfterValidator(_decides_no_content)]
