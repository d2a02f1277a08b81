"""Reads whose truth is known: a made-up genome, its variants, duplicates and errors.

The tutorial aligns them, the tests compare with the truth, the benchmark measures on them.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_BASES = np.frombuffer(b"ACGT", np.uint8)
_COMPLEMENT = np.zeros(256, np.uint8)
_COMPLEMENT[_BASES] = np.frombuffer(b"TGCA", np.uint8)
_ADAPTERS = (b"AGATCGGAAGAGCACACGTCTGAACTCCAGTCA", b"AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT")
_CHUNK = 50_000  # pairs that are made at once

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """What was made.

    Attributes
    ----------
    folder : Path
        Everything is in it.
    reference : Path
        FASTA.
    samples : Path
        The sample sheet.
    known_sites : Path
        VCF of most of the variants, as a database would have them.
    variants : DataFrame
        Truth: ``contig``, ``position`` (from 1), ``ref``, ``alt``, ``genotype``, ``known``.
    fragments : dict of str to DataFrame
        Truth by sample: ``name``, ``contig``, ``start`` (from 0), ``length``, ``duplicate``.
    """

    folder: Path
    reference: Path
    samples: Path
    known_sites: Path
    variants: pd.DataFrame
    fragments: dict[str, pd.DataFrame]


def make(
    folder: str | Path,
    *,
    samples: Sequence[str] = ("tumbler",),
    lanes: int = 1,
    pairs: int = 10_000,
    contigs: Sequence[int] = (50_000,),
    snps: int = 100,
    ploidy: int = 1,
    duplicates: float = 0.05,
    insert_size: tuple[float, float] = (300.0, 50.0),
    read_length: int = 100,
    overstated: float = 0.0,
    genome_from: str | Path | None = None,
    seed: int = 2026,
) -> Example:
    """Make a genome and the reads of samples that all carry the same variants.

    Parameters
    ----------
    folder : str or Path
        Where the files go; made where it is not there.
    samples : sequence of str
        Names.
    lanes : int
        Lanes of each sample.
    pairs : int
        Pairs of reads of each sample, over all lanes.
    contigs : sequence of int
        Lengths in bases.
    snps : int
        Places where the samples differ from the reference; nine in ten are known.
    ploidy : int
        1 or 2: with 2 half of the variants are heterozygous.
    duplicates : float
        Share of the pairs that are copies of others.
    insert_size : (float, float)
        Mean and standard deviation of the fragments' lengths, in bases; where they are shorter
        than a read, it runs into the adapter.
    read_length : int
        Bases.
    overstated : float
        How much better the reported qualities are than the true ones (Phred).
    genome_from : str or Path, optional
        FASTA of a real genome, taken instead of one of random bases; ``contigs`` is unused then.
    seed : int
        The same seed makes the same files.

    Raises
    ------
    ValueError
        A real genome has letters beside A, C, G and T.
    """
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    if genome_from:
        genome = _read_fasta(Path(genome_from))
    else:
        genome = {f"contig{n}": random.choice(_BASES, size) for n, size in enumerate(contigs, 1)}
    variants = _choose_variants(genome, snps, ploidy, random)
    haplotypes = [_apply(genome, variants, copy) for copy in range(ploidy)]
    _write_fasta(place / "reference.fa", genome)
    _write_sites(place / "known_sites.vcf", genome, variants[variants["known"]])
    rows, fragments = [], {}
    for sample in samples:
        truth = _choose_fragments(haplotypes, pairs, duplicates, insert_size, random)
        truth["lane"] = np.arange(len(truth)) * lanes // max(1, len(truth)) + 1
        truth["name"] = [
            f"SIM:1:FC{sample}:{lane}:{1101 + n % 16}:{n % 20011}:{n // 16}"
            for n, lane in enumerate(truth["lane"])
        ]
        for lane in range(1, lanes + 1):
            here = truth[truth["lane"] == lane]
            files = [place / f"{sample}_L{lane}_R{mate}.fastq.gz" for mate in (1, 2)]
            _write_reads(files, haplotypes, here, read_length, overstated, random)
            paths = {f"fastq_{mate}": str(file) for mate, file in enumerate(files, 1)}
            rows.append({"sample": sample, "lane": f"L{lane}", **paths})
        fragments[sample] = truth.drop(columns="copy")
    sheet = place / "samples.csv"
    pd.DataFrame(rows).to_csv(sheet, index=False)
    reference, sites = place / "reference.fa", place / "known_sites.vcf"
    return Example(place, reference, sheet, sites, variants, fragments)


def _read_fasta(path: Path) -> dict[str, Bytes]:
    """Return the sequences of a FASTA by the first words of their heads."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    genome = {}
    for record in data.split(b">")[1:]:
        head, _, lines = record.partition(b"\n")
        sequence = np.frombuffer(b"".join(lines.upper().split()), np.uint8)
        if not np.isin(sequence, _BASES).all():
            raise ValueError(f"{path} has letters that are not A, C, G or T")
        genome[head.split()[0].decode()] = sequence
    return genome


