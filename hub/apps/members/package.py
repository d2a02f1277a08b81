"""From what a member has sent to the files of an app: unpacked by strict rules.

Nothing of an app is read as code here: the hub may run as root. What lies in the folder of all
apps meanwhile begins with a dot, where no app is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hub.apps import member_records
from hub.apps.app_paths import make_readable
from hub.state.paths import Paths
from labkit.base.problems import Problem
from labkit.base.remove import remove_tree
from labkit.base.units import format_size
from labkit.portal.webapps.rules import FILES_MOST, Kind, check_size, is_path, kind_of
from labkit.viewers.paths import private_folder
from services.appkit.published.statements import RefusedPublishError

_PIECE = 1 << 20
_SPARE = 1 << 30  # bytes of the disk that are never filled


@dataclass(frozen=True)
class Unpacked:
    """Files that were taken out of an archive, not yet a version.

    Attributes
    ----------
    folder : Path
        Where they are.
    kind : str
        ``shiny`` or ``dash``.
    files, size : int
        How many, and their bytes.
    sha256 : str
        Of the archive.
    """

    folder: Path
    kind: Kind
    files: int
    size: int
    sha256: str


def incoming(paths: Paths) -> tuple[BinaryIO, Path]:
    """Return a new file for what is being sent, open for writing."""
    handle, name = tempfile.mkstemp(
        prefix=".incoming-", suffix=".zip", dir=private_folder(member_records.store(paths).folder)
    )
    return os.fdopen(handle, "wb"), Path(name)


def room(paths: Paths, size: int) -> list[Problem]:
    """Return what is wrong where the disk has no room for so many bytes."""
    free = member_records.store(paths).free()
    if free is None or size + _SPARE <= free:
        return []
    text = f"the portal's disk has no room for {format_size(size)} more."
    return [Problem("disk", text, "Ask an administrator.")]


@contextmanager
def unpacked(paths: Paths, archive: Path, most: int) -> Iterator[Unpacked]:
    """Give the files of an archive; what has not become a version is removed at the end.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    archive : Path
        A zip file that a member has sent.
    most : int
        Bytes that its files may have together.

    Raises
    ------
    RefusedPublishError
        It is damaged, too large, or holds what no app has.
    """
    folder = Path(
        tempfile.mkdtemp(
            prefix=".unpacked-", dir=private_folder(member_records.store(paths).folder)
        )
    )
    try:
        with archive.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        kind, count, size = _unpack(archive, folder, most)
        make_readable(folder)
        yield Unpacked(folder, kind, count, size, digest)
    finally:
        remove_tree(folder)


def _unpack(archive: Path, folder: Path, most: int) -> tuple[Kind, int, int]:
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [one for one in packed.infolist() if not one.is_dir()]
            problems = list(_entry_problems(entries))
            # What it says of itself first: a bomb is not even begun.
            problems += check_size(len(entries), sum(one.file_size for one in entries), most)
            kind, wrong = kind_of({one.filename for one in entries})
            if problems or wrong or kind is None:
                raise RefusedPublishError([*problems, *wrong])
            size = 0
            for entry in entries:
                place = folder / entry.filename
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with packed.open(entry) as source, place.open("xb") as target:
                    while piece := source.read(_PIECE):
                        size += len(piece)
                        if size > most:
                            raise RefusedPublishError(list(check_size(0, size, most)))
                        target.write(piece)
                    target.flush()
                    os.fsync(target.fileno())
            return kind, len(entries), size
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise RefusedPublishError([Problem("app", f"what arrived is damaged: {error}.")]) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        text = "two of its files cannot be in one folder."
        raise RefusedPublishError([Problem(str(error.filename), text)]) from None


def _entry_problems(entries: list[zipfile.ZipInfo]) -> Iterator[Problem]:
    seen: set[str] = set()
    for entry in entries[: FILES_MOST + 1]:
        name = entry.filename
        if not is_path(name):
            yield Problem(repr(name), "an app has no file of such a name.")
        elif name in seen:
            yield Problem(name, "it is there twice.")
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield Problem(repr(name), "it is no plain file.")
        seen.add(name)
