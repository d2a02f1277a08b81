"""Alignment by labkit against the same work step by step: same reads, same machine, one run.

``python -m bench.alignment [--pairs 500000] [--aligner bwa] [--samples 8] [--recalibrate]
[--reference FASTA]``

The steps are those of redun's example workflow (examples/06_bioinfo_batch), each with files before
and after it and picard for sorting, tags, duplicates and metrics. Both use the same threads. CPU
seconds are what to compare: walls depend on who else uses the machine. Bytes written are the sizes
of all files that were left, and the peak of temporary ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

import labkit
from bench.common import machine
from labkit.jobs.runs.gc import folder_size
from labkit.workflows.alignment import example
from labkit.workflows.alignment.job import AlignmentJob
from labkit.workflows.alignment.reference import Reference, tool_environment
from labkit.workflows.alignment.task_code import programs

CORES = len(os.sched_getaffinity(0))
PICARD = "java -Xmx4g -jar /usr/share/java/picard.jar"
ADAPTER = "-a AGATCGGAAGAGC -A AGATCGGAAGAGC"
BATCH = 20_000_000
GOALS = {"CPU": 1.8, "wall": 2.5, "bytes": 5.0}


@dataclass
class Used:
    """What a way of working took.

    Attributes
    ----------
    cpu, wall : float
        Seconds.
    memory : int
        Peak bytes of all its processes at one moment.
    written : int
        Bytes.
    aligner : float
        CPU seconds of the aligner alone.
    """

    cpu: float = 0.0
    wall: float = 0.0
    memory: int = 0
    written: int = 0
    aligner: float = 0.0


class Peaks:
    """Looks, ten times a second, at the memory of a process tree and the size of a folder."""

    def __init__(self, pid: int, temporary: Path) -> None:
        self.memory = self.size = 0
        self._root = psutil.Process(pid)
        self._temporary = temporary
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            total = 0
            try:
                tree = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                break
            for process in tree:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.memory = max(self.memory, total)
            self.size = max(self.size, folder_size(self._temporary))

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()


def run(script: str, folder: Path, env: Mapping[str, str]) -> Used:
    """Run a bash script; count all that it starts."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    begin = time.perf_counter()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**env, "TMPDIR": str(temporary), "_JAVA_OPTIONS": f"-Djava.io.tmpdir={temporary}"},
        )
        peaks = Peaks(process.pid, temporary)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    peaks.end()
    if process.returncode:
        raise RuntimeError((folder / "log").read_text()[-3000:])
    wall = time.perf_counter() - begin
    return Used(used.ru_utime + used.ru_stime, wall, peaks.memory, peaks.size)


def stepwise(
    folder: Path, made: example.Example, index: Path, fasta: Path, aligner: str, sites: Path | None
) -> tuple[Used, dict[str, Used]]:
    """Do the work step by step; return the whole and each step."""
    sheet = pd.read_csv(made.samples)
    lanes = [" ".join(map(shlex.quote, sheet[f"fastq_{mate}"])) for mate in (1, 2)]
    group = shlex.quote(r"@RG\tID:s\tSM:s\tLB:s\tPL:illumina")
    ref = shlex.quote(str(fasta))
    steps = {
        "merge lanes": f"cat {lanes[0]} > m.1.fastq.gz; cat {lanes[1]} > m.2.fastq.gz",
        "cutadapt": f"cutadapt {ADAPTER} --minimum-length 20 --max-n 0.1 --pair-filter=any "
        "-o c.1.fastq.gz -p c.2.fastq.gz m.1.fastq.gz m.2.fastq.gz > cutadapt.log",
        "aligner": f"{aligner} mem -t {CORES} -K {BATCH} -R {group} -o aln.sam "
        f"{shlex.quote(str(index))} c.1.fastq.gz c.2.fastq.gz",
        "SAM to BAM": "samtools view -o aln.bam aln.sam",
        "sort, tags": f"{PICARD} SortSam --INPUT aln.bam --OUTPUT /dev/stdout --SORT_ORDER "
        f"coordinate --QUIET true | {PICARD} SetNmMdAndUqTags --INPUT /dev/stdin --OUTPUT st.bam "
        f"--CREATE_INDEX true --CREATE_MD5_FILE true --REFERENCE_SEQUENCE {ref}",
        "mark duplicates": f"{PICARD} MarkDuplicates --INPUT st.bam --OUTPUT md.bam "
        "--METRICS_FILE md.metrics --VALIDATION_STRINGENCY SILENT "
        "--OPTICAL_DUPLICATE_PIXEL_DISTANCE 2500 --CREATE_MD5_FILE true",
        "index": "samtools index md.bam",
    }
    last = "md.bam"
    if sites:
        last = "recalibrated.bam"
        steps["recalibrate"] = (
            f"gatk BaseRecalibrator -R {ref} --known-sites {shlex.quote(str(sites))} -I md.bam "
            "--use-original-qualities -O table; gatk ApplyBQSR -I md.bam -bqsr table "
            f"-O {last} --use-original-qualities --add-output-sam-program-record "
            f"--create-output-bam-md5; samtools index {last}"
        )
    steps |= {
        "alignment metrics": f"{PICARD} CollectAlignmentSummaryMetrics --REFERENCE_SEQUENCE {ref} "
        f"--INPUT {last} --OUTPUT alignment.metrics",
        "insert sizes": f"{PICARD} CollectInsertSizeMetrics --INPUT {last} --OUTPUT insert.metrics "
        "--Histogram_FILE insert.pdf",
        "depth": f"samtools depth -a {last} > depth.txt",
    }
    env = tool_environment()
    each = {name: run(script, folder, env) for name, script in steps.items()}
    whole = Used(
        sum(used.cpu for used in each.values()),
        sum(used.wall for used in each.values()),
        max(used.memory for used in each.values()),
        folder_size(folder) + max(used.written for used in each.values()),
        each["aligner"].cpu,
    )
    return whole, each


