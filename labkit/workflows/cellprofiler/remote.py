"""Images in S3 among images on a disk.

Where files are matched by their names they are paths below ``/s3:/bucket``; everywhere else, and in
all tables, they are addresses (``s3://bucket/key``).
"""

from __future__ import annotations

from pathlib import Path

from labkit.base.problems import Problem, RefusedError
from labkit.base.remote import SCHEME, is_remote
from labkit.storage.errors import StorageError

_ROOT = "/s3:/"


def to_path(address: str) -> Path:
    """Return the path that stands for an address while names are matched.

    Raises
    ------
    RefusedError
        It is none.
    """
    from labkit.storage.address import parse

    try:
        parse(address)
    except StorageError as error:
        raise RefusedError([Problem("images", str(error))]) from error
    return Path(_ROOT + address[len(SCHEME) :].rstrip("/"))


def to_address(path: str | Path) -> str:
    """Return the address for which a path stands; other paths as they are."""
    text = str(path)
    return SCHEME + text[len(_ROOT) :] if text.startswith(_ROOT) else text


def on_disk(folder: Path | None) -> Path | None:
    """Return a folder that is on a disk; None of others."""
    return None if folder is None or is_remote(to_address(folder)) else folder


def walk(folder: Path) -> list[Path]:
    """Return every object below a folder, sorted.

    Raises
    ------
    RefusedError
        It cannot be listed.
    """
    from labkit import storage

    try:
        entries = list(storage.entries(f"{to_address(folder)}/", deep=True))
    except StorageError as error:
        raise RefusedError([Problem("images", str(error))]) from error
    files = sorted(to_path(entry.address) for entry in entries if not entry.is_folder)
    if not files:
        hint = "Capitals count; labkit.storage.entries() lists what is there."
        raise RefusedError([Problem("images", f"there is nothing at {to_address(folder)}/.", hint)])
    return files


def content(address: str) -> bytes:
    """Return an object's content.

    Raises
    ------
    StorageError
        It is not there, or may not be read.
    """
    from labkit.storage import objects
    from labkit.storage.address import ObjectAddress, parse

    place = parse(address)
    if not isinstance(place, ObjectAddress):
        raise StorageError(f"{address} is no object: write s3://bucket/key.")
    return objects.read(place)
