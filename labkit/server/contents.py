"""Files as JupyterLab reads and saves them: a save that fails leaves what was there.

Jupyter empties a file before it writes it anew, and loses it where the disk is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado import web

from labkit.base import files
from labkit.server import trash

_NEXT = {
    errno.ENOSPC: "There is no room left. Delete what you need no more, or move it elsewhere: "
    "`du -ah ~ | sort -h | tail` in a terminal names the largest.",
    errno.EROFS: "This folder can be read only. Save a copy in your home.",
}
_NEXT[errno.EDQUOT] = _NEXT[errno.ENOSPC]


class LabContents(AsyncLargeFileManager):
    """Files of this machine; saved whole or not at all."""

    @contextlib.contextmanager
    def perm_to_403(self, os_path: str = "") -> Iterator[None]:
        """Turn what the file system refuses into a sentence with the next step."""
        try:
            with super().perm_to_403(os_path):
                yield
        except OSError as error:
            if error.errno not in _NEXT:
                raise
            name = Path(os_path or error.filename or "").name
            text = f"{name} was not saved. {_NEXT[error.errno]}"
            raise web.HTTPError(507, text, reason="No room left") from error

    async def delete_file(self, path: str) -> None:
        """Delete a file or folder: into the trash, which is kept small."""
        await super().delete_file(path)  # type: ignore[no-untyped-call]
        with contextlib.suppress(OSError):
            for name in await asyncio.to_thread(trash.tidy):
                self.log.info("Deleted for good: %s", name)

    @contextlib.contextmanager
    def atomic_writing(
        self, os_path: str, text: bool = True, encoding: str = "utf-8", **_: Any
    ) -> Iterator[IO[Any]]:
        """Open a file to be written; it takes the old one's place when all of it is on the disk.

        Parameters
        ----------
        os_path : str
            The file.
        text : bool
            Text or bytes.
        encoding : str
            Of text.
        """
        place = Path(os.path.realpath(os_path))
        with self.perm_to_403(os_path), _beside(place) as temporary:
            mode = {"mode": "w", "encoding": encoding, "newline": "\n"} if text else {"mode": "wb"}
            with temporary.open(**mode) as file:  # type: ignore[call-overload]
                yield file
            files.sync_path(temporary)
            _take_place(temporary, place)


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """Yield a new file, beside another where its folder is open; what is left of it goes."""
    folder = place.parent if os.access(place.parent, os.W_OK) else Path(tempfile.gettempdir())
    temporary = folder / f".~{place.name[:200]}.{secrets.token_hex(4)}"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _take_place(temporary: Path, place: Path) -> None:
    """Put a file in another's place, with its permissions."""
    try:
        old = place.stat()
    except FileNotFoundError:
        temporary.replace(place)
        return
    own = old.st_uid == os.geteuid() and old.st_nlink == 1 and temporary.parent == place.parent
    if own and not _has_acl(place):
        temporary.chmod(stat.S_IMODE(old.st_mode))
        temporary.replace(place)
        return
    # Somebody else's in a shared folder, or one with several names: it stays the same file.
    with place.open("r+b") as target, temporary.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        try:
            os.posix_fallocate(target.fileno(), 0, max(size, 1))  # all the room, or none of it
        except OSError:
            target.truncate(old.st_size)
            raise
        shutil.copyfileobj(source, target)
        target.truncate()
    files.sync_path(place)


def _has_acl(place: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:  # a file system without such things
        return False
