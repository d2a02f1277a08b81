"""Real jobs: against the truth of simulated reads, and against the same work step by step."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from labkit.jobs.job import Job
from labkit.jobs.model import State
from labkit.workflows.alignment.task_code import histogram
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import simulate, stepwise
from tests.labkit.workflows.alignment.conftest import Data
from tests.labkit.workflows.alignment.stepwise import records

pytestmark = [needs_env("alignment"), pytest.mark.slow]


@pytest.fixture(scope="module")
def job(module_home: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One job with four samples: two lanes, single-end, two libraries, and one to be equal."""
    folder = tmp_path_factory.mktemp("more")
    libraries, _ = simulate.pairs(data.genome, folder, 300, name="libs", lanes=("L1",), copies=0)
    copy = {**libraries[0], "lane": "L2", "library": "second"}
    for mate in ("fastq_1", "fastq_2"):
        path = Path(libraries[0][mate])
        other = path.with_name(f"again_{path.name}")
        text = gzip.decompress(path.read_bytes()).replace(b"A00001:1:FC1:1:", b"A00001:1:FC2:1:")
        other.write_bytes(gzip.compress(text))
        copy[mate] = str(other)
    single = {"sample": "single", "fastq_1": _copied(data.rows[0]["fastq_1"], folder)}
    rows = [*data.rows, single, {**libraries[0], "library": "first"}, copy]
    for row in rows:
        for name in ("lane", "fastq_2", "library"):
            row.setdefault(name, "")
    done = helpers.run(helpers.Streams(rows, data.fasta, aligner="bwa"))
    assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
    return done


def _copied(path: str, folder: Path) -> str:
    copy = folder / f"copy_{Path(path).name}"
    copy.write_bytes(Path(path).read_bytes())
    return str(copy)


