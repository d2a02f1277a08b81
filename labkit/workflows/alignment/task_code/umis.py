"""UMIs (unique molecular identifiers): which molecule a read is of, from its name or a file.

They go to the aligner as a SAM tag behind each read's name (RX, SAM tags 1.6): aligners write it
into the alignment, and reads at one place with different UMIs are no duplicates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from . import fastq, records

#: Behind the last ':' (bcl-convert) or '_' (umi_tools) of a name; of two UMIs '+' is between.
_IN_NAME = re.compile(rb"[:_]([ACGTNacgtn]+(?:[+-][ACGTNacgtn]+)?)$")
_BASES = re.compile(rb"[ACGTN]+(?:-[ACGTN]+)?")
#: Letters of a UMI: more are a read, not a UMI.
LONGEST = 64
TAG = "RX"


class Umis(Protocol):
    """Tells the UMIs of a file's records, in their order."""

    def take(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the UMI of each of the next records; raise FastqError where there is none."""

    def end(self) -> None:
        """Note the end of the file."""


def of_name(name: bytes) -> bytes:
    """Return the UMI at the end of a read's name; nothing where there is none."""
    match = _IN_NAME.search(fastq.mate_name(name))
    return match[1].upper().replace(b"+", b"-") if match else b""


class FromNames:
    """UMIs at the end of the reads' own names."""

    def __init__(self) -> None:
        self._count = 0

    def take(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the UMI of each name.

        Raises
        ------
        FastqError
            A name has none.
        """
        umis = [of_name(name) for name in names]
        if b"" in umis:
            at = umis.index(b"")
            number = self._count + at + 1
            raise fastq.FastqError(
                f"has a read without UMI: read {number:,} is {records.show(names[at])}"
            )
        self._count += len(umis)
        return umis

    def end(self) -> None:
        """Note the end of the file."""


class FromFile:
    """UMIs from a FASTQ of their own, with a record for each read, or each pair.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self._path = fastq.base_name(path)
        self._reader = fastq.Reader(path)
        self._blocks = self._reader.blocks()
        self._checker = records.Checker()
        self._waiting: list[tuple[bytes, bytes]] = []
        self._at = 0
        self._now = (b"", b"")

    def take(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the UMI of each name: mates in turn share one.

        Raises
        ------
        FastqError
            The names are not those of its records, or a record is no UMI.
        """
        umis = []
        for name in map(fastq.mate_name, names):
            if name != self._now[0]:
                self._now = self._next(name)
            umis.append(self._now[1])
        return umis

    def end(self) -> None:
        """Note the end of the reads, and close the file.

        Raises
        ------
        FastqError
            It has more records.
        """
        more = self._at < len(self._waiting) or self._more()
        self._reader.close()
        if more:
            raise fastq.FastqError(f"has fewer reads than {self._path} has UMIs")

    def _next(self, name: bytes) -> tuple[bytes, bytes]:
        if self._at == len(self._waiting) and not self._more():
            raise fastq.FastqError(f"has more reads than {self._path} has UMIs")
        its, umi = self._waiting[self._at]
        self._at += 1
        if its != name:
            raise fastq.FastqError(
                f"is out of step with its UMIs: {records.show(name)} is "
                f"{records.show(its)} in {self._path}"
            )
        return its, umi

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        self._waiting, self._at = [], 0
        while not self._waiting and self._blocks is not None:
            try:
                block = next(self._blocks, None)
                data, names = self._checker.end() if block is None else self._checker.take(block)
            except fastq.FastqError as error:
                raise fastq.FastqError(f"has UMIs in {self._path}, which {error}") from None
            umis = [bases.upper() for bases in data.split(b"\n")[1::4]]
            wrong = [u for u in umis if not (_BASES.fullmatch(u) and len(u) <= LONGEST)]
            if wrong:
                shown = records.show(wrong[0])
                raise fastq.FastqError(f"has UMIs in {self._path}, where {shown} is none")
            self._waiting = list(zip(map(fastq.mate_name, names), umis))  # noqa: B905 -- 3.9
            if block is None:
                break
        return bool(self._waiting)


def of_lane(source: str) -> Umis | None:
    """Return what tells a lane's UMIs.

    Parameters
    ----------
    source : str
        ``"name"``, the path of a FASTQ, or empty.
    """
    if not source:
        return None
    return FromNames() if source == "name" else FromFile(source)
