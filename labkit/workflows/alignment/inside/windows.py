"""The depth of each base, as ``samtools depth`` tells it, in windows; and kept, where asked for.

There is a line for each covered base of a genome: pyarrow reads them many times as fast as a
loop could.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_BLOCK = 1024 * 1024


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
    rest = b""
    for block in _blocks(source):
        if packed:
            packed.write(block)
        end = block.rfind(b"\n") + 1
        if end:
            _add(rest + block[:end], window, sums, covered)
            rest = b""
        rest += block[end:]
    if packed:
        packed.close()
    with target.open("w") as file:
        print("contig", "start", "end", "mean_depth", "covered", sep="\t", file=file)
        for name, length in contigs.items():
            for number in numpy.flatnonzero(sums[name]).tolist():
                start, end = number * window, min((number + 1) * window, length)
                mean = sums[name][number] / (end - start)
                print(name, start, end, f"{mean:.4f}", covered[name][number], sep="\t", file=file)


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
    csv, numpy, pyarrow = map(import_module, ("pyarrow.csv", "numpy", "pyarrow"))
    names = ["contig", "position", "depth"]
    kinds = [pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), *2 * [pyarrow.int64()]]
    table = csv.read_csv(
        io.BytesIO(lines),
        csv.ReadOptions(column_names=names, use_threads=False, block_size=4 * len(lines) + 1024),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types=dict(zip(names, kinds))),  # noqa: B905 -- Python 3.9
    ).combine_chunks()
    contig = table["contig"].chunk(0)
    codes = contig.indices.to_numpy()
    depth = table["depth"].to_numpy()
    place = (table["position"].to_numpy() - 1) // window
    for code, name in enumerate(contig.dictionary.to_pylist()):
        here = codes == code
        first = int(place[here].min())
        found = numpy.bincount(place[here] - first, weights=depth[here])
        bases = numpy.bincount(place[here] - first, weights=depth[here] > 0)
        sums[name][first : first + len(found)] += found
        covered[name][first : first + len(bases)] += bases.astype("int64")


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
