"""Sizes and durations: one way to read them and one way to write them.

A KB is 1024 bytes, an MB 1024 KB and so on, as in SLURM, in the lab file and in what the system's
own programs print; ``GiB`` and ``G`` mean the same as ``GB``.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

KB, MB, GB, TB = 1 << 10, 1 << 20, 1 << 30, 1 << 40  # bytes
_NUMBER = r"\d*\.?\d+"
#: What `parse_size` reads, for JSON schemas.
SIZE_PATTERN = rf"^\s*{_NUMBER}\s*(?:[KMGTkmgt]?[Ii]?[Bb]?|bytes?)\s*$"
#: What `parse_duration` reads, for JSON schemas.
DURATION_PATTERN = (
    r"^\s*(?:(?:\d+-)?\d+:\d\d(?::\d\d)?"
    rf"|(?:{_NUMBER}\s*[Dd](?:ays?)?)?\s*(?:{_NUMBER}\s*[Hh])?"
    rf"\s*(?:{_NUMBER}\s*[Mm](?:in)?)?\s*(?:{_NUMBER}\s*[Ss])?)\s*$"
)
_SIZE = re.compile(rf"({_NUMBER})\s*(?:([kmgt]?)i?b?|bytes?)", re.IGNORECASE)
_BYTES = {"": 1, "k": KB, "m": MB, "g": GB, "t": TB}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")
_SPAN = re.compile(
    rf"(?:({_NUMBER})\s*d(?:ays?)?)?\s*(?:({_NUMBER})\s*h)?"
    rf"\s*(?:({_NUMBER})\s*m(?:in)?)?\s*(?:({_NUMBER})\s*s)?",
    re.IGNORECASE,
)
# letter in the lab file, word for people, seconds; without zip(strict=): the worker has Python 3.9
_SPANS = (("d", "day", 86_400), ("h", "h", 3600), ("m", "min", 60), ("s", "s", 1))


def parse_size(value: int | float | str) -> int:
    """Return the bytes of ``"4 GB"``, ``"512M"``, ``"1.5GiB"`` or a number of bytes.

    Raises
    ------
    ValueError
        It is no size, or is below one byte.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if not match:
            raise ValueError(f"{value!r} is no size; write it like 4 GB, 512 MB or 2G")
        number = float(match[1]) * _BYTES[(match[2] or "").lower()]
    else:
        number = float(value)
    if not math.isfinite(number) or number < 1:
        raise ValueError(f"a size must be above zero, not {value!r}")
    return int(number)


def format_size(size: float) -> str:
    """Write bytes for people: ``"2 GB"``, ``"1.46 GB"``, ``"512 MB"``, ``"100 bytes"``.

    Three digits, and all of them where there are four before the point.
    """
    if round(size) < KB:
        return "1 byte" if round(size) == 1 else f"{round(size)} bytes"
    for unit in ("KB", "MB", "GB", "TB"):
        size /= KB
        # What would read as 1024 is one of the next unit.
        if unit == "TB" or _three_digits(size) < KB:
            break
    number = _three_digits(size)
    return f"{number:.0f} {unit}" if number >= 100 else f"{number:g} {unit}"


def _three_digits(number: float) -> float:
    return float(round(number)) if number >= 100 else float(f"{number:.3g}")


def exact_size(size: int) -> str:
    """Write bytes exactly, as the lab file has them: ``"2G"``, ``"1536M"``, ``"1000"``."""
    for unit, scale in (("T", TB), ("G", GB), ("M", MB), ("K", KB)):
        if size and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)


def parse_duration(value: timedelta | int | float | str) -> timedelta:
    """Return the span of ``"90 min"``, ``"1h30m"``, ``"2d"``, SLURM's ``"2-12:00:00"``, or seconds.

    Raises
    ------
    ValueError
        It is no span of time; a text without a unit is refused, since its unit is a guess.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{value!r} is no span of time in seconds")
        return timedelta(seconds=value)
    if clock := _CLOCK.fullmatch(value.strip()):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    match = _SPAN.fullmatch(value.strip())
    if not match or not any(match.groups()):
        raise ValueError(f"{value!r} is no span of time; write it like 90 min, 1h30m or 2d")
    counts = [float(count or 0) for count in match.groups()]
    return timedelta(seconds=sum(counts[i] * span[2] for i, span in enumerate(_SPANS)))


def format_duration(span: timedelta | float) -> str:
    """Write a span of time, or seconds, for people: ``"1 h 30 min"``, ``"2 days"``, ``"0.4 s"``.

    Two units at most, rounded to the smaller one.
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds < 9.95:
        return f"{round(max(seconds, 0.0), 1):g} s"
    # The smaller of the two units: seconds below an hour, minutes below a day, then hours.
    for step, below in ((1, 3600), (60, 86_400), (3600, math.inf)):
        left = round(seconds / step) * step
        if left < below:
            break
    words = []
    for _, unit, scale in _SPANS:
        count, left = divmod(left, scale)
        plural = "s" if unit == "day" and count > 1 else ""
        words += [f"{count} {unit}{plural}"] if count else []
    return " ".join(words)


def exact_duration(span: timedelta) -> str:
    """Write a span of time as the lab file has it, in whole seconds: ``"1h30m"``."""
    left = int(span.total_seconds())
    text = ""
    for letter, _, scale in _SPANS:
        count, left = divmod(left, scale)
        text += f"{count}{letter}" if count else ""
    return text or "0s"
