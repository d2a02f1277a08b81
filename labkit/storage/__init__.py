"""Data wherever it is, named in one way: a path, or ``s3://bucket/key``.

``labkit.storage`` lists, reads, copies and checks; on S3 it also brings overwritten objects back,
makes links and sets storage classes. Credentials are those that the AWS command line finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from labkit.storage import objects
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.client import asking
from labkit.storage.copying import Progress, copy, file_entry, walk
from labkit.storage.digest import Sha256, file_digest
from labkit.storage.entry import Entry
from labkit.storage.errors import (
    AddressError,
    ChangedError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from labkit.storage.versions import (
    STORAGE_CLASSES,
    Version,
    link,
    restore,
    set_storage_class,
    versions,
)

__all__ = [
    "STORAGE_CLASSES",
    "AddressError",
    "ChangedError",
    "CredentialsError",
    "DeniedError",
    "Entry",
    "NotFoundError",
    "Progress",
    "StorageError",
    "UnreachableError",
    "Version",
    "checksum",
    "copy",
    "entries",
    "info",
    "link",
    "peek",
    "restore",
    "set_storage_class",
    "versions",
]
_BLOCK = 8 << 20


def entries(address: str | os.PathLike[str], *, deep: bool = False) -> Iterator[Entry]:
    """Return what is in a folder of a disk or of S3, in the order of the names.

    Parameters
    ----------
    address : str or path
        A folder; of S3 any beginning of keys: ``"s3://lab/plate1/"``.
    deep : bool
        Return all files below it; else those in it and its folders.

    Raises
    ------
    StorageError
        It is not there, or may not be listed.
    """
    place = parse(address)
    if isinstance(place, ObjectAddress):
        yield from objects.pages(place, deep=deep)
    elif deep:
        yield from walk(place)
    else:
        with asking(place):
            for path in sorted(place.iterdir()):
                yield Entry(f"{path}/") if path.is_dir() else file_entry(path)


def info(address: str | os.PathLike[str]) -> Entry:
    """Return size, time and version of a file or object.

    Raises
    ------
    StorageError
        It is not there, or may not be read.
    """
    place = parse(address)
    if isinstance(place, ObjectAddress):
        return objects.look(place)
    with asking(place):
        return Entry(f"{place}/") if place.is_dir() else file_entry(place)


def peek(address: str | os.PathLike[str], size: int = 4096, start: int = 0) -> bytes:
    """Return some bytes of a file or object, without the rest of it.

    Parameters
    ----------
    address : str or path
        Which.
    size : int
        Bytes at most; there are fewer at its end.
    start : int
        The first byte, from 0.

    Raises
    ------
    StorageError
        It is not there, or may not be read.
    """
    place = parse(address)
    if isinstance(place, ObjectAddress):
        return objects.read(place, start, size)
    with asking(place), place.open("rb") as file:
        file.seek(start)
        return file.read(size)


def checksum(address: str | os.PathLike[str], *, read: bool = False) -> str:
    """Return the SHA-256 of a file or object, as hex.

    Parameters
    ----------
    address : str or path
        Which.
    read : bool
        Read an object all the same where labkit stored its digest with it, and compare.

    Raises
    ------
    ChangedError
        It was replaced meanwhile, or is not what its digest says.
    StorageError
        It is not there, or may not be read.
    """
    place = parse(address)
    if isinstance(place, Path):
        with asking(place):
            return file_digest(place)
    entry = objects.look(place)
    if entry.digest and not read:
        return entry.digest
    digest, position = Sha256(), 0
    while position < entry.size:
        piece = objects.read(place, position, _BLOCK, version=entry.version)
        digest.update(piece)
        position += len(piece)
        if not piece:
            raise ChangedError(f"{place} broke off while it was read. Try again.")
    if entry.digest and digest.hexdigest() != entry.digest:
        raise ChangedError(f"{place} is not what was once stored there: its digest differs.")
    return digest.hexdigest()
