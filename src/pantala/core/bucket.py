"""Token bucket."""

from __future__ import annotations


class Bucket:
    """Grants tokens at a rate, with some saved up.

    Args:
        rate: Tokens a second. Above 0.
        burst: Tokens it saves at most; it starts full. A request for more than this is
            granted once the bucket is full, and leaves it in debt.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = rate if burst is None else burst
        self._tokens = self._burst
        self._at = float("-inf")

    def take(self, n: float, now: float) -> float:
        """Take *n* tokens, or say how long to wait.

        Args:
            n: Tokens wanted.
            now: Seconds, on a clock that never goes back.

        Returns:
            0.0 when they were taken; else seconds after which asking again may succeed, and
            nothing was taken.
        """
        if now > self._at:
            if self._at != float("-inf"):
                self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        enough = min(n, self._burst)
        if self._tokens >= enough:
            self._tokens -= n
            return 0.0
        return (enough - self._tokens) / self._rate
