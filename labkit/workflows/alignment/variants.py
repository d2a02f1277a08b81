"""``labkit.Variants``: germline variants of small genomes, from a finished alignment job."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.problems import LabkitError, Problem
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import Environment, Resources, Stage, Task, literal, safe_key
from labkit.jobs.plan import Plan
from labkit.workflows.alignment.gather_stage import DRIVER, gather_calls_stage
from labkit.workflows.alignment.job import AlignmentJob, VariantsJob
from labkit.workflows.alignment.reference import ENVIRONMENT
from labkit.workflows.alignment.task_code import layout
from labkit.workflows.base import Workflow

#: Bases of a genome that one process per sample calls in reasonable time.
MOST = 300_000_000
_MEMORY = 2 * 1024**3
_TBI = 2**29  # bases of a contig that a .tbi reaches


class Variants(Workflow):
    """Call SNPs and short indels with bcftools, one task per sample.

    Meant for genomes of up to 300 million bases; larger ones, somatic and joint calling are
    nf-core/sarek's: :meth:`AlignmentJob.to_sarek`.

    Parameters
    ----------
    alignments : AlignmentJob or str
        A finished alignment job, or its name.
    ploidy : {1, 2}
        1 for bacteria, viruses and mitochondria.
    min_quality : float
        Calls with a lower QUAL (Phred) are kept, but do not pass.
    min_depth : int
        Calls with fewer reads are kept, but do not pass.
    min_mapping_quality : int
        Reads with a lower one are left out.
    name : str, optional
        Name of the job.
    output : str or Path, optional
        Folder that the run folder is made in.

    Examples
    --------
    >>> calls = labkit.Variants(job, ploidy=1).submit()  # doctest: +SKIP
    >>> calls.results("variants")  # doctest: +SKIP
    """

    job_class: ClassVar[type[Job]] = VariantsJob

    def __init__(
        self,
        alignments: AlignmentJob | str,
        *,
        ploidy: int = 2,
        min_quality: float = 20.0,
        min_depth: int = 4,
        min_mapping_quality: int = 20,
        name: str | None = None,
        output: str | os.PathLike[str] | None = None,
    ) -> None:
        self.alignments = alignments
        self.options = {
            "ploidy": ploidy,
            "min_quality": min_quality,
            "min_depth": min_depth,
            "min_mapping_quality": min_mapping_quality,
        }
        self.name = name
        self.output = os.fspath(output) if output is not None else None

    def __repr__(self) -> str:
        job = self.alignments
        return f"Variants({job if isinstance(job, str) else job.name!r})"

    @cached_property
    def job(self) -> AlignmentJob:
        """The alignment job.

        Raises
        ------
        LabkitError
            There is none of that name, or it is another kind of job.
        """
        given = self.alignments
        job = open_job(given) if isinstance(given, str) else given
        if not isinstance(job, AlignmentJob) or job.run.manifest.workflow != "alignment":
            raise LabkitError(f"{given!r} is no alignment job.")
        return job

    def check(self) -> list[Problem]:
        """Look at the options and the alignments; return everything that is wrong."""
        problems = self._check_options()
        try:
            bams = self.job.results("bams")
        except LabkitError as error:
            return [*problems, Problem("alignments", str(error))]
        for bam in bams.to_dict("records"):
            problems += [
                Problem(f"sample {bam['sample']}", f"{bam[column]} is not there any more.")
                for column in ("path", "index")
                if not Path(bam[column]).is_file()
            ]
        length = self.reference["length"]
        if length > MOST:
            text = f"has {length:,} bases; one task per sample is for at most {MOST:,}."
            hint = "Hand the alignments on to nf-core/sarek: job.to_sarek('sarek.csv')."
            problems.append(Problem("reference", text, hint))
        problems += [
            Problem(f"sample {entry['sample']}", f"left out: {entry['text']}.", warning=True)
            for entry in self.job.summary["failed"]
        ]
        return problems

    def _check_options(self) -> list[Problem]:
        problems = []
        for name, least, most in (
            ("ploidy", 1, 2),
            ("min_quality", 0, 1000),
            ("min_depth", 0, 10_000),
            ("min_mapping_quality", 0, 255),
        ):
            value = self.options[name]
            whole = isinstance(value, int) or (name == "min_quality" and isinstance(value, float))
            if not whole or isinstance(value, bool) or not least <= value <= most:
                text = f"must be a number from {least} to {most:,}, not {value!r}."
                problems.append(Problem(name, text))
        return problems

    @cached_property
    def reference(self) -> dict[str, Any]:
        """What the alignment job says of its reference."""
        place = layout.REFERENCE_STAGE, layout.REFERENCE_KEY, "reference.json"
        about: dict[str, Any] = json.loads(self.job.run.folder.results.joinpath(*place).read_text())
        return about

    def build(self, backend: str) -> Plan:  # noqa: ARG002 -- the same everywhere
        """Return the plan: one task per sample, then the gather."""
        bams = self.job.results("bams").to_dict("records")
        environment = Environment(ENVIRONMENT)
        csi = self.reference["longest"] >= _TBI
        tasks = [_task(index, bam, csi) for index, bam in enumerate(bams)]
        stage = Stage("calls", tuple(tasks), Resources(memory=_MEMORY), environment, driver=DRIVER)
        settings = {**self.options, "reference": self.reference, "csi": csi}
        return Plan(
            name=safe_key(self.name or "variants")[:60],
            tool="variants bcftools",
            stages=(stage, gather_calls_stage(environment)),
            parameters={**self.options, "alignments": self.job.key, "samples": len(tasks)},
            files={"alignment.json": json.dumps(settings)},
        )


def _task(index: int, bam: dict[str, Any], csi: bool) -> Task:
    sample = bam["sample"]
    vcf = f"{sample}.vcf.gz"
    return Task(
        sample,
        index,
        inputs=(literal(bam["path"]), literal(bam["index"])),
        outputs=(literal(vcf), literal(f"{vcf}.{'csi' if csi else 'tbi'}"), layout.CHECKSUMS),
        params={
            "program": "call",
            "sample": {"name": sample, "path": bam["path"]},
            "row": {"sample": sample},
        },
    )
