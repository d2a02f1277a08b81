"""Files with holes in tar archives: a terabyte of nothing takes no room, in them and after.

The format is GNU tar's for sparse files in PAX archives, version 1.0, which Python's `tarfile`
reads and does not write.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20  # bytes read at once; and the smallest hole that is one
_MOST = 10_000  # pieces of data in one file; with more it is taken as one piece
_PLACE = "./GNUSparseFile.0"  # where a program that knows nothing of holes puts it

Pieces = Sequence[tuple[int, int]]


def pieces(file: IO[bytes]) -> list[tuple[int, int]]:
    """Return where in a file there are data: offsets and lengths in bytes."""
    handle = file.fileno()
    size = os.fstat(handle).st_size
    out: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            return [(0, size)]  # the file system knows no holes
        if start >= size:
            break
        end = min(os.lseek(handle, start, os.SEEK_HOLE), size)
        if out and start - sum(out[-1]) < _PIECE:
            out[-1] = (out[-1][0], end - out[-1][0])
        else:
            out.append((start, end - start))
        if len(out) > _MOST:
            return [(0, size)]
    return out


def add(archive: tarfile.TarFile, info: tarfile.TarInfo, data: IO[bytes], where: Pieces) -> None:
    """Write a file to an archive without its holes.

    Parameters
    ----------
    archive : TarFile
        Open for writing, in the PAX format.
    info : TarInfo
        The file's, with its full size.
    data : file object
        Gives the pieces' bytes one after the other, and nothing of the holes.
    where : sequence of (int, int)
        The pieces (`pieces`).

    Raises
    ------
    OSError
        There are fewer bytes than the pieces say.
    """
    stored = sum(length for _, length in where)
    if stored == info.size:
        archive.addfile(info, data)
        return
    # A last, empty piece says where the file ends.
    numbers = [len(where) + 1, *(number for piece in where for number in piece), info.size, 0]
    table = "".join(f"{number}\n" for number in numbers).encode()
    table += bytes(-len(table) % _BLOCK)
    sparse = tarfile.TarInfo(f"{_PLACE}/{Path(info.name).name}")
    sparse.size, sparse.mode, sparse.mtime = len(table) + stored, info.mode, info.mtime
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    archive.addfile(sparse, cast(IO[bytes], _Both(table, data)))


class Data(io.RawIOBase):
    """The pieces of an open file, one after the other.

    Parameters
    ----------
    file : file object
        Can be read at any place.
    where : sequence of (int, int)
        The pieces.
    """

    def __init__(self, file: IO[bytes], where: Pieces) -> None:
        super().__init__()
        self._file = file
        self._left = [piece for piece in where if piece[1]]

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes, fewer only at the end."""
        out = bytearray()
        while self._left and (size < 0 or len(out) < size):
            start, length = self._left[0]
            wanted = min(length, _PIECE if size < 0 else size - len(out))
            self._file.seek(start)
            data = self._file.read(wanted)
            if not data:
                break  # it was cut off meanwhile
            out += data
            rest = (start + len(data), length - len(data))
            self._left[:1] = [rest] if rest[1] else []
        return bytes(out)


class _Both(io.RawIOBase):
    """Bytes, then a stream."""

    def __init__(self, first: bytes, then: IO[bytes]) -> None:
        super().__init__()
        self._first, self._then = io.BytesIO(first), then

    def read(self, size: int = -1) -> bytes:
        out = self._first.read(size)
        return out + self._then.read(size - len(out) if size >= 0 else -1)


def copy(source: tarfile.TarFile, member: tarfile.TarInfo, target: tarfile.TarFile) -> None:
    """Copy a file from one archive, which can be read at any place, to another.

    Parameters
    ----------
    source, target : TarFile
        The archives; ``source`` is not compressed.
    member : TarInfo
        The file, as it shall be in ``target``; read from ``source``.
    """
    content = source.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name!r} is no file")
    where = [piece for piece in _pieces_of(member) if piece[1]]
    info = tarfile.TarInfo(member.name)
    info.size, info.mode, info.mtime = member.size, member.mode, member.mtime
    add(target, info, cast(IO[bytes], Data(content, where)), where)


def extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: IO[bytes]) -> None:
    """Write a file of an archive, with its holes, to an empty file.

    Parameters
    ----------
    archive : TarFile
        May be a stream that is read once, from its start.
    member : TarInfo
        The file; nothing after it was read yet.
    target : file object
        Empty.
    """
    content = archive.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name!r} is no file")
    for start, length in _pieces_of(member):
        target.seek(start)
        content.seek(start)
        left = length
        while left:
            data = content.read(min(left, _PIECE))
            if not data:
                raise tarfile.ReadError(f"{member.name!r} is cut off")
            target.write(data)
            left -= len(data)
    target.truncate(member.size)


def _pieces_of(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    # Typed as a number in Python's stubs; it is a list.
    return cast(list[tuple[int, int]], member.sparse) or [(0, member.size)]
