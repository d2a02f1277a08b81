"""Inputs of a job that lie in S3: whether all of them are there, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.base.problems import Problem
from labkit.base.remote import is_remote


def problems(places: Mapping[str, str]) -> list[Problem]:
    """Return what stands against reading inputs in S3.

    Parameters
    ----------
    places : mapping of str to str
        Address -> where a person wrote it, e.g. ``"row 3, reads"``; paths are left alone.
    """
    remote = [text for text in places if is_remote(text)]
    if not remote:
        return []
    from labkit.storage.looking import look_all

    seen = look_all(remote)
    return [
        Problem(places[text], str(entry))
        for text, entry in seen.items()
        if isinstance(entry, Exception)
    ]
