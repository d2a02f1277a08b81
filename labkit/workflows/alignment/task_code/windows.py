"""The depth of each base, as ``samtools depth`` tells it, in windows; and kept, where asked for.

There is a line for each covered base of a genome: pyarrow reads them many times as fast as a
loop could.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_BLOCK = 256 * 1024  # larger ones cost more in new memory than they save


def collect(source: int, contigs: dict[str, int], window: int, target: Path, kept: Any) -> None:
    """Write the windows of a stream of depths.

    Parameters
    ----------
    source : int
        End of a pipe: contig, position from 1, depth; covered bases only.
    contigs : dict of str to int
        Lengths, in the reference's order.
    window : int
        Bases of a window.
    target : Path
        ``windows.tsv``, see ``layout.py``; windows without any reads are left out.
    kept : Path or None
        File for all of the stream, by gzip.
    """
    numpy = import_module("numpy")
    places = {name: -(-length // window) for name, length in contigs.items()}
    sums = {name: numpy.zeros(count) for name, count in places.items()}
    covered = {name: numpy.zeros(count, "int64") for name, count in places.items()}
    packed = _Packed(kept) if kept else None
    for lines in whole_lines(source, packed):
        _add(lines, window, sums, covered)
    if packed:
        packed.close()
    with target.open("w") as file:
        print("contig", "start", "end", "mean_depth", "covered", sep="\t", file=file)
        for name, length in contigs.items():
            for number in numpy.flatnonzero(sums[name]).tolist():
                start, end = number * window, min((number + 1) * window, length)
                mean = sums[name][number] / (end - start)
                print(name, start, end, f"{mean:.4f}", covered[name][number], sep="\t", file=file)


def whole_lines(source: int, packed: _Packed | None = None) -> Iterator[bytes]:
    """Give what is read from a pipe in blocks of whole lines; pack it, too, where asked for."""
    rest = b""
    for block in _blocks(source):
        if packed:
            packed.write(block)
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = b""
        rest += block[end:]


def _blocks(source: int) -> Iterator[bytes]:
    """Give what is read in large blocks: a pipe gives small ones, and each costs its parsing."""
    parts: list[bytes] = []
    size = 0
    while part := os.read(source, _BLOCK):
        parts.append(part)
        size += len(part)
        if size >= _BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _add(lines: bytes, window: int, sums: dict[str, Any], covered: dict[str, Any]) -> None:
    """Add lines to the windows that they lie in."""
    numpy = import_module("numpy")
    for name, position, depth in contigs_of(lines):
        place = (position - 1) // window
        starts = numpy.flatnonzero(numpy.diff(place, prepend=-1))  # lines are in order
        sums[name][place[starts]] += numpy.add.reduceat(depth, starts)
        covered[name][place[starts]] += numpy.add.reduceat(depth > 0, starts, dtype="int64")


def contigs_of(lines: bytes) -> Iterator[tuple[str, Any, Any]]:
    """Give contig, positions and depths of lines; those of a contig are together."""
    csv, pyarrow = map(import_module, ("pyarrow.csv", "pyarrow"))
    names = ["contig", "position", "depth"]
    begin = 0
    while begin < len(lines):
        contig = lines[begin : lines.index(b"\t", begin) + 1]
        last = max(begin, lines.rfind(b"\n" + contig, begin) + 1)
        end = lines.index(b"\n", last) + 1
        table = csv.read_csv(
            pyarrow.BufferReader(lines[begin:end]),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=end - begin + 1024),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names[1:], pyarrow.int64()), include_columns=names[1:]
            ),
        ).combine_chunks()
        yield contig[:-1].decode(), table["position"].to_numpy(), table["depth"].to_numpy()
        begin = end


class _Packed:
    """A gzip file."""

    def __init__(self, path: Path) -> None:
        try:  # several times as fast
            maker: Any = import_module("isal.isal_zlib")
        except ImportError:
            maker = zlib
        self._packer = maker.compressobj(1, wbits=31)
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        """Add data."""
        self._file.write(self._packer.compress(data))

    def close(self) -> None:
        """End the file."""
        self._file.write(self._packer.flush())
        self._file.close()
