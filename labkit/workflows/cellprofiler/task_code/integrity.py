"""Find image files that are cut off, by their headers alone: no pixel is decoded."""

from __future__ import annotations

import struct
from operator import add
from pathlib import Path

# Bytes of one value of each TIFF field type (TIFF 6.0, section 2; 16 to 18 are BigTIFF's).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PLANES = 100_000


def problem(path: Path) -> str | None:
    """Say what is wrong with an image file, or None.

    TIFF and BigTIFF: every directory, and that each strip or tile lies inside the file. PNG: its
    end is there. Other formats: the file is there and not empty.

    Parameters
    ----------
    path : Path
        The image file.

    Returns
    -------
    str or None
        For example ``"truncated: 4096 of 1008766 bytes are there"``.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            return "it is not a file"
        if size == 0:
            return "the file is empty"
        with path.open("rb") as file:
            head = file.read(16)
            if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return _Tiff(file, head, size).problem()
            if head.startswith(_PNG):
                file.seek(max(0, size - 12))
                return None if b"IEND" in file.read(12) else "truncated: a PNG without its end"
        if path.suffix.lower() in (".tif", ".tiff"):
            return "not a TIFF file, despite its name"
        if path.suffix.lower() == ".png":
            return "not a PNG file, despite its name"
    except FileNotFoundError:
        return "the file does not exist"
    except PermissionError:
        return "no permission to read the file"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


class _Tiff:
    """One TIFF file's directories."""

    def __init__(self, file: object, head: bytes, size: int) -> None:
        self.file, self.size = file, size
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        self.head = head
        self.end = 0

    def problem(self) -> str | None:
        word = "Q" if self.big else "I"
        place = 8 if self.big else 4
        need = place + struct.calcsize(word)
        if len(self.head) < need:
            return f"truncated: only {self.size} bytes are there"
        (offset,) = struct.unpack_from(self.order + word, self.head, place)
        planes = 0
        seen = set()
        while offset:
            if offset in seen or planes > _MAX_PLANES:
                return "damaged: its directories run in a circle"
            seen.add(offset)
            try:
                offset = self._directory(offset)
            except (struct.error, EOFError):
                return f"truncated: a directory lies beyond its {self.size} bytes"
            planes += 1
        if not planes:
            return "damaged: it holds no image"
        if self.end > self.size:
            return f"truncated: {self.size} of at least {self.end} bytes are there"
        if self.end == 0:
            return "damaged: it holds no pixels"
        return None

    def _read(self, offset: int, count: int) -> bytes:
        if offset + count > self.size:
            raise EOFError
        self.file.seek(offset)  # type: ignore[attr-defined]
        data: bytes = self.file.read(count)  # type: ignore[attr-defined]
        if len(data) < count:
            raise EOFError
        return data

    def _directory(self, offset: int) -> int:
        """Read one directory, note where its pixels end, and return the next one's offset."""
        count_format, entry_size, word = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        width = struct.calcsize(count_format)
        (count,) = struct.unpack(self.order + count_format, self._read(offset, width))
        if count > 4096:
            raise EOFError
        body = self._read(offset + width, count * entry_size + struct.calcsize(word))
        fields = {}
        for index in range(count):
            tag, kind = struct.unpack_from(self.order + "HH", body, index * entry_size)
            if tag in (_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS):
                fields[tag] = self._values(kind, body, index * entry_size + 4, word)
        for where, length in ((_STRIP_OFFSETS, _STRIP_COUNTS), (_TILE_OFFSETS, _TILE_COUNTS)):
            # not zip(): the node may have Python 3.9, without its strict=
            ends = map(add, fields.get(where, ()), fields.get(length, ()))
            self.end = max(self.end, max(ends, default=0))
        (following,) = struct.unpack_from(self.order + word, body, count * entry_size)
        return int(following)

    def _values(self, kind: int, body: bytes, at: int, word: str) -> tuple[int, ...]:
        (count,) = struct.unpack_from(self.order + word, body, at)
        at += struct.calcsize(word)
        total = count * _SIZES.get(kind, 1)
        if total > struct.calcsize(word):
            (offset,) = struct.unpack_from(self.order + word, body, at)
            data = self._read(offset, total)
        else:
            data = body[at : at + total]
        letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if letter is None:
            return ()
        return struct.unpack(f"{self.order}{count}{letter}", data)
