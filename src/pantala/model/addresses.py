"""Addresses of sockets as text."""

from __future__ import annotations

#: Ports of one range at most: as many as a scheduler may have workers.
MAX_RANGE = 64


def host_port(ip: str, port: int) -> str:
    """An address as gRPC and people write it; an IPv6 address stands in brackets.

    >>> host_port("10.0.0.1", 8002), host_port("fd00::1", 8002)
    ('10.0.0.1:8002', '[fd00::1]:8002')
    """
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``.

    Raises:
        ValueError: It is neither.
    """
    host, port = _parts(text)
    number = _port(port)
    if not host or not number:
        raise ValueError("expected host:port, such as scheduler.example:8002 or [::1]:8002")
    return host, number


def manager_address(text: str) -> str:
    """``host:port`` of a manager, written so or as a URL.

    >>> manager_address("http://manager.example:65003/"), manager_address("[::1]:65003")
    ('manager.example:65003', '[::1]:65003')

    Raises:
        ValueError: It is neither, or asks for TLS, in words.
    """
    scheme, mark, rest = text.rpartition("://")
    if scheme.lower() == "https":
        raise ValueError("TLS to a manager is not available yet: want http://host:port")
    bare = rest.removesuffix("/") if not mark or scheme.lower() == "http" else ""
    try:
        split_address(bare)
    except ValueError:
        raise ValueError("expected http://host:port, such as http://manager:65003") from None
    return bare


def spread(text: str) -> tuple[str, ...]:
    """Every address of ``host:port``, or of ``host:first-last``, which names consecutive ports.

    >>> spread("[fd00::1]:8002-8004")
    ('[fd00::1]:8002', '[fd00::1]:8003', '[fd00::1]:8004')

    Raises:
        ValueError: It is neither, the ports are not in order, or there are more than
            :data:`MAX_RANGE`.
    """
    host, ports = _parts(text)
    first, dash, last = ports.partition("-")
    low, high = _port(first), _port(last if dash else first)
    if not (host and low and high):
        raise ValueError(
            "expected host:port, such as scheduler.example:8002 or [::1]:8002, or a range of "
            "ports, such as scheduler.example:8002-8005"
        )
    if low > high:
        raise ValueError(f"the ports {low}-{high} are not in order")
    if high - low >= MAX_RANGE:
        raise ValueError(f"{high - low + 1} ports: want at most {MAX_RANGE} in a range")
    return tuple(host_port(host, port) for port in range(low, high + 1))


def _parts(text: str) -> tuple[str, str]:
    """Host, without brackets, and what is behind the last colon; ``""`` twice: it is no address."""
    written, colon, port = text.rpartition(":")
    bracketed = written.startswith("[") and written.endswith("]")
    host = written[1:-1] if bracketed else written
    return (host, port) if colon and host and (":" in host) is bracketed else ("", "")


def _port(text: str) -> int:
    """A port; 0: it is none."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number < 65536 else 0
