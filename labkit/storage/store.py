"""The little that a run folder asks of the place where it lies: on a disk, or in S3.

Names are relative, with ``/`` between their parts, and stand for whole contents: whoever reads one
sees all of what one writer wrote, or nothing. :meth:`Store.put_new` alone decides between two who
write at once.
"""

from __future__ import annotations

import contextlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from labkit.base import files
from labkit.storage import objects
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.client import asking
from labkit.storage.copying import copy_one
from labkit.storage.errors import AddressError, NotFoundError, code_of

# No part begins with a dot: those are temporary files of a disk.
_NAME = re.compile(r"[A-Za-z0-9_][\w.+=@-]*(/[A-Za-z0-9_][\w.+=@-]*)*", re.ASCII)
_PREFIX = re.compile(r"|[A-Za-z0-9_][\w.+=@-]*(/[A-Za-z0-9_][\w.+=@-]*)*/?", re.ASCII)


def _no_advance(_: int) -> None:
    """Take no notice of the bytes that have been moved."""


class Store(ABC):
    """Named contents below one address. Every method may raise StorageError."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it is, as people write it."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return a content; None where there is none of that name."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Write a content; one that is there is replaced in one step. It is safe afterwards."""

    @abstractmethod
    def put_new(self, name: str, content: bytes) -> bool:
        """Write a content unless there is one; of several at once, exactly one gets True.

        It is safe afterwards. It tells its own write from another's also where the answer to the
        first try was lost.
        """

    @abstractmethod
    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Return the names that begin with ``prefix`` and come after ``after``, in byte order."""

    @abstractmethod
    def delete(self, prefix: str) -> None:
        """Delete all whose names begin with a prefix that is not empty."""

    @abstractmethod
    def fetch(self, name: str, path: Path) -> None:
        """Copy a content into a file, which appears when it is whole; its folder is made."""

    @abstractmethod
    def store(self, path: Path, name: str) -> None:
        """Copy a file to a name; one that is there is replaced in one step."""


def open_store(address: str | os.PathLike[str]) -> Store:
    """Return the store below an address.

    Parameters
    ----------
    address : str or path
        A folder, or ``s3://bucket/prefix``.

    Raises
    ------
    AddressError
        It is none.
    """
    place = parse(address)
    return ObjectStore(place) if isinstance(place, ObjectAddress) else PosixStore(place)


def checked(name: str) -> str:
    """Return a name that is fit for both a disk and S3.

    Raises
    ------
    AddressError
        It is not: it climbs, begins with a dot or has other letters.
    """
    if not _NAME.fullmatch(name):
        raise AddressError(f"{name!r} is no name in a store: use letters, digits and . _ + = @ - /")
    return name


def _checked_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise AddressError(f"{prefix!r} begins no name in a store.")
    return prefix


class PosixStore(Store):
    """A folder on a disk.

    Parameters
    ----------
    folder : Path
        It is made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder).absolute()

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._folder)

    def read(self, name: str) -> bytes | None:
        """Return a content; None where there is none of that name."""
        place = self._folder / checked(name)
        with asking(place):
            try:
                return place.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None  # folders are no contents

    def put(self, name: str, content: bytes) -> None:
        """Write a content, synced."""
        with self._place(name) as place:
            files.write_atomic(place, content, sync=True)

    def put_new(self, name: str, content: bytes) -> bool:
        """Write a content unless there is one: by a link, which fails where the name is taken."""
        with self._place(name) as place:
            return files.write_atomic(place, content, sync=True, exclusive=True)

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Return the names; a disk has no order of its own, so all are read first."""
        top = self._folder / _checked_prefix(prefix).rpartition("/")[0]
        names = []
        with asking(top):
            for root, folders, found in os.walk(top, onerror=_raise_others):
                folders[:] = [name for name in folders if not name.startswith(".")]
                below = Path(root).relative_to(self._folder)
                names += [(below / name).as_posix() for name in found if not name.startswith(".")]
        yield from sorted(
            (name for name in names if name.startswith(prefix) and name > after), key=os.fsencode
        )

    def delete(self, prefix: str) -> None:
        """Delete all below a prefix, and the folders that are empty then."""
        names = [*self.list(_checked_prefix(prefix) or checked(prefix))]
        with asking(self._folder / prefix):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            folders = {above for name in names for above in (self._folder / name).parents}
            for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                if folder.is_relative_to(self._folder) and folder != self._folder:
                    with contextlib.suppress(OSError):  # it is not empty
                        folder.rmdir()

    def fetch(self, name: str, path: Path) -> None:
        """Copy a content into a file."""
        copy_one(self._folder / checked(name), path, _no_advance)

    def store(self, path: Path, name: str) -> None:
        """Copy a file to a name."""
        place = self._folder / checked(name)
        copy_one(path, place, _no_advance)
        with asking(place):
            files.sync_path(place)
            files.sync_path(place.parent)

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[Path]:
        place = self._folder / checked(name)
        with asking(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            yield place


def _raise_others(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class ObjectStore(Store):
    """All objects below a prefix of a bucket; ``put_new`` is a conditional PUT.

    Parameters
    ----------
    address : ObjectAddress
        Bucket and prefix.
    """

    def __init__(self, address: ObjectAddress) -> None:
        key = address.key.rstrip("/")
        self._top = ObjectAddress(address.bucket, f"{key}/" if key else "")

    @property
    def address(self) -> str:
        """The ``s3://bucket/prefix/``."""
        return str(self._top)

    def read(self, name: str) -> bytes | None:
        """Return a content; None where there is none of that name."""
        try:
            return objects.read(self._at(name))
        except NotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return None

    def put(self, name: str, content: bytes) -> None:
        """Write a content."""
        objects.put(self._at(name), content)

    def put_new(self, name: str, content: bytes) -> bool:
        """Write a content unless there is one: ``If-None-Match: *``."""
        return objects.put(self._at(name), content, new=True)

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Return the names, a thousand a request."""
        start = ObjectAddress(self._top.bucket, self._top.key + _checked_prefix(prefix))
        after = self._top.key + after if after else ""
        for entry in objects.pages(start, after=after):
            name = entry.address.removeprefix(str(self._top))
            if _NAME.fullmatch(name):  # others may have put something there
                yield name

    def delete(self, prefix: str) -> None:
        """Delete all below a prefix, a thousand a request."""
        names = self.list(_checked_prefix(prefix) or checked(prefix))
        objects.delete([self._at(name) for name in names])

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object into a file."""
        copy_one(self._at(name), path, _no_advance)

    def store(self, path: Path, name: str) -> None:
        """Copy a file into an object."""
        copy_one(path, self._at(name), _no_advance)

    def _at(self, name: str) -> ObjectAddress:
        return self._top.child(checked(name))
