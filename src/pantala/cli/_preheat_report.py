"""What ``dfctl … preheat`` prints: a line for each URL on each host, one that moves, and a last."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO

from pantala.model.units import format_size

from ._progress import INTERVAL, extent
from ._text import one_line

_BAR: Final = 10


class Report:
    """Prints results as they come.

    Args:
        out: For results.
        err: For progress, and what went wrong.
        as_json: Results are lines of JSON.
        shown: Whether to draw progress.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        as_json: bool,
        shown: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json
        self._shown = shown
        self._clock = clock
        self._begun = clock()
        self._next = self._begun
        self._drawn = False
        self._job_id = ""

    def result(self, row: Mapping[str, Any]) -> None:
        """One URL on one host, or at a scheduler that says no more: it is there, or why not."""
        if self._as_json:
            self._print(json.dumps(row))
            return
        host = row.get("host_id") or row.get("ip") or ""
        size = f"  {format_size(row['content_length'])}" if row.get("content_length") else ""
        why = f": {one_line(row['reason'])}" if row["reason"] else ""
        where = f"{one_line(host)}  " if host else ""
        self._print(f"{row['state']:8} {where}{one_line(row['url'])}{size}{why}")

    def progress(self, *, pairs: int, done: int, failed: int, received: int) -> None:
        """How far all of it is."""
        now = self._clock()
        if not self._shown or now < self._next:
            return
        self._next = now + INTERVAL
        bar = ("=" * int(_BAR * (done + failed) / max(pairs, 1))).ljust(_BAR)
        trouble = f", {failed} failed" if failed else ""
        line = f"[{bar}] {done} of {pairs} done{trouble}, {format_size(received)}"
        line += f", {now - self._begun:.0f} s"
        self._err.write(f"\r{line[: extent(self._err)[0] - 1]}\x1b[K")
        self._err.flush()
        self._drawn = True

    def summary(self, *, done: int, failed: int, received: int) -> None:
        """What has come of all of it."""
        seconds = self._clock() - self._begun
        if self._as_json:
            totals = {"job_id": self._job_id, "done": done, "failed": failed, "received": received}
            self._print(json.dumps({**totals, "seconds": round(seconds, 3)}))
            return
        trouble = f"{failed} failed, " if failed else ""
        self._print(f"{done} done, {trouble}{format_size(received)} in {seconds:.1f} s")

    def begun(self, job_id: str, *, tasks: int, pairs: int, waits: bool) -> None:
        """It has an id. As JSON, and where somebody waits for it, the last line has that."""
        self._job_id = job_id
        line = f"job {job_id}: {tasks} files, {pairs} times"
        if not waits:
            told = {"job_id": job_id, "tasks": tasks, "pairs": pairs}
            self._print(json.dumps(told) if self._as_json else line)
        elif not self._as_json:
            self.say(line)

    def say(self, text: str) -> None:
        """A line for people, beside the results."""
        self._clear()
        self._err.write(f"dfctl: {one_line(text)}\n")

    def error(self, code: str, message: str) -> None:
        """Why it came to an end."""
        self.say(message)
        if self._as_json:
            self._print(json.dumps({"error": {"code": code, "message": message}}))

    def stopped(self, number: int, *, goes_on: bool) -> None:
        """A signal ended it."""
        job = f"job {self._job_id}" if self._job_id else "the job"
        what = f"{job} goes on" if goes_on else "hosts may finish what they have begun"
        self.error("CANCELLED", f"stopped by {signal.Signals(number).name}: {what}")

    def _print(self, line: str) -> None:
        self._clear()
        self._out.write(f"{line}\n")
        self._out.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._err.write("\r\x1b[K")
            self._err.flush()
