"""The same work step by step, with files between the steps and picard: what is compared with.

Also what is read of an alignment, to compare.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.portal import built_envs

PICARD = Path("/usr/share/java/picard.jar")
missing = [name for name in ("bwa", "samtools", "java") if not shutil.which(name)]
if not PICARD.is_file():
    missing.append("picard-tools")


class Record(NamedTuple):
    """What is compared of a SAM record."""

    name: str
    flag: int
    contig: str
    start: int
    cigar: str
    quality: str
    tags: Mapping[str, str]

    @property
    def mate(self) -> int:
        return 2 if self.flag & 128 else 1

    @property
    def primary(self) -> bool:
        return not self.flag & 0x900

    @property
    def outer(self) -> int:
        """Place of the end that was sequenced first, from 0, as if nothing were clipped."""
        parts = [(int(n), kind) for n, kind in re.findall(r"(\d+)([MIDS])", self.cigar)]
        if not self.flag & 16:
            return self.start - 1 - (parts[0][0] if parts[0][1] == "S" else 0)
        long = sum(n for n, kind in parts if kind in "MD")
        return self.start - 1 + long + (parts[-1][0] if parts[-1][1] == "S" else 0)


def records(path: Path, fasta: Path | None = None) -> list[Record]:
    """Return all records of a SAM, BAM or CRAM."""
    reference = ["-T", str(fasta)] if fasta else []
    found = []
    for line in output("samtools", "view", *reference, str(path)).splitlines():
        fields = line.split("\t")
        tags = {tag[:2]: tag[5:] for tag in fields[11:]}
        name, flag, contig, start, _, cigar = fields[:6]
        found.append(Record(name, int(flag), contig, int(start), cigar, fields[10], tags))
    return found


def duplicates(found: Sequence[Record]) -> Counter[tuple[str, int]]:
    """Return names and mates of the mapped records that are marked as duplicates.

    Of an unmapped mate picard says nothing in a sorted file; samtools marks it with its mate.
    """
    return Counter(
        (r.name, r.mate) for r in found if r.flag & 1024 and r.primary and not r.flag & 4
    )


def unlike(one: Sequence[Record], other: Sequence[Record]) -> list[str]:
    """Return names that only one of two marks as duplicates.

    Of two copies with the same sum of qualities each program keeps another: where the names that
    differ are such a pair, they are alike.
    """
    score: Counter[str] = Counter()
    place: dict[str, tuple[tuple[str, int], ...]] = {}
    for record in one:
        if record.primary and not record.flag & 4:
            good = (ord(letter) - 33 for letter in record.quality)
            score[record.name] += sum(quality for quality in good if quality >= 15)
            ends = {*place.get(record.name, ()), (record.contig, record.outer)}
            place[record.name] = tuple(sorted(ends))
    names = [{name for name, _ in duplicates(found)} for found in (one, other)]
    sides = [
        Counter((place[name], score[name]) for name in mine - theirs)
        for mine, theirs in (names, names[::-1])
    ]
    if sides[0] == sides[1]:
        return []
    return sorted(names[0] ^ names[1])


def mapped(found: Sequence[Record]) -> Counter[tuple[bool, bool, bool]]:
    """Return how many primary records are mapped, paired, and properly so."""
    return Counter((not r.flag & 4, bool(r.flag & 1), bool(r.flag & 2)) for r in found if r.primary)


def depth(path: Path, fasta: Path | None = None) -> str:
    """Return the depth of each base."""
    reference = ["--reference", str(fasta)] if fasta else []
    return output("samtools", "depth", "-a", *reference, str(path))


def align(folder: Path, fasta: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Merge lanes, cut adapters, align with bwa mem, sort, tag, mark duplicates: one by one."""
    index = folder / "index"
    output("bwa", "index", "-p", str(index), str(fasta))
    local = folder / fasta.name
    shutil.copy(fasta, local)
    output("samtools", "faidx", str(local))
    output("samtools", "dict", "-o", str(local.with_suffix(".dict")), str(local))
    for mate in (1, 2):
        with (folder / f"merged.{mate}.fastq.gz").open("wb") as merged:
            for row in rows:
                merged.write(Path(row[f"fastq_{mate}"]).read_bytes())
    cut = [folder / f"cut.{mate}.fastq.gz" for mate in (1, 2)]
    adapters = ["-a", "AGATCGGAAGAGC", "-A", "AGATCGGAAGAGC", "--minimum-length", "20"]
    options = [*adapters, "--max-n", "0.1", "--pair-filter=any"]
    sources = [str(folder / f"merged.{mate}.fastq.gz") for mate in (1, 2)]
    output("cutadapt", *options, "-o", str(cut[0]), "-p", str(cut[1]), *sources)
    group = r"@RG\tID:s\tSM:s\tLB:s\tPL:ILLUMINA\tPU:x"
    sam = folder / "aligned.sam"
    words = ["-K", "20000000", "-R", group, "-o", str(sam), str(index), *map(str, cut)]
    output("bwa", "mem", *words)
    _picard(folder, "SortSam", I=sam, O="sorted.bam", SORT_ORDER="coordinate")
    _picard(folder, "SetNmMdAndUqTags", I="sorted.bam", O="tagged.bam", R=local)
    _picard(
        folder,
        "MarkDuplicates",
        I="tagged.bam",
        O="marked.bam",
        M="metrics.txt",
        OPTICAL_DUPLICATE_PIXEL_DISTANCE=2500,
    )
    return folder / "marked.bam"


def _picard(folder: Path, program: str, **options: object) -> None:
    words = [f"{name}={value}" for name, value in options.items()]
    java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-jar", str(PICARD)]
    quiet = ["QUIET=true", "VERBOSITY=ERROR", "VALIDATION_STRINGENCY=SILENT"]
    subprocess.run(
        [*java, program, *words, *quiet], cwd=folder, check=True, capture_output=True, timeout=120
    )


def output(*argv: str) -> str:
    """Run a program of the alignment environment and return what it writes."""
    path = f"{built_envs() / 'alignment' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    return done.stdout
