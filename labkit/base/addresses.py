"""Addresses (``s3://…``, ``https://…``) where a path on a disk is needed."""

from __future__ import annotations

import os
import re

from labkit.base.problems import Problem

# A Path has made "s3:/" of "s3://" already.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def address_problem(where: str, value: str | os.PathLike[str]) -> Problem | None:
    """Return what is wrong where an address is given for a path; None where it is a path.

    Parameters
    ----------
    where : str
        What the value is for, e.g. ``"output"``.
    value : str or path
        As it was given.
    """
    text = os.fspath(value)
    scheme = _ADDRESS.match(text)
    if scheme is None:
        return None
    hint = "Copy the file to a disk first, and give the path of the copy."
    if scheme[1].lower() == "file":
        hint = f"Give the path alone: {'/' + text[scheme.end() :]!r}."
    elif where == "output":
        hint = "Give a folder on a disk, and copy the results afterwards."
    return Problem(where, f"{text} is an address; a path on a disk is needed.", hint)
