"""A sink that is not memory: small windows, bytes kept only once they are reported, little room."""

from __future__ import annotations

from pantala.errors import StoreFailed


class NarrowSink:
    """A :class:`~pantala.ports.Sink` that holds whoever receives to the rules.

    Args:
        length: Bytes that it takes.
        width: Bytes in a window at most.
        room: Bytes after which it fails, as a full disk does; None: never.
    """

    def __init__(self, length: int, width: int, *, room: int | None = None) -> None:
        self.length = length
        self.received = 0
        self.kept = bytearray()
        self._scratch = bytearray(width)
        self._room = length if room is None else room

    def window(self, offset: int) -> memoryview:
        """At most *width* bytes, always the same."""
        if offset != len(self.kept):
            raise ValueError(f"the window at {offset}, but {len(self.kept)} bytes were reported")
        return memoryview(self._scratch)[: self.length - offset]

    def wrote(self, offset: int, count: int) -> None:
        """Keep them, then overwrite the window: it is another's from here on."""
        if offset != len(self.kept) or count > len(self._scratch):
            raise ValueError(f"{count} bytes at {offset}, not after {len(self.kept)}")
        if offset + count > self._room:
            raise StoreFailed("no space left")
        self.kept += self._scratch[:count]
        self.received = len(self.kept)
        self._scratch[:] = bytes(len(self._scratch))

    def close(self) -> None:
        """Nothing to let go of."""