def bare_pipe(folder: Path, row: Mapping[str, Any], index: Path, fasta: Path, aligner: str) -> Used:
    """Run one lane through the same programs as labkit does, by bash alone."""
    group = programs.read_group({"ID": "s", "SM": "s", "LB": "s", "PL": "ILLUMINA"})
    chain = [
        f"cutadapt {ADAPTER} --minimum-length 20 --max-n 0.1 --pair-filter=any --interleaved "
        f"{row['fastq_1']} {row['fastq_2']} 2> cutadapt.txt",
        f"{aligner} mem -p -t {CORES} -K {BATCH} -R {shlex.quote(group)} {index} -",
        "samtools fixmate -m -u - -",
        "samtools sort -u -m 512M -T tmp/sort -",
        "samtools markdup -S -u -f markdup.txt - -",
        "tee >(samtools flagstat -O json - > flagstat) >(samtools stats -r "
        f"{fasta} - > stats) >(samtools coverage - > coverage) "
        ">(samtools depth - | gzip -1 > depth.gz)",
        "samtools view -b --output-fmt-option level=4 --write-index "
        "-o out.bam##idx##out.bam.bai -; samtools idxstats out.bam > idxstats",
    ]
    used = run(f"{' | '.join(chain)}; wait", folder, tool_environment())
    used.written += folder_size(folder)
    return used


def by_labkit(
    samples: Any, reference: Reference, aligner: str, output: Path, sites: Path | None = None
) -> tuple[AlignmentJob, pd.DataFrame, float]:
    """Run a job; return it with its tasks and the CPU seconds of check, plan and submit here."""
    workflow = labkit.Alignment(
        samples, reference, aligner=aligner, known_sites=[sites] if sites else (), uq=False
    )
    begin = time.process_time()
    job = workflow.submit("local", output=str(output))
    submit = time.process_time() - begin
    job.wait()
    if job.state.value != "SUCCEEDED" or not isinstance(job, AlignmentJob):
        raise RuntimeError(job.failed().to_string())
    return job, job.tasks().set_index("stage"), submit


def steps_of(job: AlignmentJob, cpu: float) -> pd.Series[float]:
    """Return the CPU seconds of each program of a sample's task, lanes together, most first.

    Parameters
    ----------
    cpu : float
        Seconds of the whole task: what no program took is Python's that feeds and watches them.
    """
    table = job.results("commands")
    names = table["step"].str.replace(r" of lane .*", "", regex=True)
    each = table.groupby(names)["cpu_seconds"].sum()
    each["Python"] = cpu - each.sum()
    ordered: pd.Series[float] = each.sort_values(ascending=False)
    return ordered


