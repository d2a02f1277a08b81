"""Variants called by the real bcftools, against the truth; and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.workflows.alignment import example, variants
from labkit.workflows.alignment.job import AlignmentJob, VariantsJob
from labkit.workflows.alignment.task_code.gather import schemas
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.support.job_helpers import Staged, stage

if TYPE_CHECKING:
    import pandas as pd

pytestmark = needs_env("alignment")

Key = tuple[str, int, str, str]


class Truth(NamedTuple):
    """A reference that differs from the sample in SNPs and indels, and all differences."""

    fasta: Path
    snps: dict[Key, str]
    indels: set[Key]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> example.Example:
    return example.make(
        tmp_path_factory.mktemp("reads"), pairs=12_000, contigs=(40_000, 9_000), snps=120, ploidy=2
    )


@pytest.fixture(scope="module")
def truth(made: example.Example, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Take bases out of the reference and put others in: the reads then have indels."""
    folder = tmp_path_factory.mktemp("reference")
    contigs = {}
    for block in made.reference.read_text().split(">")[1:]:
        name, *lines = block.split("\n")
        contigs[name] = "".join(lines)
    random = np.random.default_rng(11)
    known = made.variants
    edits: dict[str, list[tuple[int, int]]] = {}
    for name, sequence in contigs.items():
        taken = set(known[known["contig"] == name]["position"])
        spots = range(400, len(sequence) - 400, 900)
        free = [p for p in spots if not taken & set(range(p - 40, p + 40))]
        edits[name] = [(p, int(random.choice([-3, -2, -1, 1, 2, 5]))) for p in free]
    snps, rows = {}, []
    with (folder / "reference.fa").open("w") as file:
        for name, sequence in contigs.items():
            edited, at = "", 0
            for place, size in edits[name]:
                edited += sequence[at:place]
                anchor, start = sequence[place - 1], len(edited)
                if size < 0:  # the reference lacks bases that the reads have
                    rows.append((name, start, anchor, anchor + sequence[place : place - size]))
                    at = place - size
                else:
                    more = "".join(random.choice([*"ACGT"], size))
                    rows.append((name, start, anchor + more, anchor))
                    edited, at = edited + more, place
            file.write(f">{name}\n{edited + sequence[at:]}\n")
            for row in known[known["contig"] == name].to_dict("records"):
                shift = sum(size for place, size in edits[name] if place < row["position"])
                snps[name, row["position"] + shift, row["ref"], row["alt"]] = row["genotype"]
    return Truth(folder / "reference.fa", snps, normalized(folder, rows))


def normalized(folder: Path, rows: list[Key]) -> set[Key]:
    """Return indels as far to the left as they go: the same one can be written in many ways."""
    fasta = folder / "reference.fa"
    subprocess.run(["samtools", "faidx", fasta], check=True)
    lengths = [line.split("\t")[:2] for line in Path(f"{fasta}.fai").read_text().splitlines()]
    head = "".join(f"##contig=<ID={name},length={length}>\n" for name, length in lengths)
    body = "".join(f"{c}\t{p}\t.\t{r}\t{a}\t.\tPASS\t.\n" for c, p, r, a in rows)
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    text = f"##fileformat=VCFv4.2\n{head}{columns}{body}"
    command = ["bcftools", "norm", "-f", str(fasta), "-"]
    done = subprocess.run(command, input=text, check=True, capture_output=True, text=True)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line[0] != "#"]
    return {(c, int(p), r, a) for c, p, _, r, a, *_ in lines}


@pytest.fixture(scope="module")
def aligned(module_home: Path, made: example.Example, truth: Truth) -> AlignmentJob:
    job = labkit.Alignment(made.samples, truth.fasta, aligner="bwa").submit("local").wait(150)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    found = open_job(job.path)
    assert isinstance(found, AlignmentJob)
    return found


@pytest.fixture(scope="module")
def calls(aligned: AlignmentJob) -> VariantsJob:
    job = aligned.variants().submit("local").wait(100)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    assert isinstance(job, VariantsJob)
    return job


def keys(table: pd.DataFrame) -> list[Key]:
    columns = table[["contig", "position", "ref", "alt"]]
    return [tuple(row) for row in columns.itertuples(index=False)]


def test_snps_and_their_genotypes_are_those_of_the_truth(calls: VariantsJob, truth: Truth) -> None:
    table = calls.results("variants")
    found = table[(table["filter"] == "PASS") & (table["type"] == "snp")]
    genotypes = dict(zip(keys(found), found["genotype"], strict=True))
    right = genotypes.keys() & truth.snps.keys()
    assert len(right) / len(truth.snps) >= 0.97
    assert len(right) / len(genotypes) >= 0.98
    same = sum(genotypes[key] == truth.snps[key] for key in right)
    assert same / len(right) >= 0.97
    assert {genotypes[key] for key in right} == {"0/1", "1/1"}