def _choose_variants(
    genome: dict[str, Bytes], count: int, ploidy: int, random: np.random.Generator
) -> pd.DataFrame:
    lengths = np.array([len(sequence) for sequence in genome.values()])
    starts = np.cumsum(lengths) - lengths
    chosen = np.sort(random.choice(int(lengths.sum()), count, replace=False))
    which = np.searchsorted(starts, chosen, side="right") - 1
    names = list(genome)
    rows = []
    for place, contig in zip(chosen, which, strict=True):
        position = int(place - starts[contig])
        ref = genome[names[contig]][position]
        alt = random.choice(_BASES[ref != _BASES])
        copies = random.integers(0, 2) if ploidy == 2 else 1
        genotype = "1" if ploidy == 1 else ("1/1" if copies else "0/1")
        rows.append((names[contig], position + 1, chr(ref), chr(alt), genotype))
    table = pd.DataFrame(rows, columns=["contig", "position", "ref", "alt", "genotype"])
    table["known"] = random.random(len(table)) < 0.9
    return table


def _apply(genome: dict[str, Bytes], variants: pd.DataFrame, copy: int) -> dict[str, Bytes]:
    """Return one copy of the samples' genome; heterozygous variants are on the second."""
    made = {name: sequence.copy() for name, sequence in genome.items()}
    for row in variants.to_dict("records"):
        if row["genotype"] != "0/1" or copy == 1:
            made[row["contig"]][row["position"] - 1] = ord(row["alt"])
    return made


def _choose_fragments(
    haplotypes: Sequence[dict[str, Bytes]],
    pairs: int,
    duplicates: float,
    insert_size: tuple[float, float],
    random: np.random.Generator,
) -> pd.DataFrame:
    """Choose where fragments lie; duplicates are copies of others in the same place."""
    copied = round(pairs * duplicates)
    unique = pairs - copied
    lengths = {name: len(sequence) for name, sequence in haplotypes[0].items()}
    names = np.array(list(lengths))
    share = np.array(list(lengths.values())) / sum(lengths.values())
    contig = random.choice(len(names), unique, p=share)
    most = np.array(list(lengths.values()))[contig]
    size = np.clip(np.rint(random.normal(*insert_size, unique)), 30, most).astype(int)
    table = pd.DataFrame(
        {
            "contig": names[contig],
            "start": (random.random(unique) * (most - size + 1)).astype(int),
            "length": size,
            "reverse": random.random(unique) < 0.5,
            "copy": random.integers(0, len(haplotypes), unique),
            "duplicate": False,
        }
    )
    again = table.iloc[random.choice(unique, copied, replace=False)].assign(duplicate=True)
    whole = pd.concat([table, again])
    return whole.iloc[random.permutation(len(whole))].reset_index(drop=True)