@pytest.fixture(scope="module")
def steps(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if stepwise.missing:
        pytest.skip(f"needs {', '.join(stepwise.missing)} (images/alignment/apt.txt)")
    return stepwise.align(tmp_path_factory.mktemp("stepwise"), data.fasta, data.rows)


def test_each_read_lies_where_it_was_taken_from(job: Job, data: Data) -> None:
    found = [r for r in records(helpers.sample(job, "s") / "s.bam") if r.primary]
    assert Counter(r.name for r in found) == Counter(dict.fromkeys(data.truth.places, 2))
    wrong = 0
    for record in found:
        contig, start, size, flipped = data.truth.places[record.name]
        forward = (record.mate == 1) is not flipped
        assert (record.contig, not record.flag & 16) == (contig, forward)
        wrong += record.outer != (start if forward else start + size)
    assert wrong < len(found) / 500  # an adapter's first bases may fit the genome by chance


def test_the_copies_that_were_simulated_are_the_duplicates(job: Job, data: Data) -> None:
    found = records(helpers.sample(job, "s") / "s.bam")
    marked = stepwise.duplicates(found)
    assert len(marked) == 2 * data.truth.copies
    kept = [data.truth.places[r.name][:3] for r in found if r.primary and not r.flag & 1024]
    assert set(Counter(kept).values()) == {2}  # of each fragment one pair stays


def test_it_is_what_the_steps_with_picard_give(job: Job, steps: Path) -> None:
    ours = helpers.sample(job, "s") / "s.bam"
    one, other = records(ours), records(steps)
    assert len(one) == len(other)
    assert stepwise.mapped(one) == stepwise.mapped(other)
    assert not stepwise.unlike(one, other)
    assert stepwise.depth(ours) == stepwise.depth(steps)

    def tags(found: list[stepwise.Record]) -> Counter[tuple[str, int, str, int, str, str, str]]:
        return Counter(
            (r.name, r.mate, r.contig, r.start, r.cigar, r.tags.get("NM", ""), r.tags.get("MD", ""))
            for r in found
        )

    assert tags(one) == tags(other)


def test_read_groups_are_complete_and_each_read_has_its_lane_s(job: Job) -> None:
    path = helpers.sample(job, "s") / "s.bam"
    head = stepwise.output("samtools", "view", "-H", str(path)).splitlines()
    groups = [line for line in head if line.startswith("@RG")]
    assert groups == [
        f"@RG\tID:s.{lane}\tSM:s\tLB:s\tPL:ILLUMINA\tPU:FC1.{lane[1:]}" for lane in ("L1", "L2")
    ]
    assert "SO:coordinate" in head[0]
    for record in records(path):
        assert record.tags["RG"] == f"s.L{record.name.split(':')[3]}"


def test_duplicates_are_looked_for_in_each_library_alone(job: Job) -> None:
    found = records(helpers.sample(job, "libs") / "libs.bam")
    assert len({r.name for r in found}) == 600
    assert not stepwise.duplicates(found)  # all fragments are there twice, in two libraries
    assert "Xl" not in found[0].tags


def test_single_end_reads_need_no_mates(job: Job, data: Data) -> None:
    folder = helpers.sample(job, "single")
    found = records(folder / "single.bam")
    assert len([r for r in found if r.primary]) == 3000
    assert not any(r.flag & 1 for r in found)
    assert len(stepwise.duplicates(found)) > 100
    content = json.loads((folder / "sample.json").read_text())
    assert content["reads"]["input"] == content["reads"]["primary"] == 3000


def test_everything_is_counted_measured_and_summed(job: Job, data: Data) -> None:
    folder = helpers.sample(job, "s")
    content = json.loads((folder / "sample.json").read_text())
    assert content["reads"] | {"records": 0, "final": 0} == {
        "input": 12_000,
        "trimmed": 12_000,
        "dropped": {},
        "aligned": 12_000,
        "primary": 12_000,
        "records": 0,
        "final": 0,
    }
    assert [lane["reads"] for lane in content["lanes"]] == [6000, 6000]
    flags = json.loads((folder / "metrics/flagstat.json").read_text())["QC-passed reads"]
    assert flags["primary duplicates"] == 2 * data.truth.copies
    lines = gzip.decompress((folder / "metrics/depth.tsv.gz").read_bytes()).decode().splitlines()
    bases = sum(int(line.split("\t")[2]) for line in lines)
    windows = [
        line.split("\t") for line in (folder / "metrics/windows.tsv").read_text().splitlines()
    ]
    assert windows[0] == ["contig", "start", "end", "mean_depth", "covered"]
    total = sum(float(depth) * (int(end) - int(start)) for _, start, end, depth, _ in windows[1:])
    assert abs(total / bases - 1) < 1e-4
    assert sum(int(window[4]) for window in windows[1:]) == len(lines)
    coverage = (folder / "metrics/coverage.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in coverage[1:]] == ["chrA", "chrB", "chrM"]
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums.sha256"], cwd=folder, check=True)
    commands = json.loads((folder / "commands.json").read_text())
    names = {entry["name"] for entry in commands["commands"]}
    assert {"bwa of lane L1", "cutadapt of lane L2", "sort", "markdup", "stats", "write"} <= names
    assert set(commands["versions"]) == {"bwa", "cutadapt", "samtools"}


def test_the_same_job_again_is_the_same_job(job: Job, data: Data) -> None:
    cached = job.run.folder.results / "reference" / "reference" / "reference.json"
    before = cached.stat().st_mtime_ns
    rows = [{**row} for row in data.rows]
    other = helpers.run(helpers.Streams(rows, data.fasta, aligner="bwa"))
    assert other.path != job.path
    again = helpers.Streams(rows, data.fasta, aligner="bwa").submit("local")
    assert again.path == other.path
    assert again.state is State.SUCCEEDED
    assert cached.stat().st_mtime_ns == before


def test_bwa_mem2_in_cram_with_uq_says_what_bwa_and_picard_say(
    job: Job, data: Data, steps: Path, module_home: Path
) -> None:
    workflow = helpers.Streams(
        data.rows, data.fasta, aligner="bwa-mem2", format="cram", uq=True, picard_metrics=True
    )
    other = helpers.run(workflow)
    assert other.state is State.SUCCEEDED, other.failed().to_dict("records")
    folder = helpers.sample(other, "s")
    assert (folder / "s.cram.crai").stat().st_size
    assert not list(folder.glob("*.bam"))
    found, wanted = records(folder / "s.cram", data.fasta), records(steps)

    def seen(all_records: list[stepwise.Record]) -> Counter[tuple[str, int, int, str, str]]:
        return Counter((r.name, r.mate, r.start, r.cigar, r.tags["UQ"]) for r in all_records)

    assert seen(found) == seen(wanted)
    assert not stepwise.unlike(found, wanted)
    check_picard_metrics(folder, found)


def picard_row(path: Path, number: int = 0) -> dict[str, str]:
    """Return a row of a metrics file of picard's."""
    lines = path.read_text().splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("## METRICS CLASS")) + 1
    names, values = (lines[at].split("\t") for at in (head, head + 1 + number))
    return dict(zip(names, values, strict=False))


def check_picard_metrics(folder: Path, found: list[stepwise.Record]) -> None:
    """Compare picard's files with what the alignment itself holds."""
    start = str(folder / "metrics/picard/s")
    primary = [record for record in found if record.primary]
    pair = picard_row(Path(f"{start}.alignment_summary_metrics.txt"), 2)
    assert pair["CATEGORY"] == "PAIR"
    assert int(pair["TOTAL_READS"]) == len(primary)
    assert int(pair["PF_READS_ALIGNED"]) == sum(not r.flag & 4 for r in primary)
    copies = picard_row(Path(f"{start}.duplicate_metrics.txt"))
    marked = 2 * int(copies["READ_PAIR_DUPLICATES"]) + int(copies["UNPAIRED_READ_DUPLICATES"])
    assert marked == sum(stepwise.duplicates(found).values()) > 0
    sizes = Path(f"{start}.insert_size_metrics.txt")
    assert int(picard_row(sizes)["READ_PAIRS"]) > 1000
    names, columns = histogram.read(sizes)
    assert names[0] == "insert_size"
    assert sum(columns[1]) <= int(picard_row(sizes)["READ_PAIRS"])
    pdf = Path(f"{start}.insert_size_histogram.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF") and len(pdf) > 5000
    sums = (folder / "checksums.sha256").read_text()
    assert "metrics/picard/s.insert_size_histogram.pdf" in sums


def test_long_reads_are_aligned_by_minimap2(data: Data, module_home: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.fastq.gz"
    truth = simulate.long_reads(data.genome, path, 150)
    rows = [{"sample": "nano", "fastq_1": str(path), "platform": "ont"}]
    done = helpers.run(helpers.Streams(rows, data.fasta, aligner="minimap2"))
    assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
    folder = helpers.sample(done, "nano")
    found = [r for r in records(folder / "nano.bam") if r.primary]
    assert len(found) == 150
    for record in found:
        contig, start = truth[record.name]
        assert record.contig == contig
        assert abs(record.start - start) < 100
    assert found[0].tags["RG"] == "nano.L1"
    assert {"NM", "MD"} <= found[0].tags.keys()
    content = json.loads((folder / "sample.json").read_text())
    assert (content["library"], content["options"]["mark_duplicates"]) == ("long", False)
    assert not (folder / "metrics/markdup.txt").exists()


LAMBDA = Path(__file__).resolve().parents[5] / "shared" / "data" / "alignment" / "lambda"


@pytest.mark.skipif(not LAMBDA.is_dir(), reason="needs the shared data: phage lambda")
def test_phage_lambda_gives_what_the_steps_with_picard_give(
    module_home: Path, tmp_path: Path
) -> None:
    if stepwise.missing:
        pytest.skip(f"needs {', '.join(stepwise.missing)} (images/alignment/apt.txt)")
    files = {f"fastq_{mate}": str(LAMBDA / f"reads_{mate}.fq.gz") for mate in (1, 2)}
    fasta = LAMBDA / "lambda_virus.fa"
    rows = [{"sample": "lambda", **files}]
    done = helpers.run(helpers.Streams(rows, fasta, aligner="bwa"))
    assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
    ours = helpers.sample(done, "lambda") / "lambda.bam"
    theirs = stepwise.align(tmp_path, fasta, rows)
    one, other = records(ours), records(theirs)
    assert stepwise.mapped(one) == stepwise.mapped(other)
    assert len(stepwise.duplicates(one)) >= 9
    assert not stepwise.unlike(one, other)
    assert stepwise.depth(ours) == stepwise.depth(theirs)