def test_indels_are_found_where_they_belong(calls: VariantsJob, truth: Truth) -> None:
    table = calls.results("variants")
    found = set(keys(table[(table["filter"] == "PASS") & (table["type"] == "indel")]))
    assert len(truth.indels) >= 30
    assert len(found & truth.indels) / len(truth.indels) >= 0.9
    assert len(found & truth.indels) / len(found) >= 0.9


def test_numbers_per_sample_fit_the_calls(calls: VariantsJob) -> None:
    table, (row,) = calls.results("variants"), calls.results("calls").to_dict("records")
    good = table[table["filter"] == "PASS"]
    assert row["sample"] == "tumbler" and row["variants"] == len(table)
    assert row["passed"] == len(good) == row["snps"] + row["indels"] + row["other"]
    assert row["snps"] == row["transitions"] + row["transversions"]
    assert row["heterozygous"] + row["homozygous"] == len(good)
    assert row["mean_depth"] == pytest.approx(good["depth"].mean())
    depths = good["ref_depth"] + good["alt_depth"]
    assert (depths <= good["depth"] + 1).all() and (good["alt_depth"] > 3).all()
    stats = calls.run.folder.results / "calls" / "tumbler" / "metrics" / "calls.stats.txt"
    counted = [line.split("\t") for line in stats.read_text().splitlines() if line[:2] == "SN"]
    numbers = {values[2]: int(values[3]) for values in counted}
    assert numbers["number of SNPs:"] == row["snps"]
    assert numbers["number of indels:"] == row["indels"]


def test_the_vcf_is_indexed_and_has_its_checksum(calls: VariantsJob) -> None:
    (file,) = calls.results("vcfs").to_dict("records")
    assert hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest() == file["sha256"]
    assert file["index"] == f"{file['path']}.tbi"
    command = ["bcftools", "view", "-H", "-r", "contig2", file["path"]]
    lines = subprocess.check_output(command, text=True).splitlines()
    table = calls.results("variants")
    assert len(lines) == (table["contig"] == "contig2").sum() > 0


def test_report_and_command_lines_are_there(calls: VariantsJob) -> None:
    assert "Bcftools" in calls.report.read_text()
    steps = list(calls.results("commands")["step"])
    assert steps[:4] == [f"bcftools {name}" for name in ("mpileup", "call", "norm", "filter")]
    assert calls.results("versions").set_index("tool").loc["bcftools", "version"][0] == "1"
    assert set(calls.results()["table"]) == set(schemas.CALLS)


def test_the_same_calls_are_found_again_by_name(aligned: AlignmentJob, calls: VariantsJob) -> None:
    again = labkit.Variants(aligned.name).submit("local")
    assert again.path == calls.path and again.state is State.SUCCEEDED
    assert labkit.Variants(aligned.name, ploidy=1).plan("local").parameters["ploidy"] == 1


def test_options_are_refused_all_at_once(aligned: AlignmentJob) -> None:
    wrong = aligned.variants(ploidy=3, min_quality=-1, min_depth=True, min_mapping_quality="20; x")
    with pytest.raises(RefusedError) as refused:
        wrong.plan("local")
    for name in ("ploidy", "min_quality", "min_depth", "min_mapping_quality"):
        assert f"{name}: must be a number" in str(refused.value)


def test_large_genomes_are_handed_to_sarek(
    aligned: AlignmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MOST", 1000)
    with pytest.raises(RefusedError, match=r"for at most 1,000\. .*to_sarek"):
        aligned.variants().plan("local")


def test_alignments_that_are_gone_are_named(aligned: AlignmentJob) -> None:
    index = Path(aligned.results("bams")["index"][0])
    away = index.rename(index.with_suffix(".away"))
    try:
        with pytest.raises(RefusedError, match=r"sample tumbler: .*bai is not there any more"):
            aligned.variants(ploidy=1).plan("local")
    finally:
        away.rename(index)


def test_other_jobs_are_refused(module_home: Path) -> None:
    job = Staged(stage("only", "true"), name="other").submit("local").wait(30)
    with pytest.raises(RefusedError, match="is no alignment job"):
        labkit.Variants(job.name).plan("local")
    with pytest.raises(RefusedError, match="no-such-job"):
        labkit.Variants("no-such-job").plan("local")


def test_a_program_that_dies_in_the_chain_fails_the_sample(
    aligned: AlignmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'case $1 in norm) head -c 100 >/dev/null; kill -9 $$;; esac; exec "$REAL" "$@"'
    envs = helpers.environment(tmp_path, {"bcftools": script})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    job = aligned.variants(min_depth=7).submit("local", retries=0).wait(60)
    failed = job.failed().set_index("stage")
    assert "bcftools norm was ended by signal 9" in str(failed.loc["calls", "text"])
    assert "not one of 1 samples is good" in str(failed.loc["gather", "text"])
    assert not list((job.run.folder.results / "calls").glob("*"))
