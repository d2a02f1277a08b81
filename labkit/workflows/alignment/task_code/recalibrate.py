"""Recalibrate base qualities with GATK: one report over all contigs, applied in one go.

Known sites say where the sample may differ from the reference; all other mismatches are counted
as errors of the sequencer, by read group, reported quality, cycle and neighbouring bases, and
each base gets the quality that was found [1]_. On several cores contigs are shared out in the
reference's order, each whole: a read that lies on the border of two pieces would count twice.

.. [1] DePristo et al. (2011), A framework for variation discovery and genotyping using
   next-generation DNA sequencing data, Nature Genetics 43, 491-498.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import layout, programs
from . import pipe as piping

TABLE = "recalibration.table"  # GATK's report, in the folder of the reports
LOG = "gatk.log"
_PIECE = 50_000_000  # bases below which another process costs more than it brings
_HEAP = 1536 * 1024**2  # bytes of Java's heap that a process should have
_OUTSIDE = 384 * 1024**2  # bytes that Java has beside its heap
_SHORT = 256 * 1024**2  # bytes of a BAM over which Java's second compiler does not pay


def run(
    tools: Any,
    source: Path,
    target: Path,
    fasta: Path,
    known_sites: Sequence[Path],
    reports: Path,
    *,
    cpu: int,
    memory: int,
    tmp: Path,
    file_format: str,
) -> list[str]:
    """Write an alignment with recalibrated qualities, and its index beside it.

    Parameters
    ----------
    tools : Tools
        Of ``programs``: it finds GATK and samtools and remembers the command lines.
    source : Path
        Sorted BAM with its index beside it.
    target : Path
        What is written.
    fasta : Path
        Reference with ``.fai`` and ``.dict`` beside it.
    known_sites : sequence of Path
        VCF files; an index that is not there is made in ``tmp``.
    reports : Path
        Folder for ``recalibration.table`` and GATK's log.
    cpu, memory : int
        Cores and bytes that may be used.
    tmp : Path
        Folder on a local disk with room for a copy of the source.
    file_format : {"bam", "cram"}
        Of the target.

    Returns
    -------
    list of str
        Read groups without a base that could be counted: they keep their qualities.

    Raises
    ------
    Failed
        A program failed, or reads were lost; the text says which and how many.
    """
    reports.mkdir(parents=True, exist_ok=True)
    scratch = tmp / "recalibration"
    scratch.mkdir()
    contigs = read_contigs(fasta)
    pieces = share_out(contigs, processes(contigs, cpu, memory))
    java = _Java(tools, scratch, reports / LOG, memory // len(pieces), source.stat().st_size)
    sites = [_indexed(java, path, scratch) for path in known_sites]
    regions = [_write_bed(scratch / f"piece-{n}.bed", piece) for n, piece in enumerate(pieces)]
    alone = len(pieces) == 1

    tables = [scratch / f"piece-{n}.table" for n in range(len(pieces))]
    if alone:
        tables = [reports / TABLE]
    counting = []
    for n, bed in enumerate(regions):
        argv = ["BaseRecalibrator", "-R", str(fasta), "-I", str(source), "-O", str(tables[n])]
        for path in sites:
            argv += ["--known-sites", str(path)]
        counting.append([*argv, "--use-original-qualities", *([] if alone else ["-L", str(bed)])])
    java.run(counting)
    if not alone:
        inputs = [word for table in tables for word in ("-I", str(table))]
        java.run([["GatherBQSRReports", *inputs, "-O", str(reports / TABLE)]])

    left = uncounted(tools, source, reports / TABLE, scratch)
    parts = [scratch / f"piece-{n}.bam" for n in range(len(pieces))]
    applying = []
    for n, bed in enumerate(regions):
        argv = ["ApplyBQSR", "-R", str(fasta), "-I", str(source), "-O", str(parts[n])]
        argv += ["--bqsr-recal-file", str(reports / TABLE), "--use-original-qualities"]
        argv += ["--add-output-sam-program-record", "--create-output-bam-index", "false"]
        argv += ["--allow-missing-read-group", "true"] if left else []
        if not alone:
            argv += ["-L", str(bed), *(["-L", "unmapped"] if n == len(parts) - 1 else [])]
        applying.append(argv)
    java.run(applying)
    java.note_version()
    longest = max(length for _, length in contigs)
    index = target.with_name(layout.index_name(target.name, longest))
    write = programs.write_argv(target, index, file_format, fasta, max(1, cpu // 2), "")
    _join(tools, parts, source, write, reports / LOG, scratch)
    shutil.rmtree(scratch)
    return left


def uncounted(tools: Any, source: Path, table: Path, scratch: Path) -> list[str]:
    """Return the IDs of read groups that a report of BaseRecalibrator knows nothing of.

    GATK calls a read group by its platform unit, where it has one.
    """
    head = scratch / "head.sam"
    tools.run("head", ["samtools", "view", "-H", str(source)], stdout=head)
    counted = set()
    _, _, rest = table.read_text().partition("#:GATKTable:RecalTable0:")
    for line in rest.splitlines()[2:]:
        if not line.strip():
            break
        counted.add(line.split()[0])
    groups = [
        dict(field.partition(":")[::2] for field in line.split("\t")[1:])
        for line in head.read_text().splitlines()
        if line.startswith("@RG\t")
    ]
    return [group["ID"] for group in groups if group.get("PU", group["ID"]) not in counted]


def read_contigs(fasta: Path) -> list[tuple[str, int]]:
    """Return name and length of the contigs of a reference, in its order, from its ``.fai``."""
    lines = Path(f"{fasta}.fai").read_text().splitlines()
    return [(name, int(length)) for name, length, *_ in (line.split("\t") for line in lines)]


def processes(contigs: Sequence[tuple[str, int]], cpu: int, memory: int) -> int:
    """Return how many processes of GATK share the work: of a small genome one does it all."""
    bases = sum(length for _, length in contigs)
    return max(1, min(cpu, memory // (_HEAP + _OUTSIDE), bases // _PIECE, len(contigs)))


def share_out(contigs: Sequence[tuple[str, int]], most: int) -> list[list[tuple[str, int]]]:
    """Cut the contigs, in their order, into at most so many pieces.

    The largest piece is as small as it can be.

    Parameters
    ----------
    contigs : sequence of (str, int)
        Names and lengths in bases.
    most : int
        Pieces.
    """

    def cut(limit: int) -> list[list[tuple[str, int]]]:
        made: list[list[tuple[str, int]]] = []
        room = 0
        for name, length in contigs:
            if not made or length > room:
                made.append([])
                room = limit
            made[-1].append((name, length))
            room -= length
        return made

    low = max(length for _, length in contigs)
    high = sum(length for _, length in contigs)
    while low < high:
        middle = (low + high) // 2
        if len(cut(middle)) <= most:
            high = middle
        else:
            low = middle + 1
    return cut(low)


class _Java:
    """Runs GATK's tools side by side."""

    def __init__(self, tools: Any, scratch: Path, log: Path, memory: int, size: int) -> None:
        self._tools = tools
        self._scratch = scratch
        self._log = log
        heap = max(256 * 1024**2, memory - _OUTSIDE) // 1024**2
        # One thread collects garbage: the cores belong to the work.
        options = [f"-Xmx{heap}m", "-XX:+UseSerialGC", f"-Djava.io.tmpdir={scratch}"]
        if size < _SHORT:
            options.append("-XX:TieredStopAtLevel=1")
        self._env = {**tools.env, "JDK_JAVA_OPTIONS": " ".join(options)}

    def run(self, calls: Sequence[Sequence[str]]) -> None:
        """Run tools of GATK at the same time; the first that fails ends the others."""
        pipe = piping.Pipe(self._env, self._scratch)
        try:
            for call in calls:
                log = self._log if len(calls) == 1 else self._scratch / f"{len(pipe.members)}.log"
                argv = self._tools.note(call[0], ["gatk", *call])
                pipe.start(call[0], argv, stderr=log)
            pipe.wait()
        except BaseException:
            pipe.abort()
            raise
        self._tools.timed(pipe.members)
        if len(calls) > 1:
            with self._log.open("ab") as whole:
                for number in range(len(calls)):
                    whole.write((self._scratch / f"{number}.log").read_bytes())

    def note_version(self) -> None:
        """Note GATK's version, of its log: asking for it costs seconds."""
        match = re.search(r"\(GATK\) v(\S+)", self._log.read_text(errors="replace"))
        if match:
            self._tools.add_version("gatk", match[1])