def _write_reads(
    files: Sequence[Path],
    haplotypes: Sequence[dict[str, Bytes]],
    truth: pd.DataFrame,
    length: int,
    overstated: float,
    random: np.random.Generator,
) -> None:
    with gzip.open(files[0], "wb", 1) as first, gzip.open(files[1], "wb", 1) as second:
        for begin in range(0, len(truth), _CHUNK):
            part = truth.iloc[begin : begin + _CHUNK]
            forward, backward = _sequences(haplotypes, part, length)
            turned = part["reverse"].to_numpy()[:, None]
            mates = np.where(turned, backward, forward), np.where(turned, forward, backward)
            for mate, (file, bases) in enumerate(zip((first, second), mates, strict=True), 1):
                inside = np.arange(length) < part["length"].to_numpy()[:, None]
                _add_adapter(bases, inside, _ADAPTERS[mate - 1])
                quality = _qualities(bases.shape, random)
                wrong = random.random(bases.shape) < 10 ** (-(quality - overstated) / 10)
                bases[wrong] = _mistaken(bases[wrong], random)
                file.write(_fastq(part["name"], mate, bases, quality))


def _sequences(
    haplotypes: Sequence[dict[str, Bytes]], part: pd.DataFrame, length: int
) -> tuple[Bytes, Bytes]:
    """Return both ends of fragments, pairs x bases, each read from its own end inwards."""
    forward = np.empty((len(part), length), np.uint8)
    backward = np.empty((len(part), length), np.uint8)
    step = np.arange(length)
    groups: Any = part.reset_index(drop=True).groupby(["contig", "copy"])
    for (contig, copy), rows in groups:
        sequence = haplotypes[copy][contig]
        start = rows["start"].to_numpy()[:, None]
        end = start + rows["length"].to_numpy()[:, None]
        forward[rows.index] = sequence[np.minimum(start + step, len(sequence) - 1)]
        backward[rows.index] = _COMPLEMENT[sequence[np.maximum(end - 1 - step, 0)]]
    return forward, backward


def _add_adapter(bases: Bytes, inside: npt.NDArray[np.bool_], adapter: bytes) -> None:
    """Overwrite what lies behind the fragment's end with the adapter, then with G (no signal)."""
    text = np.frombuffer(adapter + b"G" * bases.shape[1], np.uint8)
    behind = np.cumsum(~inside, axis=1) - 1
    bases[~inside] = text[behind[~inside]]


def _qualities(shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return reported qualities (Phred) that fall towards the end of the read."""
    mean = np.linspace(36, 28, shape[1])
    drawn = random.normal(mean, 4, shape)
    return np.clip(np.rint(drawn), 12, 40).astype(np.int64)


def _mistaken(bases: Bytes, random: np.random.Generator) -> Bytes:
    """Return another base for each."""
    code = np.searchsorted(_BASES, bases)
    return np.asarray(_BASES[(code + random.integers(1, 4, len(bases))) % 4])


def _fastq(names: pd.Series[str], mate: int, bases: Bytes, quality: Any) -> bytes:
    texts = zip(names, bases, (quality + 33).astype(np.uint8), strict=True)
    return b"".join(
        b"@%s %d:N:0:ACGT\n%s\n+\n%s\n" % (name.encode(), mate, base.tobytes(), qual.tobytes())
        for name, base, qual in texts
    )


def _write_fasta(path: Path, genome: dict[str, Bytes]) -> None:
    with path.open("wb") as file:
        for name, sequence in genome.items():
            file.write(f">{name}\n".encode())
            for start in range(0, len(sequence), 70):
                file.write(sequence[start : start + 70].tobytes() + b"\n")


def _write_sites(path: Path, genome: dict[str, Bytes], sites: pd.DataFrame) -> None:
    with path.open("w", newline="") as file:
        file.write("##fileformat=VCFv4.2\n")
        for name, sequence in genome.items():
            file.write(f"##contig=<ID={name},length={len(sequence)}>\n")
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"])
        for row in sites.to_dict("records"):
            writer.writerow(
                [row["contig"], row["position"], ".", row["ref"], row["alt"], ".", "PASS", "."]
            )
