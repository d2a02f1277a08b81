"""Where published datasets are kept, when that is a folder; `store_s3` is the other place.

::

    <folder>/<name>/dataset.json          owner, groups, title, the version that is shown
    <folder>/<name>/versions/3/           never changed once it is there
        version.json  data.h5ad  thumbnail.png  opening.zip

A version appears by one rename, and the dataset points to it by another. What a crash leaves
between the two is a version that nothing points to, never a half one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from labkit.base import files
from labkit.portal.datasets.rules import is_name
from labkit.viewers.paths import private_folder, write_private
from services.cellxgene.records import Dataset, Version

DATA, RECORD = "data.h5ad", "version.json"
# What may lie beside the data of a version.
THUMBNAIL, OPENING = "thumbnail.png", "opening.zip"
Say = Callable[[str], None]
log = logging.getLogger(__name__)


class Store(Protocol):
    """A place for datasets; all calls may take long and belong into a thread."""

    def load(self) -> list[Dataset]:
        """Return all datasets; one that is damaged is left out and logged."""

    def save(self, dataset: Dataset) -> None:
        """Keep what may change of a dataset, all or nothing."""

    def next_number(self, name: str) -> int:
        """Return a number for a version that no version has or had."""

    def add(self, name: str, version: Version, data: Path, beside: Mapping[str, bytes]) -> None:
        """Keep a version for good, all or nothing; the file of the data is taken over."""

    def data(self, name: str, version: Version, say: Say) -> Path:
        """Return a local file with the data; fetched first where it must be."""

    def read(self, name: str, number: int, file: str) -> bytes | None:
        """Return what lies beside a version's data; None where there is no such file."""

    def delete(self, name: str) -> None:
        """Remove a dataset with all its versions."""

    def free(self) -> int | None:
        """Return the bytes that are left for data; None where there is no end."""


class FolderStore:
    """Datasets in a folder of this machine.

    Parameters
    ----------
    folder : Path
        Made where it is missing; for this account alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        for left in folder.glob(".*"):  # half of an addition or of a removal
            shutil.rmtree(left, ignore_errors=True)

    def load(self) -> list[Dataset]:
        """Return all datasets."""
        return [found for path in sorted(self.folder.iterdir()) for found in self._read(path)]

    def _read(self, folder: Path) -> Iterator[Dataset]:
        record = folder / "dataset.json"
        if not is_name(folder.name) or not record.is_file():
            return
        try:
            fields = json.loads(record.read_text(encoding="utf-8"))
            versions = [
                Version.model_validate_json((path / RECORD).read_bytes())
                for path in (folder / "versions").glob("[0-9]*")
                if (path / DATA).is_file()
            ]
            yield whole(fields, versions)
        except (OSError, ValueError, ValidationError) as error:
            log.error("%s is damaged and is left out: %s", folder, error)

    def save(self, dataset: Dataset) -> None:
        """Keep what may change of a dataset."""
        folder = private_folder(self.folder / dataset.name)
        write_private(folder / "dataset.json", dataset.model_dump_json(exclude={"versions"}))

    def next_number(self, name: str) -> int:
        """Return a number that no version has."""
        taken = [int(path.name) for path in (self.folder / name / "versions").glob("[0-9]*")]
        return max(taken, default=0) + 1

    def add(self, name: str, version: Version, data: Path, beside: Mapping[str, bytes]) -> None:
        """Keep a version for good."""
        staged = self.folder / f".{name}-{version.number}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(mode=0o700)
        try:
            for file, content in beside.items():
                _write(staged / file, content)
            _write(staged / RECORD, version.model_dump_json().encode())
            shutil.move(data, staged / DATA)
            (staged / DATA).chmod(0o400)
            files.sync_path(staged / DATA)
            versions = private_folder(self.folder / name / "versions")
            staged.rename(versions / str(version.number))
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def data(self, name: str, version: Version, say: Say) -> Path:  # noqa: ARG002 - it is here
        """Return the file of the data."""
        return self._version(name, version.number) / DATA

    def read(self, name: str, number: int, file: str) -> bytes | None:
        """Return what lies beside a version's data."""
        with contextlib.suppress(FileNotFoundError):
            return (self._version(name, number) / file).read_bytes()
        return None

    def delete(self, name: str) -> None:
        """Remove a dataset: gone by one rename, then from the disk."""
        gone = self.folder / f".{name}-removed"
        shutil.rmtree(gone, ignore_errors=True)
        (self.folder / name).rename(gone)
        shutil.rmtree(gone)

    def free(self) -> int | None:
        """Return the free space of the folder's disk, in bytes."""
        return shutil.disk_usage(self.folder).free

    def _version(self, name: str, number: int) -> Path:
        if not is_name(name):
            raise ValueError(f"{name!r} is no name of a dataset")
        return self.folder / name / "versions" / str(int(number))


def whole(fields: dict[str, object], versions: list[Version]) -> Dataset:
    """Return a dataset from its record and its versions.

    A crash may have come between the first version and the record that points to it.

    Raises
    ------
    ValueError
        It points to a version that is not there, or has none.
    """
    if not versions:
        raise ValueError("it has no version: its first one was never complete")
    ordered = tuple(sorted(versions, key=lambda one: one.number))
    current = fields.get("current") or ordered[-1].number
    return Dataset.model_validate({**fields, "current": current, "versions": ordered})


def _write(path: Path, content: bytes) -> None:
    if not files.write_atomic(path, content, mode=0o400, sync=True, exclusive=True):
        raise FileExistsError(path)
