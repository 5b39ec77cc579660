"""Signals and time that is up, as exceptions: what is unfinished is cleaned up on the way out."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from pantala.errors import TimedOut

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asks to end; what is unfinished is to be cleaned up on the way out.

    Attributes:
        number: Of the signal.
        advice: What the user should know of what goes on all the same.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.advice = ""


@contextmanager
def ended_by_signals(seconds: float) -> Iterator[None]:
    """Turn signals into :class:`Stopped`, and after *seconds* whatever goes on into TimedOut.

    The alarm is the end of waits that have none of their own: a pipe that nobody reads, a
    file system that does not answer.
    """
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:  # nohup wants it to stay ignored
            signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _time_out)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # an impatient second one would cut the cleanup short
    raise Stopped(number)


def _time_out(_number: int, _frame: FrameType | None) -> None:
    raise TimedOut("gave up after the time that --timeout allows")
