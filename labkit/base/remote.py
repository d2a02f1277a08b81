"""Inputs in S3: how they are told from paths, and where a task finds its own copy."""

from __future__ import annotations

import hashlib

SCHEME = "s3://"


def is_remote(text: str) -> bool:
    """Return whether it is an address in S3, and no path."""
    return text.startswith(SCHEME)


def local_folder(address: str) -> str:
    """Return where a task finds what lay in the same folder as an object, below its ``tmp``.

    Files that lie side by side in S3 (a BAM and its index) lie side by side there, too.

    Parameters
    ----------
    address : str
        ``s3://bucket/key`` of the object.
    """
    parent = address.rpartition("/")[0]
    return f"inputs/{hashlib.sha256(parent.encode()).hexdigest()[:12]}"


def local_name(address: str) -> str:
    """Return where a task finds its copy of an object, below its ``tmp``."""
    return f"{local_folder(address)}/{address.rpartition('/')[2]}"
