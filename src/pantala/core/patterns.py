r"""Regular expressions that are found in a text in time that only grows with its length.

Patterns are an operator's, texts are anybody's. What backtracks, as Python's own ``re`` does, takes
hours for some texts of a few kilobytes, and a pattern as plain as ``.*a.*b`` is enough. So
they are RE2's, which never does; it is also whose language Dragonfly's patterns are written in.
"""

from __future__ import annotations

from typing import Final

import re2

#: Bytes that a pattern may take, with what is remembered of the texts that it met.
_MOST_MEMORY: Final = 1 << 20

#: Characters of what is wrong with a pattern that are told.
_MOST_TOLD: Final = 100


class Pattern:
    """One of them.

    Args:
        text: As an operator wrote it.

    Raises:
        ValueError: It makes no sense, is no part of the language, or is too large; in words.
    """

    def __init__(self, text: str) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MOST_MEMORY
        try:
            self._pattern = re2.compile(text, options)
        except re2.error as error:
            why = error.args[0] if error.args else b""
            told = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
            raise ValueError(told[:_MOST_TOLD]) from None

    def found_in(self, text: str) -> bool:
        """Whether it fits some part of *text*."""
        # What a program of this machine sends may be no text, which is found out elsewhere.
        return self._pattern.search(text.encode(errors="replace")) is not None
