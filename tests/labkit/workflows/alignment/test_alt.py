"""ALT contigs: the ``.alt`` file beside a reference counts, as for bwa itself."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labkit.jobs.model import State
from labkit.workflows.alignment import Alignment
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import simulate, stepwise

Seen = Counter[tuple[str, ...]]


@pytest.fixture(autouse=True)
def _home(lab_home: Path) -> None:
    """A home of the test's own."""


@pytest.fixture
def genome(tmp_path: Path) -> simulate.Genome:
    """A chromosome and another form of a part of it."""
    main = simulate.Genome.random({"chr1": 20_000}, seed=5).contigs["chr1"]
    other = main[5000:13_000].copy()
    places = np.arange(150, len(other), 300)
    other[places] = np.frombuffer(b"CGTA", "u1")[np.searchsorted(list(b"ACGT"), other[places])]
    return simulate.Genome({"chr1": main, "chr1_KI1v1_alt": other})


def write_alt(path: Path) -> Path:
    fields = ("chr1_KI1v1_alt", "0", "chr1", "5001", "60", "8000M", "*", "0", "0", "*", "*")
    path.write_text("@SQ\tSN:chr1\tLN:20000\n" + "\t".join(fields) + "\tNM:i:27\n")
    return path


def seen(sam: str) -> Seen:
    """Return name, mate, place, quality and CIGAR of each record."""
    found: Seen = Counter()
    for line in sam.splitlines():
        if not line.startswith("@"):
            name, flag, contig, start, quality, cigar, *_ = line.split("\t")
            found[name, str(int(flag) & ~1024), contig, start, quality, cigar] += 1
    return found


def unsure(found: Seen) -> int:
    return sum(count for (*_, quality, _), count in found.items() if quality == "0")


@needs_env("alignment")
@pytest.mark.slow
@pytest.mark.parametrize("aligner", ["bwa", "bwa-mem2"])
def test_mapping_qualities_are_those_of_bwa_with_the_alt_file(
    tmp_path: Path, genome: simulate.Genome, aligner: str
) -> None:
    fasta = genome.write(tmp_path / "ref.fa")
    rows, _ = simulate.pairs(genome, tmp_path, 600, copies=0, shortest=120)
    stepwise.output(aligner, "index", str(fasta))
    files = [rows[0][f"fastq_{mate}"] for mate in (1, 2)]
    found = {}
    for known in (False, True):
        if known:
            write_alt(tmp_path / "ref.fa.alt")
        sam = stepwise.output(aligner, "mem", "-K", "20000000", str(fasta), *files)
        workflow = helpers.Streams(rows, fasta, aligner=aligner, adapters=None)
        done = helpers.run(workflow)
        assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
        ours = stepwise.output("samtools", "view", str(helpers.sample(done, "s") / "s.bam"))
        found[known] = seen(ours)
        assert found[known] == seen(sam)
    assert unsure(found[False]) > 100
    assert unsure(found[True]) < 20


@needs_env("alignment")
def test_the_alt_file_belongs_to_the_key_whatever_it_is_called(
    tmp_path: Path, genome: simulate.Genome
) -> None:
    plain = genome.write(tmp_path / "ref.fa")
    packed = tmp_path / "packed.fa.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows, _ = simulate.pairs(genome, tmp_path, 20)
    for fasta, names in (
        (plain, ("ref.fa.alt", "ref.alt")),
        (packed, ("packed.fa.gz.alt", "packed.fa.alt", "packed.alt")),
    ):
        assert "reference.alt" not in Alignment(rows, fasta, aligner="bwa").plan("local").files
        for name in names:
            alt = write_alt(tmp_path / name)
            plan = Alignment(rows, fasta, aligner="bwa").plan("local")
            assert plan.files["reference.alt"] == alt.read_bytes()
            assert not plan.problems
            alt.unlink()


def test_alt_contigs_without_their_file_are_told_and_a_file_of_others_is_refused(
    tmp_path: Path, genome: simulate.Genome
) -> None:
    fasta = genome.write(tmp_path / "ref.fa")
    rows, _ = simulate.pairs(genome, tmp_path, 20)
    (found,) = Alignment(rows, fasta, aligner="bwa").check()
    assert found.warning
    assert "has an ALT contig (chr1_KI1v1_alt) and no .alt file beside it" in str(found)
    assert Alignment(rows, fasta, aligner="minimap2", preset="sr").check() == []
    allele = np.array([65] * 9, dtype=np.uint8)
    hla = simulate.Genome({"chr1": genome.contigs["chr1"], "HLA-A*01:01:01:01": allele})
    other = hla.write(tmp_path / "hla.fa")
    (found,) = Alignment(rows, other, aligner="bwa").check()
    assert found.warning
    assert "has an ALT contig (HLA-A*01:01:01:01)" in str(found)
    (tmp_path / "hla.fa.alt").write_text("chr9_alt\t0\tchr9\t1\t60\t9M\t*\t0\t0\t*\t*\n")
    (found,) = Alignment(rows, other, aligner="bwa").check()
    assert not found.warning
    assert "hla.fa.alt: names no contig of the reference." in str(found)
