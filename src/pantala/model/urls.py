"""URLs as others may see them.

A module of its own because ``dfget`` needs it and may import little.
"""

from __future__ import annotations

TYPE_CHECKING = False  # dfget has no time to import typing, nor to compile patterns
if TYPE_CHECKING:
    from typing import Final

# As the WHATWG rules read a URL: slashes may be missing or, where the scheme is one that
# browsers know, lean either way, and tabs and line breaks count for nothing.
_IGNORED: Final = dict.fromkeys((*range(0x20), 0x7F))
_SCHEME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-")
_ANY_SLASH: Final = "/\\"
_MAX_PORT: Final = 65535
_LENIENT: Final = frozenset({"http:", "https:", "file:"})


def public_url(url: str) -> str:
    """*url* without what may be a secret: user, password, query and fragment. Never fails.

    Tasks whose URLs differ in nothing else are told apart by their ids.

    >>> public_url("https://me:pw@example.com/a?token=1")
    'https://example.com/a'
    """
    scheme, slashes, rest = _parts(url)
    if scheme.lower() == "file:" and len(slashes) > 2:
        return scheme + slashes + rest  # no host, so nobody stands before one
    if not scheme:  # nobody knows where its host ends
        return slashes + rest.rpartition("@")[2]
    end = _end_of_host(scheme, rest)
    return scheme + slashes + rest[:end].rpartition("@")[2] + rest[end:]


def fault_of(url: str) -> str | None:
    """What makes *url* one that nobody can fetch, in words that show none of it; else None.

    Not all that a parser would refuse is found.

    >>> fault_of("http://me:pw@host:99999/x")
    'its port is above 65535'
    """
    scheme, slashes, rest = _parts(url)
    if not scheme:
        return "it has no scheme"
    if scheme.lower() == "file:":
        return None
    host = rest[: _end_of_host(scheme, rest)].rpartition("@")[2]
    # The rules take the next part for the host where there is none: nobody means that.
    if len(slashes) > 2 or not host or host.startswith(":"):
        return "it names no host"
    bracket = host.startswith("[")
    if bracket and "]" not in host:
        return "the [ of its IPv6 address is not closed"
    return _fault_of_port(host.partition("]")[2] if bracket else host)


def fault_of_given(text: str) -> str | None:
    """What is wrong with a URL that a user or a program gives, in words that show none of it.

    None: nothing, as far as :func:`fault_of` can tell. It must be written out, as well.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or not rest or not scheme[:1].isalpha() or not scheme.isascii():
        return "no URL with a scheme, such as https://host/file"
    if not text.isprintable() or " " in text:
        return "a space or control character in it: write %20 or so"
    fault = fault_of(text)
    return f"{fault}: want a URL such as https://host/file" if fault else None


def path_of(url: str) -> str:
    """What follows the host in *url*, up to a query or fragment; as it is written.

    >>> path_of("https://me:pw@host/a/b?token=1")
    '/a/b'
    """
    scheme, slashes, rest = _parts(url)
    if scheme.lower() == "file:" and len(slashes) > 2:
        return slashes[2:] + rest  # no host
    return rest[_end_of_host(scheme, rest) :]


def _fault_of_port(text: str) -> str | None:
    """What is wrong with the port after the first colon of *text*, if there is one."""
    port = text.partition(":")[2]
    if port and not (port.isascii() and port.isdigit()):
        return "its port is not a number"
    # More digits than this are too many for a number to be made of, and above it anyway.
    return "its port is above 65535" if int(port.lstrip("0")[:10] or "0") > _MAX_PORT else None


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme with its colon, slashes, and what follows up to a query or fragment."""
    text = url.translate(_IGNORED)
    text = text[: _first_of("?#", text)].lstrip()
    name, colon, rest = text.partition(":")
    if not (colon and name[:1].isascii() and name[:1].isalpha() and _SCHEME.issuperset(name)):
        name, colon, rest = "", "", text
    behind = rest.lstrip(_ANY_SLASH)
    return name + colon, rest[: len(rest) - len(behind)], behind


def _end_of_host(scheme: str, rest: str) -> int:
    return _first_of(_ANY_SLASH if scheme.lower() in _LENIENT else "/", rest)


def _first_of(marks: str, text: str) -> int:
    """Where the first of *marks* is in *text*; its length: nowhere."""
    found = [at for at in map(text.find, marks) if at >= 0]
    return min(found, default=len(text))
