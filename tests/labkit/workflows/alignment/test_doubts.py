"""Samples by any name are in the report; results that are worth little say so."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.jobs.model import State
from labkit.workflows.alignment import aligners
from labkit.workflows.alignment.task_code import pipe
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import simulate
from tests.labkit.workflows.alignment.conftest import Data

pytestmark = [needs_env("alignment"), pytest.mark.slow, pytest.mark.usefixtures("lab_home")]


def align(data: Data, rows: list[dict[str, str]], **options: Any) -> Any:
    options = {"aligner": "bwa", **options}
    return labkit.Alignment(rows, data.fasta, **options).submit("local", retries=0).wait(250)


# MultiQC's own rules made one sample of the first four, and of A_B's lane C and A's lane B_C.
NAMES = ("A", "A.sorted", "A.dedup", "A_val_1", "A.stats", "A.stats.txt", "A_B")
LANES = {"A": "B_C", "A_B": "C"}


def named_rows(data: Data, folder: Path) -> list[dict[str, str]]:
    rows = []
    for number, name in enumerate(NAMES):
        (made,), _ = simulate.pairs(data.genome, folder, 60 + number, name=name, seed=number)
        rows.append({**made, "lane": LANES.get(name, "L1")})
    return rows


def test_the_report_has_each_sample_whatever_its_name(data: Data, tmp_path: Path) -> None:
    job = align(data, named_rows(data, tmp_path))
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    assert job.summary["report"]["missing"] == []
    page = job.report.read_text()
    for name in NAMES:
        assert f"{name} {LANES.get(name, 'L1')}" in page
    assert not len(job.results("problems"))
    table = job.results("alignment").set_index("sample")["reads_sequenced"]
    assert dict(table) == {name: 2 * (60 + number) for number, name in enumerate(NAMES)}


def test_a_sample_that_the_report_lacks_is_told(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = named_rows(data, tmp_path)[:2]
    script = 'rm -f "$1"/A.sorted.* "$1/A.sorted L1".*; exec "$REAL" "$@"'
    envs = helpers.environment(tmp_path, {"multiqc": script})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    job = align(data, rows)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    assert job.summary["report"]["missing"] == ["A.sorted", "A.sorted L1"]
    problems = job.results("problems")
    assert set(problems["sample"]) == {"A.sorted"}
    assert next(iter(problems["text"])) == "MultiQC's report does not show A.sorted"
    assert "1 sample lacks results" in job._repr_html_()


def strange(data: Data, folder: Path, **options: Any) -> list[dict[str, str]]:
    """Return rows of reads that were never in the genome."""
    other = simulate.Genome.random({"x": 20_000}, seed=99)
    return simulate.pairs(other, folder, 300, **options)[0]


def as_rna(row: dict[str, str]) -> None:
    for mate in ("fastq_1", "fastq_2"):
        path = Path(row[mate])
        lines = gzip.decompress(path.read_bytes()).splitlines()
        lines[1::4] = [line.replace(b"T", b"U") for line in lines[1::4]]
        path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))


def test_reads_that_are_nowhere_and_reads_that_were_all_dropped_are_told(
    data: Data, tmp_path: Path
) -> None:
    good, _ = simulate.pairs(data.genome, tmp_path, 300, name="good")
    short, _ = simulate.pairs(data.genome, tmp_path, 300, name="short", length=30)
    rna, _ = simulate.pairs(data.genome, tmp_path, 300, name="rna", seed=4)
    as_rna(rna[0])
    rows = [*good, *short, *rna, *strange(data, tmp_path, name="strange")]
    job = align(data, rows, minimum_length=35)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    texts = job.results("problems").set_index("sample")
    assert set(texts["reason"]) == {"WARNING"}
    assert sorted(texts.index) == ["rna", "short", "strange"]
    wanted = {
        "short": "all 600 reads were dropped (too short: 600)",
        "strange": "0 of 600 reads are mapped",
        "rna": "42 of 600 reads are mapped",  # by the stretches without a U
    }
    page, text = job._repr_html_(), repr(job)
    for sample, words in wanted.items():
        assert str(texts.loc[sample, "text"]).startswith(words)
        assert f"{sample}: {words}" in page and f"{sample}: {words}" in text
    assert "SUCCEEDED with 3 warnings:" in text and "SUCCEEDED with 3 warnings:" in page
    assert job.summary["report"]["made"]


def test_parts_with_other_columns_are_no_table(tmp_path: Path) -> None:
    from labkit.workflows.alignment.task_code.gather import gather, schemas

    tables = gather.Tables(tmp_path, schemas.ALIGNMENT)
    tables.add("contigs", "a", [{"contig": "chr1", "mapped": 3}])
    tables.add("contigs", "b", [{"contig": "chr1", "mapped": None}])
    with pytest.raises(pipe.Failed, match="c and a differ in columns of contigs: mapped"):
        tables.add("contigs", "c", [{"contig": "chr1"}])
    with pytest.raises(pipe.Failed, match=r"cycles has no columns kind"):
        tables.add("cycles", "a", [{"cycle": 1, "kind": 2}])
    tables.close()


def test_filters_are_as_usual_only_where_adapters_are_cut() -> None:
    usual = {"minimum_length": "auto", "max_n": "auto", "quality": 0}
    assert aligners.filters(usual, True) == {"minimum_length": 20, "max_n": 0.1, "quality": 0}
    assert aligners.filters(usual, False) == {"minimum_length": None, "max_n": None, "quality": 0}
    said = {"minimum_length": 50, "max_n": None, "quality": 9}
    assert aligners.filters(said, True) == aligners.filters(said, False) == said


def test_few_mapped_reads_are_told_with_their_numbers() -> None:
    from labkit.workflows.alignment.task_code.gather import quality

    about = {"reads": {"input": 1000, "dropped": {}}}
    row = {"reads": 1000, "mapped": 99, "paired": 0, "properly_paired": 0}
    assert quality.warnings(about, row)[0].startswith("99 of 1,000 reads are mapped")
    assert quality.warnings(about, row | {"mapped": 100}) == []
    paired = row | {"mapped": 990, "paired": 1000, "properly_paired": 42}
    assert "42 of 1,000 paired reads" in quality.warnings(about, paired)[0]
    about["reads"]["dropped"] = {"too_short": 400, "too_many_n": 200}
    (text,) = quality.warnings(about, row | {"mapped": 500})
    assert text.startswith("600 of 1,000 reads were dropped (too short: 400, too many n: 200)")
