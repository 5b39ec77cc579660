"""Addresses of sockets as text."""

from __future__ import annotations


def host_port(ip: str, port: int) -> str:
    """An address as gRPC and people write it; an IPv6 address stands in brackets.

    >>> host_port("10.0.0.1", 8002), host_port("fd00::1", 8002)
    ('10.0.0.1:8002', '[fd00::1]:8002')
    """
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
