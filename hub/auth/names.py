"""Which user names there are: one strict rule for every way to log in."""

from __future__ import annotations

import re

from hub.labfile.fields import USER_NAME

RULE = (
    "A user name is 1 to 31 lower-case letters (a-z), digits, hyphens and underscores, "
    "and begins with a letter."
)
RESERVED = frozenset({"root"})
_NAME = re.compile(USER_NAME)


def is_valid(name: str) -> bool:
    """Whether a normalized name may be a user's."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED


def shown(value: object) -> str:
    """Write a hostile value short and harmless, for messages and logs."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}… ({len(str(value))} characters)"
