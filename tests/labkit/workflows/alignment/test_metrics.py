"""What is read of the tools' reports and depths, and the example's reads: no job is run."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.workflows.alignment import example
from labkit.workflows.alignment.task_code import windows
from labkit.workflows.alignment.task_code.gather import metrics


def test_windows_without_reads_count_as_zero(tmp_path: Path) -> None:
    file = tmp_path / "windows.tsv"
    file.write_text("contig\tstart\tend\tmean_depth\tcovered\na\t100\t200\t2.5\t90\n")
    contigs: list[dict[str, Any]] = [{"contig": "a", "length": 250}, {"contig": "b", "length": 80}]
    found = [tuple(row.values()) for row in metrics.read_windows(file, contigs)]
    assert found == [
        ("a", 0, 100, 0.0, 0),
        ("a", 100, 200, 2.5, 90),
        ("a", 200, 250, 0.0, 0),
        ("b", 0, 80, 0.0, 0),
    ]


@pytest.mark.parametrize("block", [700, 256 * 1024])  # bytes that are parsed at once, at least
def test_depths_are_summed_in_the_windows_they_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    import pandas as pd

    monkeypatch.setattr(windows, "_BLOCK", block)
    random = np.random.default_rng(5)
    lengths = {"chr1": 999, "chr10": 3200, "chr1_alt": 150, "none": 800, "chr100": 2000, "one": 1}
    lines, truth = [], {}
    for contig, length in lengths.items():
        depth = random.integers(0, 40, length) * (random.random(length) < 0.8)
        depth[:] = depth if contig not in ("none", "one") else int(contig == "one")
        lines += [f"{contig}\t{n}\t{d}\n" for n, d in enumerate(depth, 1) if d or n % 7 == 0]
        for start in range(0, length, 250):
            here = depth[start : start + 250]
            if here.any():
                truth[contig, start] = (here.mean(), (here > 0).sum())
    (tmp_path / "depth").write_text("".join(lines))
    with (tmp_path / "depth").open("rb") as file:
        windows.collect(file.fileno(), lengths, 250, tmp_path / "w.tsv", tmp_path / "w.gz")
    assert gzip.decompress((tmp_path / "w.gz").read_bytes()) == (tmp_path / "depth").read_bytes()
    table = pd.read_csv(tmp_path / "w.tsv", sep="\t", keep_default_na=False)
    assert list(zip(table["contig"], table["start"], strict=True)) == list(truth)
    assert list(table["mean_depth"]) == pytest.approx(
        [mean for mean, _ in truth.values()], abs=1e-4
    )
    assert list(table["covered"]) == [covered for _, covered in truth.values()]


def test_the_example_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    import pandas as pd

    made = [example.make(tmp_path / name, pairs=100, contigs=(2000,), snps=4) for name in "ab"]
    for one, other in zip(*(sorted(m.folder.glob("*.fastq.gz")) for m in made), strict=True):
        unpacked = [subprocess.check_output(["gzip", "-dc", path]) for path in (one, other)]
        assert unpacked[0] == unpacked[1] != b""
    pd.testing.assert_frame_equal(made[0].variants, made[1].variants)


def test_reads_can_be_of_a_real_genome(tmp_path: Path) -> None:
    fasta = tmp_path / "real.fa"
    genome = example.make(tmp_path / "one", pairs=1, contigs=(900,), snps=0).reference.read_text()
    fasta.write_text(genome.replace(">contig1", ">chr1 of something").lower())
    made = example.make(tmp_path / "two", pairs=50, snps=3, genome_from=fasta)
    assert made.reference.read_text() == genome.replace("contig1", "chr1")
    assert set(made.variants["contig"]) == set(made.fragments["tumbler"]["contig"]) == {"chr1"}
    fasta.write_text(">chr1\nACGTNNACGT\n")
    with pytest.raises(ValueError, match="letters that are not A, C, G or T"):
        example.make(tmp_path / "three", pairs=1, snps=0, genome_from=fasta)


def test_weighted_median() -> None:
    assert metrics.weighted_median([(300, 2), (100, 5), (200, 2)]) == 100.0
    assert np.isnan(metrics.weighted_median([]))


def test_settings_of_gatk_reports_are_read(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_text(
        "#:GATKReport.v1.1:1\n#:GATKTable:6:2:%s:%d:%s:%.4f:%d:%.2f:;\n#:GATKTable:RecalTable1:\n"
        "ReadGroup  QualityScore  EventType  EmpiricalQuality  Observations  Errors\n"
        "my lane.1            30  M                   26.0000          9998   24.00\n"
        "my lane.1            45  I                   45.0000          9998    0.00\n\n"
    )
    (row,) = metrics.read_recalibration(report)
    assert row["read_group"] == "my lane.1" and row["reported"] == 30
    assert row["empirical"] == pytest.approx(-10 * np.log10(25 / 10_000))
    with pytest.raises(metrics.MetricsError, match="no table RecalTable2"):
        next(metrics.gatk_table(report, "RecalTable2"))