def _indexed(java: _Java, sites: Path, scratch: Path) -> Path:
    """Return known sites with an index beside them; where there is none it is made on scratch."""
    suffixes = (".tbi", ".csi") if sites.suffix == ".gz" else (".idx",)
    if any(Path(f"{sites}{suffix}").is_file() for suffix in suffixes):
        return sites
    place = scratch / f"sites-{len(list(scratch.glob('sites-*')))}"
    place.mkdir()
    link = place / sites.name
    link.symlink_to(sites)
    java.run([["IndexFeatureFile", "-I", str(link)]])
    return link


def _write_bed(path: Path, piece: Sequence[tuple[str, int]]) -> Path:
    """Write whole contigs as BED: their names may hold what means something in ``-L``."""
    path.write_text("".join(f"{name}\t0\t{length}\n" for name, length in piece))
    return path


def _join(
    tools: Any,
    parts: Sequence[Path],
    source: Path,
    write: Sequence[str],
    log: Path,
    scratch: Path,
) -> None:
    """Hand the pieces as one file to the program that writes; prove that no read was lost."""
    pipe = piping.Pipe(tools.env, scratch)
    counted = scratch / "recalibrated.flagstat.json"
    copy = scratch / "recalibrated.fifo"
    os.mkfifo(copy)
    try:
        read, end = piping.joint()
        joined, copied = piping.joint()
        cat = ["samtools", "cat", *map(str, parts)]
        pipe.start("join", tools.note("join", cat), stdout=end, stderr=log)
        argv = tools.note("copy", ["tee", str(copy)])
        pipe.start("copy", argv, stdin=read, stdout=copied, stderr=log)
        argv = tools.note("count", ["samtools", "flagstat", "-O", "json", str(copy)])
        pipe.start("count", argv, stdout=counted, stderr=log)
        pipe.start("write", tools.note("write", write), stdin=joined, stderr=log)
        pipe.wait()
    except BaseException:
        pipe.abort()
        raise
    tools.timed(pipe.members)
    before = scratch / "source.flagstat.json"
    tools.run("count", ["samtools", "flagstat", "-O", "json", str(source)], stdout=before)
    was, now = (_counts(path) for path in (before, counted))
    lost = [f"{now[name]:,} of {was[name]:,} {name}" for name in was if now[name] != was[name]]
    if lost:
        raise piping.Failed(f"recalibration changed the reads: {', '.join(lost)} are left", "CHECK")


def _counts(path: Path) -> dict[str, int]:
    passed, failed = (
        json.loads(path.read_text())[f"QC-{how} reads"] for how in ("passed", "failed")
    )
    names = ("total", "primary", "mapped", "duplicates", "properly paired")
    return {f"{name} reads": passed[name] + failed[name] for name in names}
