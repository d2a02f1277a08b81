"""What a published dataset may be called and say: one list for notebook and service.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from labkit.base.problems import Problem

NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}", re.ASCII)
NAME_RULE = "1 to 48 small letters, digits, - and _, a letter first"
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Longest text of each field, in characters.
TEXTS = {"title": 120, "description": 2000, "organism": 100, "tissue": 200}
GROUPS_MOST = 50
PNG = b"\x89PNG\r\n\x1a\n"
THUMBNAIL_BYTES = 400_000
THUMBNAIL_PIXELS = 1024


def is_name(value: Any) -> bool:
    """Return whether a value may be the name of a dataset."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_group(value: Any) -> bool:
    """Return whether a value may be the name of a group: the hub separates them by commas."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 128
        and value == value.strip()
        and value.isprintable()
        and "," not in value
    )


def check_name(name: Any) -> Iterator[Problem]:
    """Yield what is wrong with the name of a dataset."""
    if not is_name(name):
        yield Problem("name", f"{name!r} is no name of a dataset.", f"It needs {NAME_RULE}.")


def check_texts(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with title, description, organism and tissue; None is nothing said."""
    for field, most in TEXTS.items():
        value = fields.get(field)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > most:
            yield Problem(field, f"a text of at most {most} characters is needed.")
        elif not all(letter.isprintable() or letter in "\n\t" for letter in value):
            yield Problem(field, "it has characters that cannot be shown.")
        elif field == "title" and (not value.strip() or "\n" in value):
            yield Problem(field, "one line of text is needed.")


def check_groups(
    groups: Any, own: Collection[str], *, admin: bool, kept: Iterable[str] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with the groups that may see a dataset.

    Parameters
    ----------
    groups : Any
        What was asked for.
    own : collection of str
        The groups of who asks.
    admin : bool
        Whether an administrator asks, who may name any group.
    kept : iterable of str
        Groups that may see it already: they may stay.
    """
    if not isinstance(groups, list | tuple) or not all(is_group(one) for one in groups):
        yield Problem("groups", "a list of names of groups is needed.", 'E.g. groups=["imaging"].')
        return
    if len(groups) > GROUPS_MOST:
        yield Problem("groups", f"there are more than {GROUPS_MOST}.")
    foreign = sorted(set(groups) - set(own) - set(kept))
    if foreign and not admin:
        mine = ", ".join(sorted(own)) or "none"
        yield Problem(
            "groups",
            f"you are not in: {', '.join(foreign)}.",
            f"Yours are: {mine}. An administrator can add you, or share it for you.",
        )


def is_thumbnail(content: bytes) -> bool:
    """Return whether bytes are a PNG of a size that a catalogue shows."""
    if len(content) > THUMBNAIL_BYTES or content[:8] != PNG or content[12:16] != b"IHDR":
        return False
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    return 0 < width <= THUMBNAIL_PIXELS and 0 < height <= THUMBNAIL_PIXELS
