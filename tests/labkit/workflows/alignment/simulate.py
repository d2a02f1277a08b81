"""Genomes and reads whose truth is known: where each read came from, which are copies."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ADAPTER_1 = b"AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"
ADAPTER_2 = b"AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT"
_BASES = np.frombuffer(b"ACGT", "u1")
_COMPLEMENT = np.zeros(256, "u1")
_COMPLEMENT[list(b"ACGTN")] = list(b"TGCAN")


@dataclass(frozen=True)
class Genome:
    """Contigs of random bases."""

    contigs: Mapping[str, np.ndarray]

    @classmethod
    def random(cls, lengths: Mapping[str, int], seed: int = 1) -> Genome:
        generator = np.random.default_rng(seed)
        return cls({n: _BASES[generator.integers(0, 4, size)] for n, size in lengths.items()})

    def write(self, path: Path, width: int = 70) -> Path:
        with path.open("wb") as file:
            for name, bases in self.contigs.items():
                file.write(f">{name} simulated\n".encode())
                text = bases.tobytes()
                file.writelines(text[i : i + width] + b"\n" for i in range(0, len(text), width))
        return path


@dataclass
class Truth:
    """What is known of simulated reads.

    Attributes
    ----------
    places : dict
        Name of a pair -> (contig, start of the fragment from 0, its length, reversed).
    """

    places: dict[str, tuple[str, int, int, bool]] = field(default_factory=dict)

    @property
    def copies(self) -> int:
        """Pairs that are another's copy: same place, same length."""
        return len(self.places) - len({place[:3] for place in self.places.values()})


def pairs(
    genome: Genome,
    folder: Path,
    count: int,
    *,
    name: str = "s",
    lanes: Sequence[str] = ("L1",),
    length: int = 100,
    copies: float = 0.1,
    errors: float = 0.002,
    insert: tuple[float, float] = (220.0, 60.0),
    shortest: int = 40,
    seed: int = 7,
) -> tuple[list[dict[str, str]], Truth]:
    """Write pairs of reads, split over lanes; return the rows of a sample sheet and the truth.

    Fragments shorter than a read run on into the adapters.
    """
    generator = np.random.default_rng(seed)
    unique = count - int(count * copies)
    names = list(genome.contigs)
    sizes = np.array([len(genome.contigs[n]) for n in names], float)
    contig = generator.choice(len(names), unique, p=sizes / sizes.sum())
    size = np.clip(generator.normal(*insert, unique), shortest, 2.5 * insert[0]).astype(int)
    start = (generator.random(unique) * (sizes[contig] - size)).astype(int)
    flipped = generator.integers(0, 2, unique).astype(bool)
    chosen = generator.permutation(
        np.concatenate([np.arange(unique), generator.integers(0, unique, count - unique)])
    )
    truth = Truth()
    rows = []
    for number, lane in enumerate(lanes):
        files = [folder / f"{name}_{lane}_{mate}.fastq.gz" for mate in (1, 2)]
        texts: tuple[list[bytes], list[bytes]] = ([], [])
        for index in range(number, count, len(lanes)):
            which = chosen[index]
            place = (names[contig[which]], int(start[which]), int(size[which]))
            head = f"A00001:1:FC1:{number + 1}:{1101 + index % 20}:{index % 30000}:{index}"
            truth.places[head] = (*place, bool(flipped[which]))
            piece = genome.contigs[place[0]][place[1] : place[1] + place[2]]
            ends = [piece, _COMPLEMENT[piece[::-1]]]
            if flipped[which]:
                ends.reverse()
            for mate, adapter in enumerate((ADAPTER_1, ADAPTER_2)):
                read = _read(ends[mate], adapter, length, errors, generator)
                quality = bytes(generator.integers(33 + 25, 33 + 40, length).astype("u1"))
                texts[mate].append(b"@%b %d:N:0:ACGT\n" % (head.encode(), mate + 1))
                texts[mate].append(b"%b\n+\n%b\n" % (read, quality))
        for path, text in zip(files, texts, strict=True):
            path.write_bytes(gzip.compress(b"".join(text), 1))
        row = {"sample": name, "lane": lane}
        rows.append(row | {f"fastq_{mate + 1}": str(path) for mate, path in enumerate(files)})
    return rows, truth


def _read(
    piece: np.ndarray, adapter: bytes, length: int, errors: float, generator: np.random.Generator
) -> bytes:
    read = np.frombuffer((piece.tobytes() + adapter + b"A" * length)[:length], "u1").copy()
    wrong = generator.random(length) < errors
    read[wrong] = _BASES[(np.searchsorted(_BASES, read[wrong]) + 1) % 4]
    return bytes(read)


def long_reads(
    genome: Genome, path: Path, count: int, *, length: int = 3000, seed: int = 9
) -> dict[str, tuple[str, int]]:
    """Write long reads with errors of all kinds; return their true places."""
    generator = np.random.default_rng(seed)
    names = list(genome.contigs)
    places = {}
    with gzip.open(path, "wb", 1) as file:
        for number in range(count):
            name = names[number % len(names)]
            bases = genome.contigs[name]
            start = int(generator.integers(0, len(bases) - length))
            piece = bases[start : start + length]
            kept = piece[generator.random(length) > 0.02]
            wrong = generator.random(len(kept)) < 0.03
            kept = kept.copy()
            kept[wrong] = _BASES[generator.integers(0, 4, int(wrong.sum()))]
            text = kept.tobytes()
            head = f"read{number}"
            places[head] = (name, start)
            file.write(b"@%b\n%b\n+\n%b\n" % (head.encode(), text, b"5" * len(text)))
    return places
