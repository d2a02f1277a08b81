"""Where published things are kept, when that is a bucket: ``s3://bucket/prefix``.

The keys are those of the folder (see `store`); a version's own file is written last and makes it
complete. Data, one file a version, is read from local copies, checked against its digest.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from pydantic import ValidationError

from labkit.base.problems import LabkitError
from labkit.base.units import format_size
from labkit.storage import entries, objects
from labkit.storage.address import ObjectAddress
from labkit.storage.store import ObjectStore
from labkit.viewers.paths import private_folder
from services.appkit.published.records import V
from services.appkit.published.store import Layout, Progress, R

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([\w./=-]*))?", re.ASCII)
log = logging.getLogger(__name__)


class StoreError(LabkitError):
    """The place of the published things does not do what it must."""


class S3Store(Generic[R, V]):
    """Published things in a bucket; credentials are found as the AWS command line finds them.

    Parameters
    ----------
    address : str
        ``s3://bucket/prefix``.
    layout : Layout
        What the keys are called; versions have a file of their own.
    cache : Path
        Folder for local copies.
    most : int
        Bytes that the copies may take together.

    Raises
    ------
    ValueError
        The address is none.
    """

    def __init__(self, address: str, layout: Layout[R, V], cache: Path, most: int) -> None:
        match = _ADDRESS.fullmatch(address)
        if not match or ".." in address:
            raise ValueError(f"{address!r} is no address like s3://bucket/prefix")
        self.layout = layout
        self._top = ObjectAddress(match[1], (match[2] or "").strip("/"))
        self._store = ObjectStore(self._top)
        self._cache = private_folder(cache)
        self._most = most
        for left in cache.glob(".*"):  # half of a download
            left.unlink()

    def load(self) -> list[R]:
        """Return all records."""
        return [record for name in self._names() for record in self._read(name)]

    def _read(self, name: str) -> Iterator[R]:
        try:
            record = self._get(f"{name}/{self.layout.file}")
            if record is not None:
                versions = [
                    self.layout.version.model_validate_json(self._get(key) or b"")
                    for key in self._complete(name)
                ]
                yield self.layout.whole(record, versions)
        except (ValueError, ValidationError) as error:
            log.error("%s in %s is damaged and is left out: %s", name, self._top, error)

    def _complete(self, name: str) -> list[str]:
        end = f"/{self.layout.version_file}"
        return [key for key in self._keys(f"{name}/versions/") if key.endswith(end)]

    def holds(self, name: str) -> bool:
        """Return whether a record with versions is kept, be it damaged."""
        return self._get(f"{name}/{self.layout.file}") is not None and bool(self._complete(name))

    def reserve(self, record: R) -> None:
        """Put a new record's owner down before its first version comes."""
        self.save(record)

    def save(self, record: R) -> None:
        """Keep what may change of a record."""
        self._put(f"{record.name}/{self.layout.file}", self.layout.dump(record).encode())

    def next_number(self, name: str) -> int:
        """Return a number that no version has, nor the rest of one."""
        keys = self._keys(f"{name}/versions/")
        return max((int(key.split("/")[2]) for key in keys), default=0) + 1

    def add(self, name: str, version: V, data: Path, beside: Mapping[str, bytes]) -> None:
        """Keep a version for good; the local file becomes the cache's copy."""
        place = self._version(name, version.number)
        self._store.store(data, self._key(place + self.layout.data))
        for file, content in beside.items():
            self._put(place + file, content)
        self._put(place + self.layout.version_file, version.model_dump_json().encode())
        shutil.move(data, self._copy(version))
        self._prune(keep={self._copy(version)})

    def data(self, name: str, version: V, progress: Progress) -> Path:
        """Return the local copy; fetched where there is none."""
        copy = self._copy(version)
        if copy.exists():
            os.utime(copy)
            return copy
        free = shutil.disk_usage(self._cache).free
        if version.size > free:
            raise StoreError(
                f"{format_size(version.size)} have to be fetched, and the disk of the cache has "
                f"{format_size(free)} left. An administrator must make room."
            )
        temporary = self._cache / f".{version.sha256}"
        key = self._key(self._version(name, version.number) + self.layout.data)
        at, done, lock = self._top.child(key), 0, threading.Lock()

        def advance(size: int) -> None:
            nonlocal done
            with lock:  # of several threads
                done += size
            progress(f"Fetching the data: {format_size(done)} of {format_size(version.size)}")

        try:
            if objects.fetch(at, temporary, advance) != version.sha256:
                raise StoreError(
                    f"{at} is not what was published: its digest differs. "
                    "Roll back to another version, or publish it again."
                )
            temporary.replace(copy)
        finally:
            temporary.unlink(missing_ok=True)
        self._prune(keep={copy})
        return copy

    def read(self, name: str, number: int, file: str) -> bytes | None:
        """Return what lies beside a version's data."""
        return self._get(self._version(name, number) + file)

    def delete(self, name: str) -> None:
        """Remove a record: its own file first, so that no half of it is shown."""
        own = f"{name}/{self.layout.file}"
        if self._get(own) is not None:
            self._store.delete(self._key(own))
        self._store.delete(self._key(f"{name}/"))

    def free(self) -> int | None:
        """Return None: a bucket has no end."""
        return None

    # -- keys and copies --------------------------------------------------------------

    def _key(self, key: str) -> str:
        self.layout.checked(key.split("/")[0])
        return key

    def _get(self, key: str) -> bytes | None:
        return self._store.read(self._key(key))

    def _put(self, key: str, content: bytes) -> None:
        self._store.put(self._key(key), content)

    def _names(self) -> list[str]:
        folders = [entry.address for entry in entries(self._store.address) if entry.is_folder]
        names = [address.removeprefix(self._store.address).rstrip("/") for address in folders]
        return sorted(filter(self.layout.record.rules.is_name, names))

    def _keys(self, start: str) -> list[str]:
        return list(self._store.list(self._key(start)))

    def _version(self, name: str, number: int) -> str:
        """Return where the keys of a version begin."""
        return f"{self.layout.checked(name)}/versions/{int(number)}/"

    def _copy(self, version: V) -> Path:
        return self._cache / f"{version.sha256}{Path(self.layout.data).suffix}"

    def _prune(self, keep: Collection[Path]) -> None:
        """Remove the longest unused copies; a viewer has what it shows in memory."""
        copies = [(p.stat().st_mtime, p.stat().st_size, p) for p in self._cache.glob("[!.]*")]
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if total <= self._most:
                break
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size
