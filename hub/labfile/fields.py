"""The kinds of value that the lab file is made of: sizes, durations, names."""

from __future__ import annotations

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

from labkit.base.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    exact_duration,
    parse_duration,
    parse_size,
)

USER_NAME = r"^[a-z][a-z0-9_-]{0,30}$"
SLUG = r"^[a-z][a-z0-9-]{0,29}$"


class Frozen(BaseModel):
    """A section of the lab file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    # A bare number is refused: its unit would be a guess.
    if value is None or isinstance(value, timedelta):
        return value
    return parse_duration(value if isinstance(value, str) else repr(value))


Bytes = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": SIZE_PATTERN},
                {"type": "integer", "minimum": 1},
            ],
            "x-kind": "size",
        }
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(exact_duration, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "x-kind": "duration",
        }
    ),
]
UserName = Annotated[str, StringConstraints(pattern=USER_NAME)]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Slug = Annotated[str, StringConstraints(pattern=SLUG)]
