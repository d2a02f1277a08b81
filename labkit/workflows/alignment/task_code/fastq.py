"""FASTQ files: read them whole with their integrity proved, or only look at their beginning.

Plain or gzip (also in blocks, as bgzip writes it), from a path or ``s3://``.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple

from . import objects

BLOCK = 1024 * 1024
_GZIP = b"\x1f\x8b"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
# The empty block that ends a file of bgzip's (SAM specification, 4.1.2).
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
#: Letters of bases, as any aligner takes them; what is none of A, C, G and T is N to it.
BASES = b"ACGTUNRYKMSWBDHVacgtunrykmswbdhv.*-"
_BASES = re.compile(rb"[%s]*" % re.escape(BASES))
_QUALITY = re.compile(rb"[!-~]*")
_HEAD = re.compile(rb"@[\t -~]*")
# Names of reads in SAM (specification, 1.4): at most 254 characters, the first no '@'.
_NAME = re.compile(rb"[!-?A-~][!-~]{0,253}")
_OLD_MATE = re.compile(rb"(.+)/([12])")
#: Characters of a read's name, at most.
LONGEST_NAME = 254
_SANGER_HIGH = ord("K")  # Q42: no sequencer told more with Phred+33 and nothing low beside it
_SOLEXA_LOW = ord(";")  # the lowest of Phred+64
_NEW_MATE = re.compile(rb"([12]):[YN]:")


class FastqError(Exception):
    """It is no FASTQ, or not whole; the text says where."""


class Head(NamedTuple):
    """What the beginning of a FASTQ says.

    Attributes
    ----------
    names : list of bytes
        Names of the first reads, without mate.
    mates : set of int
        Which mate they say they are: 1, 2, or nothing.
    longest : int
        Bases of the longest of them.
    bytes_per_read : float
        Of the file as it lies there, compressed or not.
    lowest, highest : int
        Characters of the lowest and of the highest base quality, as numbers.
    rna : bool
        Whether it has U, and no T.
    order : list of int
        Which mate each read says it is; 0: it does not.
    """

    names: list[bytes]
    mates: set[int]
    longest: int
    bytes_per_read: float
    lowest: int
    highest: int
    rna: bool
    order: list[int]


class Reader:
    """A FASTQ's bytes, uncompressed, and how much of the file they were.

    Parameters
    ----------
    path : str
        Path or ``s3://``.

    Attributes
    ----------
    size, taken : int
        Bytes of the file, and how many were read of it.
    given : int
        Uncompressed bytes that :func:`look` took.

    Raises
    ------
    OSError
        It cannot be opened.
    FastqError
        It is compressed in another way than by gzip.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size: int = objects.size(path)
        self.taken = 0
        self.given = 0
        self._file: BinaryIO = objects.open_bytes(path)
        start = self._file.peek(6)[:6] if hasattr(self._file, "peek") else b""
        for magic, name in _OTHERS.items():
            if start.startswith(magic):
                self._file.close()
                raise FastqError(f"is compressed by {name}; only gzip is read")
        self.compressed = start.startswith(_GZIP)
        counted = _Counted(self)
        self._stream: Any = _gzip_file(counted) if self.compressed else counted

    def take(self, wanted: int) -> bytes:
        """Read from the file itself."""
        data = self._file.read(wanted)
        self.taken += len(data)
        return data

    def blocks(self) -> Iterator[bytes]:
        """Give the uncompressed content.

        Raises
        ------
        FastqError
            The file is cut off or damaged: gzip's own check sums say so.
        """
        while True:
            try:
                block = self._stream.read(BLOCK)
            except EOFError:
                raise FastqError(
                    f"is cut off: its gzip data ends in the middle, at byte {self.taken:,}"
                ) from None
            except (zlib.error, OSError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise
                raise FastqError(f"is damaged near byte {self.taken:,}: {error}") from None
            except Exception as error:
                if type(error).__name__ != "IsalError":
                    raise
                raise FastqError(f"is damaged near byte {self.taken:,}: {error}") from None
            if not block:
                return
            yield block

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Counted(io.RawIOBase):
    """The file as gzip reads it: bytes that were taken are counted."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._reader.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _gzip_file(file: Any) -> Any:
    try:  # several times as fast
        return import_module("isal.igzip").IGzipFile(fileobj=file, mode="rb")
    except ImportError:
        return gzip.GzipFile(fileobj=file, mode="rb")


def look(path: str, records: int = 1000) -> Head:
    """Read the first records.

    Raises
    ------
    FastqError
        They are no FASTQ; the text says where.
    OSError
        The file cannot be read.
    """
    reader = Reader(path)
    try:
        if reader.size == 0:
            raise FastqError("is empty")
        lines = _lines(reader, 4 * records)
    finally:
        reader.close()
    if not lines:
        raise FastqError("holds no reads")
    names: list[bytes] = []
    order: list[int] = []
    longest = used = 0
    for at in range(0, len(lines), 4):
        record = lines[at : at + 4]
        name, mate = check_record(record, at // 4 + 1)
        names.append(name)
        order.append(mate)
        longest = max(longest, len(record[1]))
        used += sum(len(line) + 1 for line in record)
    share = reader.taken / max(1, reader.given) if reader.compressed else 1.0
    qualities = b"".join(lines[3::4]) or b"!"
    letters = set(b"".join(lines[1::4]).upper())
    return Head(
        names,
        set(order) - {0},
        longest,
        max(1.0, used / len(names) * share),
        min(qualities),
        max(qualities),
        ord("U") in letters and ord("T") not in letters,
        order,
    )


def check_record(record: list[bytes], number: int) -> tuple[bytes, int]:
    """Check one record and return its name and which mate it says it is (0: it does not).

    Raises
    ------
    FastqError
        It is no record of four lines.
    """
    where = f"read {number:,}"
    if record and not record[0].startswith(b"@"):
        shown = record[0][:30].decode("ascii", "replace")
        raise FastqError(f"is no FASTQ: {where} begins with {shown!r} instead of '@'")
    if len(record) < 4:
        raise FastqError(f"{where} is not whole: the file is cut off")
    head, bases, plus, quality = record
    if not plus.startswith(b"+"):
        raise FastqError(f"is no FASTQ of four lines a read: {where} has no '+' in its third line")
    if len(bases) != len(quality):
        raise FastqError(f"{where} has {len(bases)} bases and {len(quality)} qualities")
    if not _BASES.fullmatch(bases):
        raise FastqError(f"{where} holds letters that are no bases")
    if not _QUALITY.fullmatch(quality):
        raise FastqError(f"{where} has a base quality outside of '!' to '~'")
    if not _HEAD.fullmatch(head):
        raise FastqError(f"{where} has a character in its name that is no plain ASCII")
    name, _, comment = head[1:].partition(b" ")
    name = name.split(b"\t")[0]
    if len(name) > LONGEST_NAME:
        text = f"{where} has a name of {len(name)} characters; BAM takes {LONGEST_NAME}"
        raise FastqError(text)
    if not _is_name(name):
        shown = name[:30].decode("ascii", "replace")
        raise FastqError(f"{where} has no name that BAM takes: {shown!r}")
    if old := _OLD_MATE.fullmatch(name):
        return old[1], int(old[2])
    new = _NEW_MATE.match(comment)
    return name, int(new[1]) if new else 0


def old_qualities(lowest: int, highest: int) -> str:
    """Say that qualities are of the old kind, Phred+64; empty where they are not.

    Parameters
    ----------
    lowest, highest : int
        Characters of the lowest and of the highest quality of short reads, as numbers.
    """
    if lowest < _SOLEXA_LOW or highest <= _SANGER_HIGH:
        return ""
    return (
        f"has base qualities from {chr(lowest)!r} to {chr(highest)!r}: they are Phred+64, of "
        "Illumina before version 1.8"
    )


def _is_name(name: bytes) -> bool:
    """Whether SAM takes it as a name of a read."""
    return _NAME.fullmatch(name) is not None


def mate_name(name: bytes) -> bytes:
    """Return a read's name without ``/1`` and ``/2``, as aligners compare them."""
    old = _OLD_MATE.fullmatch(name)
    return old[1] if old else name


def end_problem(path: str) -> str | None:
    """Say what is wrong with the end of a file, as far as that is cheap to know.

    bgzip's files end with a marker; plain ones with a whole record. What other gzip files hold is
    only known when they are read to their end.

    Returns
    -------
    str or None
        None where nothing is wrong, or nothing is known.
    """
    if objects.is_object(path):
        return None
    size = objects.size(path)
    with objects.open_bytes(path) as file:
        start = file.read(18)
        file.seek(max(0, size - 64 * 1024))
        end = file.read()
    if start.startswith(_GZIP):
        in_blocks = len(start) == 18 and start[3] & 4 and start[12:14] == b"BC"
        if in_blocks and not end.endswith(_BGZF_END):
            return f"is cut off: the end mark of its {size:,} bytes is missing"
        return None
    lines = [line.rstrip(b"\r") for line in end.rstrip(b"\r\n").split(b"\n")]
    in_sight = len(lines) > 4 or (len(lines) == 4 and size <= len(end))
    # a last read without bases ends with an empty line of its own
    if in_sight and not any(_is_record(last[-4:]) for last in (lines, [*lines, b""])):
        return "is cut off: its last read is not whole"
    return None


def _is_record(record: list[bytes]) -> bool:
    try:
        check_record(record, 1)
    except FastqError:
        return False
    return True


def _lines(reader: Reader, wanted: int) -> list[bytes]:
    data = b""
    ended = True
    for block in reader.blocks():
        data += block
        reader.given = len(data)
        if data.count(b"\n") >= wanted:
            ended = False
            break
    lines = data.split(b"\n")
    if lines[-1] == b"" or not ended:
        lines.pop()
    lines = [line[:-1] if line.endswith(b"\r") else line for line in lines[:wanted]]
    records = [lines[at : at + 4] for at in range(0, len(lines), 4)]
    while ended and records and not any(records[-1]):  # empty lines at the end
        records.pop()
    return [line for record in records for line in record]


def base_name(path: str) -> str:
    """Return a file's name, for people."""
    return os.path.basename(path) or path  # noqa: PTH119 -- it may be s3://
