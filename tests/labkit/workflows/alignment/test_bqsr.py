"""Base recalibration with the real GATK: its golden files, the truth, and what may go wrong."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import labkit
from labkit.workflows.alignment import example
from labkit.workflows.alignment.job import AlignmentJob
from labkit.workflows.alignment.task_code import pipe, programs, recalibrate
from labkit.workflows.alignment.task_code.gather import metrics
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.support.portal import REPOSITORY, built_envs

GOLDEN = REPOSITORY.parent / "shared" / "data" / "alignment" / "gatk_bqsr"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs GATK's golden files (shared/data/alignment/gatk_bqsr)"
)
pytestmark = needs_env("alignment")


def tools(folder: Path, envs: Path | None = None) -> programs.Tools:
    binaries = (envs or built_envs()) / "alignment" / "bin"
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return programs.Tools({**os.environ, "PATH": path}, folder, folder / "tools.log")


def gatk(folder: Path, *argv: object) -> None:
    options = {"JDK_JAVA_OPTIONS": "-Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1"}
    program = built_envs() / "alignment" / "bin" / "gatk"
    command = [str(program), *map(str, argv)]
    done = subprocess.run(
        command, env={**os.environ, **options}, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def view(path: Path, *options: str) -> list[list[str]]:
    """Return the records of an alignment."""
    shown = subprocess.check_output(["samtools", "view", *options, str(path)], text=True)
    return [line.split("\t") for line in shown.splitlines()]


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Reads whose reported qualities are 4 too good, aligned, over four contigs."""
    folder = tmp_path_factory.mktemp("overstated")
    made = example.make(
        folder, pairs=15_000, contigs=(9_000, 14_000, 5_000, 12_000), snps=40, overstated=4.0
    )
    names = (
        str(made.reference),
        *(f"{made.folder}/tumbler_L1_R{mate}.fastq.gz" for mate in (1, 2)),
    )
    subprocess.run(["bwa", "index", names[0]], check=True, capture_output=True)
    subprocess.run(["samtools", "faidx", names[0]], check=True)
    dictionary = made.reference.with_suffix(".dict")
    subprocess.run(["samtools", "dict", "-o", dictionary, names[0]], check=True)
    group = r"@RG\tID:g\tSM:tumbler\tLB:l\tPL:ILLUMINA\tPU:FC.1"
    sam = subprocess.run(
        ["bwa", "mem", "-t2", "-R", group, *names], check=True, capture_output=True
    )
    # half a pair that lies nowhere: it must not get lost
    lost = b"nowhere\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\tRG:Z:g\n"
    bam = folder / "aligned.bam"
    command = ["samtools", "sort", "--write-index", "-o", f"{bam}##idx##{bam}.bai", "-"]
    subprocess.run(command, input=sam.stdout + lost, check=True, capture_output=True)
    return SimpleNamespace(example=made, bam=bam)


def run(
    aligned: SimpleNamespace, folder: Path, target: str, envs: Path | None = None, cpu: int = 2
) -> programs.Tools:
    used = tools(folder, envs)
    recalibrate.run(
        used,
        aligned.bam,
        folder / target,
        aligned.example.reference,
        [aligned.example.known_sites],
        folder / "reports",
        cpu=cpu,
        memory=8 * 1024**3,
        tmp=folder,
        file_format=Path(target).suffix[1:],
    )
    return used


