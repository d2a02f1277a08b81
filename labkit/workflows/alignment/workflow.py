"""``labkit.Alignment``: a sample sheet and a reference to one measured BAM or CRAM per sample."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.problems import Problem
from labkit.jobs.job import Job
from labkit.jobs.model import Container, Environment
from labkit.jobs.plan import Plan
from labkit.jobs.runs.index import default_root
from labkit.workflows.alignment import aligners, checks, molecules
from labkit.workflows.alignment.alt import read_alt
from labkit.workflows.alignment.bed import read_bed
from labkit.workflows.alignment.job import AlignmentJob
from labkit.workflows.alignment.plans import make_plan
from labkit.workflows.alignment.prepared import Prepared
from labkit.workflows.alignment.reference import (
    ENVIRONMENT,
    Reference,
    default_aligner,
    read_contigs,
)
from labkit.workflows.alignment.samplesheet import read_sheet
from labkit.workflows.alignment.task_code import sizes
from labkit.workflows.base import Workflow


class Alignment(Workflow):
    """Align the reads of samples to a reference.

    Each sample is one task and one stream: adapters are cut, reads aligned, sorted, duplicates
    marked, everything measured and written, with nothing in between on a disk.

    Parameters
    ----------
    samples : str, Path, DataFrame or list of dict
        The sample sheet, one row per lane: ``sample``, ``lane``, ``fastq_1``, ``fastq_2`` (empty
        for single-end and long reads), ``fastq_umi``, for the read group ``library``,
        ``platform``, ``platform_unit``, ``center``, ``date``, and for nf-core/sarek ``patient``,
        ``sex``, ``status``. Files are paths or ``s3://``. Or a folder of FASTQ files.
    reference : str, Path or Reference
        FASTA, or a :class:`labkit.Reference`.
    aligner : {"bwa-mem2", "bwa", "minimap2"}, optional
        Without it bwa-mem2 where the environment has it, else bwa; minimap2 with a ``preset``.
    preset : {"map-ont", "map-hifi", "map-pb", "sr"}, optional
        Of minimap2: what kind of reads.
    adapters : str, (str, str), list, None or False
        What cutadapt cuts: a name (``"truseq"``, ``"nextera"``, ...), a sequence, one for each
        mate, or several. None: nothing. Long reads are never cut.
    minimum_length : int, None or "auto"
        Shorter reads (after cutting) are dropped, with their mate; None: none is. Without it 20
        where adapters are cut, else None.
    max_n : float, None or "auto"
        Reads with a larger share of N are dropped, with their mate; None: none is. Without it
        0.1 where adapters are cut, else None.
    quality : int
        Ends with a lower base quality are trimmed; 0: not.
    mark_duplicates : bool, optional
        Without it: yes for short reads.
    optical_distance : int, optional
        Pixels; without it as the instrument in the reads' names asks for.
    known_sites : str, Path or list of them
        VCF files of known variants: base qualities are recalibrated with them.
    umi : {"name"}, optional
        Each read's name ends with its UMI (``...:ACGT``, ``..._ACGT``, two with ``+``): reads with
        different UMIs are no duplicates, and the alignment has them as the tag RX. UMIs in a file
        of their own are the sheet's column ``fastq_umi``.
    targets, baits : str or Path, optional
        BED files of a capture panel or exome: how many reads lie on them, and how well each is
        covered (``job.results("on_target")`` and ``("regions")``).
    uq : bool
        Also write the tag UQ (and NM, MD) by picard. It costs time, and few programs read it.
    picard_metrics : bool
        Also write metrics in picard's own formats: alignment summary, duplicates, and insert sizes
        with their histogram as PDF.
    format : {"bam", "cram"}
        Of the result.
    depth : bool, optional
        Whether the depth of each base is kept; without it for genomes of up to 50 million bases.
    environment : str or Container
        That has the programs.
    name : str, optional
        Name of the job.
    output : str or Path, optional
        Folder that the run folder is made in.

    Examples
    --------
    >>> job = labkit.Alignment("samples.csv", reference="ref.fa").submit()  # doctest: +SKIP
    >>> job.results("bams")  # doctest: +SKIP
    """

    job_class: ClassVar[type[Job]] = AlignmentJob

    def __init__(
        self,
        samples: Any,
        reference: str | os.PathLike[str] | Reference,
        *,
        aligner: str | None = None,
        preset: str | None = None,
        adapters: Any = "truseq",
        minimum_length: int | str | None = aligners.AUTO,
        max_n: float | str | None = aligners.AUTO,
        quality: int = 0,
        mark_duplicates: bool | None = None,
        optical_distance: int | None = None,
        known_sites: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        umi: str | None = None,
        targets: str | os.PathLike[str] | None = None,
        baits: str | os.PathLike[str] | None = None,
        uq: bool = False,
        picard_metrics: bool = False,
        format: str = "bam",
        depth: bool | None = None,
        environment: str | Container = ENVIRONMENT,
        name: str | None = None,
        output: str | os.PathLike[str] | None = None,
    ) -> None:
        self.sheet = samples
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.options: dict[str, Any] = {
            "aligner": aligner,
            "preset": preset,
            "minimum_length": minimum_length,
            "max_n": max_n,
            "quality": quality,
            "mark_duplicates": mark_duplicates,
            "optical_distance": optical_distance,
            "umi": umi,
            "uq": uq,
            "picard_metrics": picard_metrics,
            "format": format,
            "depth": depth,
        }
        self.adapters = adapters
        sites = [known_sites] if isinstance(known_sites, (str, os.PathLike)) else known_sites
        self.known_sites = [
            text if "://" in (text := os.fspath(path)) else str(Path(text).expanduser().absolute())
            for path in sites
        ]
        given = {"targets": targets, "baits": baits}
        self.regions = {kind: path for kind, path in given.items() if path is not None}
        self.environment = environment
        self.name = name
        self.output = os.fspath(output) if output is not None else None

    def __repr__(self) -> str:
        sheet = str(self.sheet) if isinstance(self.sheet, (str, os.PathLike)) else "a table"
        return f"Alignment({sheet!r}, reference={self.reference.fasta!r})"

    def check(self) -> list[Problem]:
        """Look at the sheet, all reads and the reference; return everything that is wrong."""
        return list(self.prepared.problems)

    def build(self, backend: str) -> Plan:
        """Return the plan: reference, one task per sample, gather."""
        return make_plan(self.prepared, backend)

    @cached_property
    def prepared(self) -> Prepared:
        """Everything that can be read and checked before the submit."""
        inputs = Prepared(
            self.reference, self.options, self.known_sites, self.environment, self.name
        )
        inputs.samples, inputs.problems = read_sheet(self.sheet)
        inputs.problems += aligners.check_options(self.options)
        inputs.adapters, problems = aligners.read_adapters(self.adapters)
        inputs.problems += problems
        if isinstance(self.environment, str):
            try:
                Environment(self.environment)
            except ValueError as error:
                inputs.problems.append(Problem("environment", f"{error}."))
        inputs.contigs, problems = read_contigs(self.reference.fasta)
        inputs.problems += problems
        inputs.files, problems = checks.look_at_files(inputs.samples)
        inputs.problems += problems
        self._choose(inputs)
        long = inputs.library == "long"
        samples, files, aligner = inputs.samples, inputs.files, inputs.aligner
        if aligner != "minimap2":
            inputs.alt, problems = read_alt(self.reference.fasta, inputs.contigs)
            inputs.problems += problems
        inputs.problems += checks.check_whole(samples, files, inputs.pairings, long)
        inputs.problems += checks.check_library(samples, files, long, aligner)
        inputs.problems += molecules.check_umis(samples, files, self.options["umi"])
        if inputs.contigs:
            for path in self.known_sites:
                inputs.problems += checks.check_known_sites(path, inputs.contigs)
            for kind, bed in self.regions.items():
                inputs.regions[kind], problems = read_bed(kind, bed, inputs.contigs)
                inputs.problems += problems
        if not any(not problem.warning for problem in inputs.problems):
            needed = sizes.results(checks.read_bytes(inputs.samples, inputs.files))
            root = Path(self.output).expanduser() if self.output else default_root()
            inputs.problems += checks.check_disk(root, needed, "the results")
        return inputs

    def _choose(self, inputs: Prepared) -> None:
        """Choose aligner, preset and library type."""
        preset = self.options["preset"]
        inputs.aligner = self.options["aligner"] or ("minimap2" if preset else default_aligner())
        if inputs.aligner == "minimap2":
            platforms = {lane.platform for sample in inputs.samples for lane in sample.lanes}
            known = {platform: name for name, platform in reversed(aligners.PRESETS.items())}
            guess = known.get(next(iter(platforms), ""), "") if len(platforms) == 1 else ""
            inputs.preset = preset or guess
            if not inputs.preset:
                hint = "Say preset='map-ont', 'map-hifi', 'map-pb' or, for short reads, 'sr'."
                inputs.problems.append(Problem("preset", "minimap2 needs one.", hint))
        if inputs.preset in aligners.LONG_PRESETS:
            inputs.library = "long"
            inputs.adapters = []
            return
        inputs.pairings, problems = checks.read_pairings(inputs.samples, inputs.files)
        inputs.problems += problems
        in_turn = any(pairing.interleaved for pairing in inputs.pairings.values())
        lanes = [lane for sample in inputs.samples for lane in sample.lanes]
        paired = in_turn or any(lane.fastq_2 for lane in lanes)
        inputs.library = "paired" if paired else "single"