def main() -> None:
    """Measure and print the tables of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500_000)
    parser.add_argument("--genome", type=int, default=4_600_000, help="bases of a random one")
    parser.add_argument("--reference", type=Path, help="FASTA of a real genome instead")
    parser.add_argument("--aligner", choices=["bwa", "bwa-mem2"], default="bwa")
    parser.add_argument("--samples", type=int, default=8, help="tiny ones, for the overhead")
    parser.add_argument("--recalibrate", action="store_true")
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="bench-alignment-", dir="/var/tmp") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        scratch = folder / "scratch"
        scratch.mkdir()
        os.environ["TMPDIR"] = str(scratch)
        made = example.make(
            folder / "reads",
            # Of equally good places in repeats bwa chooses by a read's number in its lane: on a
            # real genome, lanes one by one and lanes joined would differ there, by chance.
            lanes=1 if asked.reference else 2,
            pairs=asked.pairs,
            contigs=[asked.genome],
            snps=asked.genome // 1000,
            duplicates=0.08,
            read_length=150,
            insert_size=(320, 90),
            genome_from=asked.reference,
        )
        reference = Reference(made.reference, cache=folder / "references")
        index = reference.index(asked.aligner, tell=lambda _: None)
        fasta = index.parent.parent / "fasta" / "reference.fa"
        sites = made.known_sites if asked.recalibrate else None
        if sites:
            gatk = ["gatk", "IndexFeatureFile", "-I", str(sites)]
            subprocess.run(gatk, env=tool_environment(), check=True, capture_output=True)
        compare(folder, made, reference, index, fasta, asked.aligner, sites)
        overhead(folder, reference, index, fasta, asked.aligner, asked.samples)


def compare(
    folder: Path,
    made: example.Example,
    reference: Reference,
    index: Path,
    fasta: Path,
    aligner: str,
    sites: Path | None,
) -> None:
    """Print the steps, and both ways side by side."""
    (folder / "steps").mkdir()
    whole, each = stepwise(folder / "steps", made, index, fasta, aligner, sites)
    peaks = Peaks(os.getpid(), folder / "scratch")
    job, tasks, _ = by_labkit(made.samples, reference, aligner, folder / "runs", sites)
    peaks.end()
    align: Any = tasks.loc["align"]
    sample = job.run.folder.results / "align" / "tumbler"
    parts = steps_of(job, float(align["cpu_seconds"]))
    ours = Used(
        float(align["cpu_seconds"]),
        float(align["seconds"]),
        int(align["peak_memory"]),
        folder_size(sample) + peaks.size,
        parts[aligner],
    )
    check_equal(folder / "steps" / ("recalibrated.bam" if sites else "md.bam"), job)
    print(f"\n{aligner}, {len(made.fragments['tumbler']):,} pairs, {CORES} threads")
    print("\n| step | CPU s | wall s | memory MB |\n|---|---|---|---|")
    for step, used in each.items():
        print(f"| {step} | {used.cpu:.1f} | {used.wall:.1f} | {used.memory / 2**20:.0f} |")
    print("\n| | step by step | labkit | ratio | goal |\n|---|---|---|---|---|")
    for name, one, two, form in (
        ("CPU", whole.cpu, ours.cpu, "{:.1f} s"),
        ("wall", whole.wall, ours.wall, "{:.1f} s"),
        ("memory", whole.memory / 2**20, ours.memory / 2**20, "{:.0f} MB"),
        ("bytes", whole.written / 2**20, ours.written / 2**20, "{:.0f} MB"),
    ):
        goal = GOALS.get(name, "")
        print(f"| {name} | {form.format(one)} | {form.format(two)} | {one / two:.2f} | {goal} |")
    shares = (used.aligner / used.cpu for used in (whole, ours))
    print("| aligner's share of the CPU |", " | ".join(f"{s:.0%}" for s in shares), "| | 85% |")
    print("\n| labkit's programs | CPU s | share |\n|---|---|---|")
    for program, seconds in parts.items():
        print(f"| {program} | {seconds:.1f} | {seconds / ours.cpu:.1%} |")
    gather: Any = tasks.loc["gather"]
    print(f"\ngather, once per job: {gather['cpu_seconds']:.1f} CPU s")


def check_equal(steps: Path, job: AlignmentJob) -> None:
    """Refuse to compare what is not the same.

    Raises
    ------
    RuntimeError
        The counts differ.
    """
    command = ["samtools", "flagstat", "-O", "json", str(steps)]
    counts = json.loads(subprocess.check_output(command))["QC-passed reads"]
    row = job.results("alignment").iloc[0]
    one = [counts["primary"], counts["primary mapped"], counts["primary duplicates"]]
    two = [int(row[name]) for name in ("reads", "mapped", "duplicates")]
    if one != two:
        raise RuntimeError(f"reads, mapped and duplicates differ: {one} and {two}")
    print(f"the same in both: {one[0]:,} reads, {one[1]:,} mapped, {one[2]:,} duplicates")


def overhead(
    folder: Path, reference: Reference, index: Path, fasta: Path, aligner: str, count: int
) -> None:
    """Print what labkit adds to the programs, per sample, where samples are tiny."""
    names: Sequence[str] = [f"tiny{number}" for number in range(count)]
    made = example.make(folder / "tiny", samples=names, pairs=20, contigs=(2000,), snps=1, seed=3)
    bare = []
    rows: Any = pd.read_csv(made.samples).to_dict("records")
    for row in rows:
        place = folder / f"bare-{row['sample']}"
        place.mkdir()
        bare.append(bare_pipe(place, row, index, fasta, aligner))
    begin = time.perf_counter()
    _, tasks, submit = by_labkit(made.samples, reference, aligner, folder / "runs")
    wall = time.perf_counter() - begin
    align = tasks.loc[["align"]]
    cpu = (align["cpu_seconds"].mean() - sum(b.cpu for b in bare) / count, submit / count)
    seconds = align["seconds"].mean() - sum(b.wall for b in bare) / count
    print(f"\n{count} samples of 20 pairs: the same pipe by bash takes each")
    print(
        f"  {sum(b.cpu for b in bare) / count:.2f} CPU s, {sum(b.wall for b in bare) / count:.2f} s"
    )
    print(f"labkit adds for each {cpu[0]:.2f} CPU s in the task and {cpu[1]:.3f} at the submit,")
    print(f"  {seconds:.2f} s of the task's wall; the whole job took {wall:.1f} s")


if __name__ == "__main__":
    main()