@pytest.fixture(scope="module")
def whole(aligned: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recalibrated by one process."""
    folder = tmp_path_factory.mktemp("whole")
    used = run(aligned, folder, "whole.bam")
    assert used.version("gatk").startswith("4.")
    steps = [c["argv"][1] for c in used.commands if c["argv"][0] == "gatk"]
    assert steps == ["IndexFeatureFile", "BaseRecalibrator", "ApplyBQSR"]
    return folder


@needs_golden
def test_the_environments_gatk_makes_gatks_golden_table(tmp_path: Path) -> None:
    sites = tmp_path / "sites.vcf"
    shutil.copyfile(GOLDEN / "dbsnp_132.b37.excluding_sites_after_129.chr17_69k_70k.vcf", sites)
    gatk(tmp_path, "IndexFeatureFile", "-I", sites)
    reads = GOLDEN / "NA12878.chr17_69k_70k.dictFix.bam"
    inputs = ("-I", reads, "-R", GOLDEN / "human_g1k_v37.chr17_1Mb.fasta", "--known-sites", sites)
    made = tmp_path / "table.txt"
    gatk(tmp_path, "BaseRecalibrator", *inputs, "-indels", "--enable-baq", "-O", made)
    assert made.read_text() == (GOLDEN / "expected.NA12878.chr17_69k_70k.txt").read_text()


@needs_golden
def test_the_environments_gatk_applies_a_golden_table_as_gatk_does(tmp_path: Path) -> None:
    table, made = tmp_path / "table", tmp_path / "made.bam"
    unpacked = subprocess.check_output(["gzip", "-dc", GOLDEN / "HiSeq.20mb.1RG.table.gz"])
    table.write_bytes(unpacked)
    reads = GOLDEN / "HiSeq.1mb.1RG.2k_lines.alternate.bam"
    gatk(tmp_path, "ApplyBQSR", "-I", reads, "--bqsr-recal-file", table, "-O", made)
    golden = view(GOLDEN / "expected.HiSeq.1mb.1RG.2k_lines.alternate.recalibrated.DIQ.bam")
    found = view(made)
    assert len(found) == len(golden) > 1600
    assert [r[:11] for r in found] == [r[:11] for r in golden]
    assert [r[10] for r in found] != [r[10] for r in view(reads)]


def test_qualities_say_what_errors_there_are(aligned: SimpleNamespace, whole: Path) -> None:
    before = promised_and_seen(aligned.bam, aligned.example)
    after = promised_and_seen(whole / "whole.bam", aligned.example)
    assert before[1] == after[1] > 8000  # the same errors
    assert before[1] / before[0] == pytest.approx(10**0.4, rel=0.1)  # 4 too good
    assert after[1] / after[0] == pytest.approx(1, abs=0.08)


def promised_and_seen(bam: Path, made: example.Example) -> tuple[float, int]:
    """Return how many errors the qualities promise, and how many there are, by the truth."""
    truth: dict[str, np.ndarray] = {}
    for block in made.reference.read_text().split(">")[1:]:
        name, *lines = block.split("\n")
        truth[name] = np.frombuffer("".join(lines).encode(), np.uint8).copy()
    for row in made.variants.to_dict("records"):
        truth[row["contig"]][row["position"] - 1] = ord(row["alt"])
    promised, seen = 0.0, 0
    for _, _, contig, start, _, cigar, *_, bases, qualities in (r[:11] for r in view(bam)):
        if cigar != "100M":
            continue
        quality = np.frombuffer(qualities.encode(), np.uint8) - 33.0
        here = truth[contig][int(start) - 1 : int(start) + 99]
        promised += float((10 ** (-quality / 10)).sum())
        seen += int((np.frombuffer(bases.encode(), np.uint8) != here).sum())
    return promised, seen


def test_contigs_shared_out_give_the_same_as_one_process(
    aligned: SimpleNamespace, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalibrate, "_PIECE", 10_000)
    used = run(aligned, tmp_path, "parts.bam", cpu=2)
    steps = [c["argv"][1] for c in used.commands if c["argv"][0] == "gatk"]
    assert steps.count("BaseRecalibrator") == steps.count("ApplyBQSR") == 2
    table = Path("reports") / recalibrate.TABLE
    assert list(metrics.read_recalibration(tmp_path / table)) == list(
        metrics.read_recalibration(whole / table)
    )
    parts = view(tmp_path / "parts.bam")
    assert parts == view(whole / "whole.bam")
    assert [r[0] for r in parts] == [r[0] for r in view(aligned.bam)]
    assert parts[-1][0] == "nowhere"
    placed = ["samtools", "idxstats"]
    assert subprocess.check_output([*placed, tmp_path / "parts.bam"]) == subprocess.check_output(
        [*placed, aligned.bam]
    )
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["reports"]


def test_cram_is_written_with_its_index_and_indexed_sites_are_used_as_they_are(
    aligned: SimpleNamespace, whole: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "sites.vcf.gz"
    sites, reference = aligned.example.known_sites, aligned.example.reference
    packed.write_bytes(subprocess.check_output(["bgzip", "-c", str(sites)]))
    subprocess.run(["tabix", "-p", "vcf", packed], check=True)
    made_up = SimpleNamespace(reference=reference, known_sites=packed)
    used = run(SimpleNamespace(bam=aligned.bam, example=made_up), tmp_path, "out.cram")
    argv = next(c["argv"] for c in used.commands if c["name"] == "BaseRecalibrator")
    assert argv[argv.index("--known-sites") + 1] == str(packed)
    assert not any(c["name"] == "IndexFeatureFile" for c in used.commands)
    assert (tmp_path / "out.cram.crai").is_file()
    found = view(tmp_path / "out.cram", "-T", str(reference))
    assert [r[:11] for r in found] == [r[:11] for r in view(whole / "whole.bam")]


def test_reads_that_gatk_loses_fail_the_task_with_numbers(
    aligned: SimpleNamespace, whole: Path, tmp_path: Path
) -> None:
    thief = """
tool=$1
while [ $# -gt 0 ]; do case "$1" in -I) in=$2;; -O) out=$2;; esac; shift; done
case "$tool" in
BaseRecalibrator) cp '{table}' "$out";;
ApplyBQSR) samtools view -b -s 0.5 -o "$out" "$in";;
esac"""
    table = whole / "reports" / recalibrate.TABLE
    envs = helpers.environment(tmp_path, {"gatk": thief.replace("{table}", str(table))})
    with pytest.raises(pipe.Failed, match=r"changed the reads: [\d,]+ of 30,001 total reads"):
        run(aligned, tmp_path, "out.bam", envs)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            "***********\n\nA USER ERROR has occurred: Input files reference and features have "
            "incompatible contigs.\n\n***********\nSet the system property GATK_STACKTRACE_ON",
            "Input files reference and features have incompatible contigs",
        ),
        (
            "12:00:00.123 INFO  ApplyBQSR - Shutting down engine\n[x] org.broadinstitute.BQSR "
            "done. Elapsed time: 0.02 minutes.\nRuntime.totalMemory()=2\n"
            "org.broadinstitute.hellbender.exceptions.GATKException: No room in the table\n"
            + "".join(f"\tat org.broadinstitute.hellbender.A.b(A.java:{n})\n" for n in range(99)),
            "GATKException: No room in the table",
        ),
        (
            'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat a.b(C:1)',
            "OutOfMemoryError: Java heap space",
        ),
    ],
)
def test_a_gatk_that_fails_is_told_by_its_reason(
    aligned: SimpleNamespace, tmp_path: Path, said: str, wanted: str
) -> None:
    (tmp_path / "said").write_text(said + "\n")
    envs = helpers.environment(tmp_path, {"gatk": f"cat {tmp_path / 'said'} >&2; exit 2"})
    with pytest.raises(pipe.Failed) as caught:
        run(aligned, tmp_path, "out.bam", envs)
    assert caught.value.text == f"{wanted} (IndexFeatureFile ended with code 2)"


@pytest.mark.parametrize("all_lanes", [False, True])
def test_a_read_group_without_a_usable_read_keeps_its_qualities_and_is_told(
    module_home: Path, tmp_path: Path, all_lanes: bool
) -> None:
    made = example.make(tmp_path, pairs=800, lanes=2, contigs=(9_000,), snps=5, duplicates=0)
    random = np.random.default_rng(3)
    for path in sorted(made.folder.glob("tumbler_L*_R?.fastq.gz")):
        if all_lanes or "_L2_" in path.name:  # reads that lie nowhere
            records = gzip.decompress(path.read_bytes()).splitlines()
            records[1::4] = [
                random.choice(list("ACGT"), 100).astype("S1").tobytes() for _ in records[1::4]
            ]
            path.write_bytes(gzip.compress(b"\n".join(records) + b"\n"))
    workflow = labkit.Alignment(
        made.samples, made.reference, aligner="bwa", known_sites=made.known_sites, adapters=None
    )
    job: Any = workflow.submit("local", retries=0).wait(150)
    assert not len(job.failed()), job.failed().to_dict("records")
    (bam,) = job.results("bams").to_dict("records")
    truth: dict[tuple[str, str], str] = {}
    for path in made.folder.glob("tumbler_L*_R?.fastq.gz"):
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        for head, bases, quality in zip(lines[0::4], lines[1::4], lines[3::4], strict=True):
            truth[head[1:].split(" ")[0], bases] = quality
    same = {"L1": set(), "L2": set()}  # type: dict[str, set[bool]]
    for name, flag, *_, bases, quality in (r[:11] for r in view(Path(bam["path"]))):
        if int(flag) & 4:
            lane = f"L{name.split(':')[3]}"
            same[lane].add(truth[name, bases] == quality)
    assert same["L2"] == {True}
    (row, *_) = job.results("problems").to_dict("records")
    groups = ["tumbler.L1", "tumbler.L2"] if all_lanes else ["tumbler.L2"]
    assert row["sample"] == "tumbler" and row["reason"] == "WARNING"
    texts = " ".join(job.results("problems")["text"])
    assert f"no usable read in {', '.join(groups)}" in texts
    assert f"no usable read in {', '.join(groups)}" in job._repr_html_()


def test_an_environment_without_gatk_says_so(aligned: SimpleNamespace, tmp_path: Path) -> None:
    envs = helpers.environment(tmp_path, {"gatk": "exit 0"})
    (envs / "alignment" / "bin" / "gatk").unlink()
    with pytest.raises(pipe.Failed, match="'gatk' is not installed"):
        run(aligned, tmp_path, "out.bam", envs)


def test_a_job_recalibrates_and_tells_what_it_found(module_home: Path, tmp_path: Path) -> None:
    made = example.make(tmp_path, pairs=3000, contigs=(20_000,), snps=10, overstated=4.0)
    workflow = labkit.Alignment(
        made.samples, made.reference, aligner="bwa", known_sites=made.known_sites
    )
    plain = labkit.Alignment(made.samples, made.reference, aligner="bwa")
    scratch = [w.plan("local").stage("align").resources.scratch for w in (plain, workflow)]
    assert scratch[1] > scratch[0]
    job = workflow.submit("local").wait(150)
    assert isinstance(job, AlignmentJob) and not len(job.failed())
    (bam,) = job.results("bams").to_dict("records")
    assert bam["recalibrated"] and Path(bam["recalibration_table"]).is_file()
    promised, seen = promised_and_seen(Path(bam["path"]), made)
    assert seen / promised == pytest.approx(1, abs=0.15)
    table = job.results("recalibration")
    assert table["errors"].sum() / seen == pytest.approx(1, abs=0.15)
    assert (table["reported"] - table["empirical"])[table["bases"] > 5000].mean() > 3
    assert job.results("versions").set_index("tool")["version"]["gatk"].startswith("4.")
    assert len(job.plot().axes) == 4 and job.plot("recalibration").axes[0].lines
    assert job.to_sarek(tmp_path / "sarek.csv").step == "variant_calling"


def test_contigs_are_shared_out_in_order_and_evenly() -> None:
    random = np.random.default_rng(5)
    for _ in range(60):
        lengths = [int(n) for n in random.integers(1, 100, random.integers(1, 9))]
        contigs = [(f"c{n}", length) for n, length in enumerate(lengths)]
        most = int(random.integers(1, 6))
        pieces = recalibrate.share_out(contigs, most)
        assert [contig for piece in pieces for contig in piece] == contigs
        assert 1 <= len(pieces) <= most and all(pieces)
        assert max(sum(length for _, length in piece) for piece in pieces) == best(lengths, most)


def best(lengths: Sequence[int], most: int) -> int:
    """Return the smallest largest piece of all ways to cut."""
    found = sum(lengths)
    for cuts in range(min(most, len(lengths))):
        for places_cut in combinations(range(1, len(lengths)), cuts):
            ends = [0, *places_cut, len(lengths)]
            largest = max(sum(lengths[a:b]) for a, b in pairwise(ends))
            found = min(found, largest)
    return found


def test_processes_fit_cores_memory_and_genome() -> None:
    human = [(f"chr{n}", 130_000_000) for n in range(1, 25)]
    gb = 1024**3
    assert recalibrate.processes(human, 8, 64 * gb) == 8
    assert recalibrate.processes(human, 8, 4 * gb) == 2
    assert recalibrate.processes(human, 1, 64 * gb) == 1
    assert recalibrate.processes([("ecoli", 4_600_000)], 8, 64 * gb) == 1
