"""Where published things are kept, when that is a folder; `store_s3` is the other place.

::

    <folder>/<name>/<record>              owner, groups, title, the version that is shown
    <folder>/<name>/versions/3/           never changed once it is there

A version appears by one rename, and the record points to it by another. What a crash leaves
between the two is a version that nothing points to, never a half one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from labkit.base.files import sync_path, write_atomic
from labkit.base.remove import remove_tree
from labkit.viewers.paths import private_folder
from services.appkit.published.records import Record, V, Version

R = TypeVar("R", bound=Record[Any])
V_contra = TypeVar("V_contra", bound=Version, contravariant=True)
Progress = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout(Generic[R, V]):
    """What the files of one kind are called.

    Attributes
    ----------
    record, version : type
        The models.
    file : str
        The record's file.
    version_file : str
        The file beside a version's data that makes the version complete; empty: the versions
        stand in the record's file.
    data : str
        A version's data, a file in the version's folder; empty: all of the folder is.
    """

    record: type[R]
    version: type[V]
    file: str
    version_file: str = ""
    data: str = ""

    def dump(self, record: R) -> str:
        """Return the text of a record's file."""
        return record.model_dump_json(exclude={"versions"} if self.version_file else None)

    def whole(self, text: bytes, versions: list[V]) -> R:
        """Return a record from its file and the files of its versions.

        A crash may have come between the first version and the record that points to it.

        Raises
        ------
        ValueError
            It points to a version that is not there, or has none.
        """
        fields = json.loads(text)
        if not self.version_file:
            return self.record.model_validate(fields)
        if not versions:
            raise ValueError("it has no version: its first one was never complete")
        ordered = tuple(sorted(versions, key=lambda one: one.number))
        current = fields.get("current") or ordered[-1].number
        return self.record.model_validate({**fields, "current": current, "versions": ordered})

    def checked(self, name: str) -> str:
        """Return a name that leads nowhere else.

        Raises
        ------
        ValueError
            It is none of this kind.
        """
        if not self.record.rules.is_name(name):
            raise ValueError(f"{name!r} is no name of {self.record.rules.noun}")
        return name


class Store(Protocol[R, V_contra]):
    """A place for published things; all calls may take long and belong into a thread."""

    def load(self) -> list[R]:
        """Return all records; one that is damaged is left out and logged."""

    def holds(self, name: str) -> bool:
        """Return whether a record with versions is kept under a name, be it damaged."""

    def reserve(self, record: R) -> None:
        """Put the owner of a new record down before its first version comes, where that is apart.

        So that after a crash between the two it is nobody else's.
        """

    def save(self, record: R) -> None:
        """Keep what may change of a record, all or nothing."""

    def next_number(self, name: str) -> int:
        """Return a number for a version that no version has or had."""

    def add(self, name: str, version: V_contra, data: Path, beside: Mapping[str, bytes]) -> None:
        """Keep a version for good, all or nothing; the data, a file or folder, is taken over."""

    def data(self, name: str, version: V_contra, progress: Progress) -> Path:
        """Return a version's data as a local file or folder; fetched first where it must be."""

    def read(self, name: str, number: int, file: str) -> bytes | None:
        """Return what lies beside a version's data; None where there is no such file."""

    def delete(self, name: str) -> None:
        """Remove a record with all its versions."""

    def free(self) -> int | None:
        """Return the bytes that are left for data; None where there is no end."""


