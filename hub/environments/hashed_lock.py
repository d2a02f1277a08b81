"""Locks of what no registry of Python or Node has: a line per file, as sha256sum writes it."""

from __future__ import annotations

import re
from pathlib import Path

from hub.environments.toolchain import BuildError


def read(lock: Path, line: re.Pattern[str], form: str) -> list[re.Match[str]]:
    """Return a lock's lines, in their order.

    Parameters
    ----------
    lock : Path
        The file.
    line : re.Pattern
        What each of its lines is.
    form : str
        The same in words, for the error.

    Raises
    ------
    BuildError
        A line is not like that.
    """
    matches = []
    for number, text in enumerate(lock.read_text().splitlines(), 1):
        match = line.fullmatch(text)
        if not match:
            raise BuildError(f"{lock}, line {number}: not '{form}'")
        matches.append(match)
    return matches
