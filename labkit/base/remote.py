"""Inputs in S3: how they are told from paths, and where a task finds its own copy."""

from __future__ import annotations

SCHEME = "s3://"


def is_remote(text: str) -> bool:
    """Return whether it is an address in S3, and no path."""
    return text.startswith(SCHEME)


def local_name(address: str) -> str:
    """Return where a task finds its copy of an object, below its ``tmp``.

    Bucket and folders are kept: files that lie side by side in S3 (a BAM and its index) lie side by
    side there, too, and a folder's name still says which plate it is.

    Parameters
    ----------
    address : str
        ``s3://bucket/key``, or a folder's.
    """
    return f"inputs/{address[len(SCHEME) :]}"
