"""Reads on targets, and the depth of each target, against made reads whose truth is known."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from labkit.jobs.model import State
from labkit.workflows.alignment import Alignment
from labkit.workflows.alignment.bed import read_bed
from labkit.workflows.alignment.task_code import regions
from labkit.workflows.alignment.task_code.regions import Region
from tests.conftest import needs_env
from tests.labkit.workflows.alignment import simulate
from tests.labkit.workflows.alignment.conftest import Data

CONTIGS = {"chr2": 5000, "chr1": 1000}


def bed(tmp_path: Path, text: str) -> tuple[list[Region], list[str]]:
    (tmp_path / "panel.bed").write_text(text)
    found, problems = read_bed("targets", str(tmp_path / "panel.bed"), CONTIGS)
    return found, [str(problem) for problem in problems]


def test_a_bed_is_read_in_the_references_order(tmp_path: Path) -> None:
    text = (
        "track name=panel\n# made by hand\nbrowser position chr1\n"
        "chr1\t10\t20\tEGFR exon 1\t0\t+\nchr2 5 9\nchr1\t0\t15\r\n\n"
    )
    wanted = [Region("chr2", 5, 9), Region("chr1", 0, 15), Region("chr1", 10, 20, "EGFR exon 1")]
    assert bed(tmp_path, text) == (wanted, [])
    assert regions.merge(wanted) == [("chr2", 5, 9), ("chr1", 0, 20)]
    packed = tmp_path / "panel.bed.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_bed("targets", str(packed), CONTIGS) == (wanted, [])
    place = tmp_path / "again.bed"
    regions.write(place, wanted)
    assert regions.read(place) == wanted


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("1\t5\t9", "line 1: is on 1, which the reference has not. The reference has chr2, chr1."),
        ("chr1\t990\t1001", "ends at 1,001; chr1 has 1,000 bases. Is it of another version"),
        ("chr1\t20\t20", "begins at 20 and ends at 20."),
        ("chr1\tstart\tend", "has 'start' and 'end' for start and end. A BED has contig, start"),
        ("chr1,5,9", "has 1 fields."),
        ("# nothing", "has no regions"),
    ],
)
def test_what_is_no_target_of_this_genome_is_refused(tmp_path: Path, line: str, text: str) -> None:
    (problem,) = bed(tmp_path, f"{line}\n")[1]
    assert text in problem, problem


def test_many_wrong_lines_are_counted_and_addresses_refused(tmp_path: Path) -> None:
    problems = bed(tmp_path, "1\t5\t9\n" * 99)[1]
    assert len(problems) == 6
    assert "94 more lines of panel.bed are wrong" in problems[-1]
    (address,) = read_bed("targets", "https://host/panel.bed", CONTIGS)[1]
    assert "is an address" in address.text
    (no_path,) = read_bed("baits", ["a.bed"], CONTIGS)[1]
    assert str(no_path) == "baits: must be the path of a BED file, not ['a.bed']."
    (missing,) = read_bed("targets", str(tmp_path / "none.bed"), CONTIGS)[1]
    assert "there is no file" in missing.text


def test_depth_of_regions_that_overlap(tmp_path: Path) -> None:
    found = [Region("chr2", 5, 9), Region("chr1", 0, 15, "a"), Region("chr1", 10, 20, "b")]
    # in the reference's order, as samtools writes it
    lines = "chr2\t7\t40\n" + "".join(f"chr1\t{at + 1}\t{at}\n" for at in range(1, 20))
    read, write = os.pipe()

    def give() -> None:
        os.write(write, lines.encode())
        os.close(write)

    feed = threading.Thread(target=give)
    feed.start()
    regions.collect(read, found, tmp_path / "targets.tsv")
    feed.join()
    os.close(read)
    head, *rows = [line.split("\t") for line in (tmp_path / "targets.tsv").read_text().splitlines()]
    assert head[:6] == ["contig", "start", "end", "name", "mean_depth", "lowest_depth"]
    assert rows[0][:6] == ["chr2", "5", "9", "", "10.0000", "0"]
    assert rows[1][3:6] == ["a", "7.0000", "0"]
    assert rows[2][3:8] == ["b", "14.5000", "10", "1.000000", "1.000000"]
    sums = (tmp_path / "targets.json").read_text()
    every = np.array([0, 40, 0, 0, *range(20)])
    assert f'"mean_depth": {every.mean()}' in sums
    assert '"bases": 24' in sums
    assert f'"covered_10": {float((every >= 10).mean())}' in sums


def pairs_at(genome: simulate.Genome, places: list[tuple[str, int, int]]) -> tuple[bytes, bytes]:
    """Return mates of 100 bases of fragments: (contig, start, length)."""
    complement = bytes.maketrans(b"ACGT", b"TGCA")
    files = [b"", b""]
    for number, (contig, start, length) in enumerate(places):
        fragment = genome.contigs[contig][start : start + length].tobytes()
        mates = fragment[:100], fragment.translate(complement)[::-1][:100]
        for mate, bases in enumerate(mates):
            files[mate] += b"@p%d\n%s\n+\n%s\n" % (number, bases, b"I" * len(bases))
    return files[0], files[1]


@needs_env("alignment")
@pytest.mark.slow
def test_a_panel_is_measured(data: Data, lab_home: Path, tmp_path: Path) -> None:
    on = [("chrA", 1000 + 7 * n, 150 + n) for n in range(60)]  # mates overlap
    off = [("chrA", 30_000 + 11 * n, 300) for n in range(40)]
    copies = on[:5] * 3
    for mate, content in enumerate(pairs_at(data.genome, on + off + copies), 1):
        (tmp_path / f"{mate}.fq").write_bytes(content)
    targets = [("chrA", 1100, 1200, "one"), ("chrA", 1150, 1300, "two"), ("chrB", 50, 60, "none")]
    (tmp_path / "t.bed").write_text("".join("\t".join(map(str, t)) + "\n" for t in targets))
    (tmp_path / "b.bed").write_text("chrA\t900\t2000\n")
    sheet = [{"sample": "s", "fastq_1": tmp_path / "1.fq", "fastq_2": tmp_path / "2.fq"}]
    job = Alignment(
        sheet, data.fasta, aligner="bwa", adapters=None,
        targets=tmp_path / "t.bed", baits=tmp_path / "b.bed", output=tmp_path,
    ).submit()  # fmt: skip
    job.wait(400)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    depth = np.zeros(60_000, int)
    for _, start, length in on:
        covered = np.zeros(60_000, bool)
        covered[start : start + 100] = covered[start + length - 100 : start + length] = True
        depth += covered
    rows = job.results("regions").set_index("name")
    for contig, start, end, name in targets[:2]:
        assert rows.loc[name, "mean_depth"] == pytest.approx(depth[start:end].mean(), abs=1e-4)
        assert rows.loc[name, "lowest_depth"] == depth[start:end].min()
        share = (depth[start:end] >= 10).mean()
        assert rows.loc[name, "covered_10"] == pytest.approx(share, abs=1e-6), contig
    assert rows.loc["none", "mean_depth"] == 0
    sums = job.results("on_target").set_index("intervals")
    ends = [
        end for _, start, n in on for end in ((start, start + 100), (start + n - 100, start + n))
    ]
    assert list(sums["reads"]) == [200, 200]  # copies do not count
    assert sums.loc["targets", "reads_on"] == sum(s < 1300 and e > 1100 for s, e in ends)
    assert sums.loc["baits", "reads_on"] == 120
    assert sums.loc["baits", "on_fraction"] == pytest.approx(0.6)
    assert sums.loc["targets", "bases"] == 210
    every = np.concatenate([depth[1100:1300], np.zeros(10)])
    assert sums.loc["targets", "mean_depth"] == pytest.approx(every.mean())
    assert sums.loc["targets", "median_depth"] == np.median(every)
