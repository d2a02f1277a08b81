"""UMIs tell copies of a molecule from other molecules at its place, on reads of known truth."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.jobs.model import State
from labkit.workflows.alignment import Alignment
from labkit.workflows.alignment.task_code import fastq, umis
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import simulate, stepwise
from tests.labkit.workflows.alignment.conftest import Data

PLACES, MOLECULES, COPIED = 100, 4, 50  # places, molecules at each, molecules that have a copy
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


@pytest.mark.parametrize(
    ("name", "umi"),
    [
        (b"M1:1:FC:1:1101:10:20:ACGTACGT", b"ACGTACGT"),  # bcl-convert
        (b"M1:1:FC:1:1101:10:20:acgt+TTNA", b"ACGT-TTNA"),  # of both mates
        (b"SRR1.7_ACGT", b"ACGT"),  # umi_tools extract
        (b"SRR1.7_ACGT/1", b"ACGT"),
        (b"M1:1:FC:1:1101:10:20", b""),
        (b"ACGT", b""),
    ],
)
def test_a_umi_is_read_from_a_name(name: bytes, umi: bytes) -> None:
    assert umis.of_name(name) == umi


def umi_file(path: Path, records: list[tuple[bytes, bytes]]) -> Path:
    text = b"".join(b"@%b 2:N:0:1\n%b\n+\n%b\n" % (n, u, b"I" * len(u)) for n, u in records)
    path.write_bytes(gzip.compress(text))
    return path


def test_umis_of_a_file_are_taken_in_step(tmp_path: Path) -> None:
    content = [(b"r%d" % n, b"ACGT" if n % 2 else b"TTTT") for n in range(3000)]
    source = umis.FromFile(str(umi_file(tmp_path / "umi.fq.gz", content)))
    assert source.take([b"r0", b"r0/2", b"r1"]) == [b"TTTT", b"TTTT", b"ACGT"]  # mates in turn
    assert source.take([b"r%d" % n for n in range(2, 3000)])[-1] == b"ACGT"
    source.end()


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([(b"r1", b"AC"), (b"r3", b"AC")], "out of step with its UMIs: 'r2' is 'r3' in umi.fq"),
        ([(b"r1", b"AC")], "has more reads than umi.fq.gz has UMIs"),
        ([(b"r1", b"AC"), (b"r2", b"AC"), (b"r3", b"AC")], "has fewer reads than umi.fq.gz"),
        ([(b"r1", b"AC"), (b"r2", b"A" * 65)], "has UMIs in umi.fq.gz, where 'AAAAA"),
    ],
)
def test_umis_that_are_not_the_reads_are_refused(
    tmp_path: Path, records: list[tuple[bytes, bytes]], text: str
) -> None:
    source = umis.FromFile(str(umi_file(tmp_path / "umi.fq.gz", records)))
    with pytest.raises(fastq.FastqError, match=text):
        source.take([b"r1", b"r2"])
        source.end()


def test_a_name_without_umi_is_told() -> None:
    with pytest.raises(fastq.FastqError, match=r"read 3 is 'plain:1'"):
        source = umis.FromNames()
        source.take([b"a_AC", b"b_GT"])
        source.take([b"plain:1"])


class Molecules:
    """Pairs of known molecules: four at each place, fifty of them sequenced twice."""

    def __init__(self, genome: simulate.Genome) -> None:
        random = np.random.default_rng(3)
        bases = genome.contigs["chrA"]
        self.pairs: list[tuple[bytes, bytes, bytes, bytes]] = []  # name, UMI, mates
        for place in range(PLACES):
            fragment = bases[500 * place : 500 * place + 250].tobytes()
            mates = fragment[:100], fragment.translate(COMPLEMENT)[::-1][:100]
            for umi in (b"AAAACCCC", b"AAAACCCG", b"GGTTGGTT", b"TTTTTTTT")[:MOLECULES]:
                self.pairs.append((b"", umi, *mates))
        copied = random.choice(len(self.pairs), COPIED, replace=False)
        self.pairs += [self.pairs[at] for at in copied]
        self.pairs = [(b"p%d" % n, *pair[1:]) for n, pair in enumerate(self.pairs)]

    def write(self, folder: Path, mate: int, end: bytes = b"", *, half: int | None = None) -> Path:
        """Write a mate; ``end`` may have the UMI as ``%b``."""
        path = folder / f"{len(list(folder.iterdir()))}.fq"
        chosen = self.pairs if half is None else self.pairs[half::2]
        with path.open("wb") as file:
            for name, umi, *mates in chosen:
                head = name + (end % umi if b"%b" in end else end)
                line = b"%b %d:N:0:AC" % (head, mate + 1)
                file.write(b"@%b\n%b\n+\n%b\n" % (line, mates[mate], b"I" * 100))
        return path


def sheet(molecules: Molecules, folder: Path) -> list[dict[str, Any]]:
    in_name = [molecules.write(folder, mate, b":%b") for mate in (0, 1)]
    plain = [molecules.write(folder, mate) for mate in (0, 1)]
    alone = molecules.write(folder, 0, b"_%b")
    twins = {"fastq_1": 0, "fastq_2": 1}
    libraries = [
        {"sample": "libraries", "lane": f"L{half}", "library": f"lib {half}"}
        | {c: molecules.write(folder, mate, b":%b", half=half) for c, mate in twins.items()}
        for half in (0, 1)
    ]
    umi = umi_file(folder / "umi.fq.gz", [pair[:2] for pair in molecules.pairs])
    turn = folder / "turn.fq"
    lines = [path.read_bytes().splitlines(keepends=True) for path in in_name]
    turn.write_bytes(
        b"".join(b"".join(part[at : at + 4]) for at in range(0, len(lines[0]), 4) for part in lines)
    )
    return [
        {"sample": "name", "fastq_1": in_name[0], "fastq_2": in_name[1]},
        {"sample": "file", "fastq_1": plain[0], "fastq_2": plain[1], "fastq_umi": umi},
        {"sample": "single", "fastq_1": alone},
        {"sample": "turn", "fastq_1": turn},
        *libraries,
    ]


@needs_env("alignment")
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"aligner": "minimap2", "preset": "sr", "adapters": None}])
def test_molecules_at_one_place_are_no_duplicates(
    data: Data, lab_home: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    molecules = Molecules(data.genome)
    (tmp_path / "reads").mkdir()
    rows = [{"fastq_umi": "", "lane": "", "library": "", "fastq_2": "", **row}
            for row in sheet(molecules, tmp_path / "reads")]  # fmt: skip
    given = {"aligner": "bwa", **options}
    job = helpers.run(helpers.Streams(rows, data.fasta, umi="name", output=tmp_path, **given))
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    wanted = {pair[0]: pair[1].decode() for pair in molecules.pairs}
    for name, mates in (("name", 2), ("file", 2), ("single", 1), ("turn", 2), ("libraries", 2)):
        found = stepwise.records(helpers.sample(job, name) / f"{name}.bam")
        assert len(found) == mates * len(molecules.pairs)
        for record in found:
            plain = record.name.partition(":")[0].partition("_")[0]
            assert record.tags["RX"] == wanted[plain.encode()], record
            assert "Xl" not in record.tags
        copies = stepwise.duplicates(found)
        if name != "libraries":
            assert sum(copies.values()) == mates * COPIED, name
            continue
        # copies are those that lie in one library, with one UMI
        keys: set[Any] = set()
        expected = 0
        for number, pair in enumerate(molecules.pairs):
            key = (number % 2, *pair[1:])
            expected += 2 * (key in keys)
            keys.add(key)
        assert sum(copies.values()) == expected


def test_lanes_without_umis_are_told_before(data: Data, lab_home: Path, tmp_path: Path) -> None:
    molecules = Molecules(data.genome)
    path = molecules.write(tmp_path, 0)
    (found,) = Alignment([{"sample": "s", "fastq_1": path}], data.fasta, umi="name").check()
    assert "'p0' does not end with a UMI" in str(found)
    (found,) = Alignment([{"sample": "s", "fastq_1": path}], data.fasta, umi="read 2").check()
    assert "must be 'name' or None" in str(found)
    other = umi_file(tmp_path / "umi.fq.gz", [(b"x%d" % n, b"ACGT") for n in range(450)])
    row = {"sample": "s", "fastq_1": path, "fastq_umi": other}
    (found,) = Alignment([row], data.fasta).check()
    assert "read 1 is 'p0' in fastq_1 and 'x0' in fastq_umi" in str(found)
    mixed = [{**row, "lane": "1", "fastq_umi": umi_file(tmp_path / "u.fq.gz", [p[:2] for p in
              molecules.pairs])}, {"sample": "s", "lane": "2", "fastq_umi": "",
              "fastq_1": molecules.write(tmp_path, 1)}]  # fmt: skip
    (found,) = Alignment(mixed, data.fasta).check()
    assert "some lanes have UMIs and some have none" in str(found)
    row["fastq_umi"] = molecules.write(tmp_path, 1)
    (found,) = Alignment([row], data.fasta).check()
    assert "has reads of 100 bases: these are no UMIs" in str(found)
