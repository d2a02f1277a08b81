"""The lab's tutorials: copied into the user's home once, the user's own from then on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path

from labkit.base import files

NAME = "tutorials"
_STAMP = "tutorials.json"
_MOST_FILES = 200
_MOST_BYTES = 20 << 20
_KINDS = frozenset({".ipynb", ".md", ".py", ".csv", ".txt"})


def copy_in(source: Path, home: Path, state: Path) -> list[str]:
    """Copy the tutorials that this home has never had.

    What the user changed or deleted stays so; a stamp in ``state`` remembers what was given.

    Parameters
    ----------
    source : Path
        Folder of the lab's notebooks.
    home : Path
        The user's home; they go into ``tutorials/``.
    state : Path
        Folder for the stamp, of the user alone.

    Returns
    -------
    list of str
        Names of the files that were copied now.

    Raises
    ------
    OSError
        The home cannot be written, or ``tutorials`` is no folder.
    """
    stamp = state / _STAMP
    given = _given(stamp)
    new = [path for path in _offered(source) if _key(source, path) not in given]
    if not new:
        return []
    copied = []
    # The folder is held by a descriptor: nothing that is planted later can redirect a copy.
    target = _open_folder(home)
    try:
        for path in new:
            name = path.relative_to(source).as_posix()
            if _write(target, name, path.read_bytes()):
                copied.append(name)
            given.add(_key(source, path))
    finally:
        os.close(target)
        _remember(stamp, given)
    return copied


def _offered(source: Path) -> list[Path]:
    found = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        hidden = any(part.startswith((".", "_")) for part in name.parts)
        if hidden or path.suffix not in _KINDS or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size <= _MOST_BYTES:
            found.append(path)
    return found[:_MOST_FILES]


def _key(source: Path, path: Path) -> str:
    # By name alone: a new edition of a tutorial must not come back beside the user's own.
    return hashlib.sha256(path.relative_to(source).as_posix().encode()).hexdigest()[:16]


def _given(stamp: Path) -> set[str]:
    try:
        return set(map(str, json.loads(stamp.read_text(encoding="utf-8"))["given"]))
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _remember(stamp: Path, given: set[str]) -> None:
    files.write_atomic(stamp, json.dumps({"given": sorted(given)}))


def _open_folder(home: Path) -> int:
    base = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _enter(base, NAME)
    finally:
        os.close(base)


def _enter(folder: int, name: str) -> int:
    """Open a folder in a folder; made where it is missing, refused where it is a link."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)


def _write(folder: int, name: str, content: bytes) -> bool:
    """Write a file below a folder; return False where something of that name is there."""
    *parts, last = name.split("/")
    open_folders = []
    try:
        for part in parts:
            folder = _enter(folder, part)
            open_folders.append(folder)
        if _exists(folder, last):
            return False
        # Under another name first: a half-written notebook must never be seen.
        temporary = f".{last}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        handle = os.open(temporary, flags, 0o644, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.link(temporary, last, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary, dir_fd=folder)
        return True
    finally:
        for handle in open_folders:
            os.close(handle)


def _exists(folder: int, name: str) -> bool:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    return bool(stat.S_IFMT(mode))
