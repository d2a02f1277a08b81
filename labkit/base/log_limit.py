"""A limit on how fast a log grows, whatever strangers send to the program that writes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 128 << 10  # bytes that one statement of the program may write at once
_RATE = 4 << 10  # and bytes a second after that: some 30 requests
_PLACES = 1024
_HEAD = 64  # bytes of a line beside its text: time, level, program


@dataclass
class _Bucket:
    """What one statement may still write."""

    bytes: float
    filled: float
    left_out: int = 0


class LogLimit(logging.Filter):
    """Let each log statement of a program write so much and no more; count what is left out.

    A limit by statement keeps a flood of one kind from hiding everything else. Add it to a
    handler, behind which a logger's own text cannot tell it apart any more.

    Parameters
    ----------
    burst : int
        Bytes that a statement may write at once.
    rate : float
        Bytes a second after that.
    clock : callable
        Returns the seconds that have passed.
    """

    def __init__(
        self,
        burst: int = _BURST,
        rate: float = _RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._burst, self._rate, self._clock = burst, rate, clock
        self._buckets: dict[tuple[str, str, int], _Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line may be written; the next one says how many were not."""
        now = self._clock()
        bucket = self._bucket((record.name, record.pathname, record.lineno), now)
        bucket.bytes = min(self._burst, bucket.bytes + (now - bucket.filled) * self._rate)
        bucket.filled = now
        size = _size(record)
        if bucket.bytes < size and bucket.bytes < self._burst:
            bucket.left_out += 1
            return False
        bucket.bytes -= size
        if bucket.left_out:
            record.msg, record.args = self.note(record.getMessage(), bucket.left_out), None
            bucket.left_out = 0
        return True

    def note(self, text: str, left_out: int) -> str:
        """Return a line that says how many like it were left out before."""
        return f"{text} ({left_out} lines like this were left out)"

    def _bucket(self, place: tuple[str, str, int], now: float) -> _Bucket:
        bucket = self._buckets.get(place)
        if bucket is None:
            if len(self._buckets) >= _PLACES:
                self._buckets.clear()
            bucket = self._buckets[place] = _Bucket(self._burst, now)
        return bucket


def _size(record: logging.LogRecord) -> int:
    size = _HEAD + len(record.getMessage())
    if record.exc_info and not record.exc_text:
        # The handler writes the same text: it is kept on the record for it.
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    return size + len(record.exc_text or "")