class FolderStore(Generic[R, V]):
    """Published things in a folder of this machine, for this account alone.

    Parameters
    ----------
    folder : Path
        Made when something is first kept.
    layout : Layout
        What the files are called.
    """

    def __init__(self, folder: Path, layout: Layout[R, V]) -> None:
        self.folder = folder
        self.layout = layout

    def tidy(self) -> None:
        """Remove halves of additions and removals; call it while nothing is under way."""
        for left in self.folder.glob(".*"):
            if left.is_dir():
                remove_tree(left)
            else:
                left.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return the files in which the records are."""
        is_name = self.layout.record.rules.is_name
        paths = self.folder.glob(f"*/{self.layout.file}")
        return sorted(path for path in paths if is_name(path.parent.name))

    def load(self) -> list[R]:
        """Return all records."""
        return [record for file in self.files() for record in self._read(file)]

    def _read(self, file: Path) -> Iterator[R]:
        try:
            record = self.layout.whole(file.read_bytes(), self._versions(file.parent))
            if record.name != file.parent.name:
                raise ValueError(f"it is of {record.name!r}")
        except (OSError, ValueError, ValidationError) as error:
            log.error("%s is damaged and is left out: %s", file.parent, error)
            return
        yield record

    def _versions(self, folder: Path) -> list[V]:
        layout = self.layout
        if not layout.version_file:
            return []
        return [
            layout.version.model_validate_json((path / layout.version_file).read_bytes())
            for path in (folder / "versions").glob("[0-9]*")
            if (path / layout.data).exists()
        ]

    def holds(self, name: str) -> bool:
        """Return whether a record with versions is kept, be it damaged."""
        file = self.folder / self.layout.checked(name) / self.layout.file
        return file.exists() and self.next_number(name) > 1

    def reserve(self, record: R) -> None:
        """Put down a new record's owner, where its versions are apart from it."""
        if self.layout.version_file:
            self.save(record)

    def save(self, record: R) -> None:
        """Keep what may change of a record."""
        private_folder(self.folder)
        folder = private_folder(self.folder / self.layout.checked(record.name))
        file, text = folder / self.layout.file, self.layout.dump(record)
        write_atomic(file, text, mode=0o600, sync=True)

    def next_number(self, name: str) -> int:
        """Return a number that no version has."""
        versions = self.version_folder(name, 1).parent
        return max((int(path.name) for path in versions.glob("[0-9]*")), default=0) + 1

    def add(self, name: str, version: V, data: Path, beside: Mapping[str, bytes]) -> None:
        """Keep a version for good."""
        target = self.version_folder(name, version.number)
        if not self.layout.data:
            _rename(data, target)
            return
        staged = private_folder(self.folder) / f".{name}-{version.number}"
        remove_tree(staged)
        staged.mkdir(mode=0o700)
        try:
            for file, content in beside.items():
                _write(staged / file, content)
            _write(staged / self.layout.version_file, version.model_dump_json().encode())
            kept = staged / self.layout.data
            shutil.move(data, kept)
            kept.chmod(0o400)
            sync_path(kept)
            _rename(staged, target)
        except BaseException:
            remove_tree(staged)
            raise

    def version_folder(self, name: str, number: int) -> Path:
        """Return where a version is."""
        return self.folder / self.layout.checked(name) / "versions" / str(int(number))

    def data(self, name: str, version: V, progress: Progress) -> Path:  # noqa: ARG002 - it is here
        """Return the data."""
        return self.version_folder(name, version.number) / self.layout.data

    def read(self, name: str, number: int, file: str) -> bytes | None:
        """Return what lies beside a version's data."""
        with contextlib.suppress(FileNotFoundError):
            return (self.version_folder(name, number) / file).read_bytes()
        return None

    def delete(self, name: str) -> None:
        """Remove a record: gone by one rename, then from the disk."""
        gone = self.folder / f".{self.layout.checked(name)}-removed"
        remove_tree(gone)
        with contextlib.suppress(FileNotFoundError):
            (self.folder / name).rename(gone)
        remove_tree(gone)

    def free(self) -> int | None:
        """Return the free space of the folder's disk, in bytes."""
        return shutil.disk_usage(private_folder(self.folder)).free


def _rename(folder: Path, target: Path) -> None:
    """Put a version in its place, for good: the record that points to it comes after it."""
    private_folder(target.parent.parent)
    private_folder(target.parent)
    sync_path(folder)
    folder.rename(target)
    for changed in (target.parent, target.parent.parent, target.parent.parent.parent):
        sync_path(changed)


def _write(path: Path, content: bytes) -> None:
    if not write_atomic(path, content, mode=0o400, sync=True, exclusive=True):
        raise FileExistsError(path)
