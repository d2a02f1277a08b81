"""The kinds of value that the lab file is made of: sizes, durations, names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

USER_NAME = r"^[a-z][a-z0-9_-]{0,30}$"
SLUG = r"^[a-z][a-z0-9-]{0,29}$"

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?$", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME = re.compile(r"^(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m(?:in)?)?\s*(?:(\d+)s)?$")


class Frozen(BaseModel):
    """A section of the lab file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def parse_bytes(value: Any) -> Any:
    """Turn ``2G``, ``512M`` or a number of bytes into bytes (1K = 1024).

    Raises
    ------
    ValueError
        The text is no size.
    """
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    found = _SIZE.match(value.strip())
    if not found:
        raise ValueError("a size looks like 512M or 2G")
    return int(float(found[1]) * _SIZE_UNITS[found[2].upper()])


def parse_duration(value: Any) -> Any:
    """Turn ``90s``, ``10m``, ``1h30m`` or ``2d`` into a timedelta.

    Raises
    ------
    ValueError
        The text is no duration; a bare number is refused, since its unit is a guess.
    """
    if value is None or isinstance(value, timedelta):
        return value
    found = _TIME.match(value.strip()) if isinstance(value, str) else None
    if not found or not any(found.groups()):
        raise ValueError("a duration looks like 30m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a timedelta as the lab file does: ``1h30m``."""
    left = int(value.total_seconds())
    out = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def format_size(value: int) -> str:
    """Write a size as the lab file does: ``2G``, ``1536M``."""
    for unit, size in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def format_bytes(value: int) -> str:
    """Write a size for people: ``2 GB``, ``1.5 GB``, ``512 MB`` (1 KB = 1024 bytes)."""
    size = float(value)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TB"


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[KMGTkmgt]?i?[Bb]?$"},
                {"type": "integer", "minimum": 1},
            ],
            "x-kind": "size",
        }
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\d+d)?\s*(\d+h)?\s*(\d+m(in)?)?\s*(\d+s)?$",
            "x-kind": "duration",
        }
    ),
]
UserName = Annotated[str, StringConstraints(pattern=USER_NAME)]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Slug = Annotated[str, StringConstraints(pattern=SLUG)]
