"""What is refused before anything is started."""

from __future__ import annotations

import ast
import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.base.problems import RefusedError
from labkit.jobs.jobfile import load
from labkit.jobs.model import Environment
from labkit.workflows.alignment import Alignment, aligners, checks, reference
from labkit.workflows.alignment.gather_stage import gather_calls_stage, gather_stage
from labkit.workflows.alignment.task_code import fastq, programs, sizes
from tests.conftest import needs_env
from tests.labkit.workflows.alignment.conftest import Data

BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def refused(rows: Any, fasta: Path | str, **options: Any) -> str:
    """Return what a submit is refused with."""
    workflow = Alignment(rows, fasta, **options)
    with pytest.raises(RefusedError) as caught:
        workflow.submit("local")
    return "\n".join(str(problem) for problem in caught.value.problems)


def row(first: Path | str, second: Path | str = "", **more: str) -> dict[str, str]:
    return {"sample": "s", "fastq_1": str(first), "fastq_2": str(second), **more}


def reads(count: int, mate: str = "", length: int = 50, name: str = "r") -> bytes:
    return b"".join(
        f"@{name}{n}{mate}\n{'ACGTA' * (length // 5)}\n+\n{'I' * length}\n".encode()
        for n in range(count)
    )


@pytest.fixture(autouse=True)
def _home(lab_home: Path) -> None:
    """Nothing of a refused job may be in the home's runs."""


def test_all_problems_come_at_once_and_nothing_is_started(
    data: Data, tmp_path: Path, lab_home: Path
) -> None:
    broken = tmp_path / "broken.fastq.gz"
    broken.write_bytes(Path(data.rows[0]["fastq_1"]).read_bytes()[:-5000])
    text = tmp_path / "notes.txt"
    text.write_text("these are\nno reads\n")
    rows = [
        row(broken, lane="L1"),
        row(text, lane="L2"),
        row(tmp_path / "missing.fq", lane="L3"),
        row(data.rows[0]["fastq_2"], data.rows[0]["fastq_1"], lane="L4"),
        row(data.rows[1]["fastq_1"], lane="L4"),
    ]
    rows[4]["fastq_2"] = ""
    found = refused(rows, tmp_path / "no.fa", adapters="file:/etc/passwd", minimum_length=0)
    for wanted in (
        f"row 1, fastq_1: {broken} is cut off: its gzip data ends in the middle",
        "row 2, fastq_1: " + f"{text} is no FASTQ: read 1 begins with 'these are' instead of '@'",
        "row 3, fastq_1: there is no file",
        "row 4: fastq_1 holds the second mates and fastq_2 the first: they are swapped.",
        "row 5: sample s, lane L4 stands in row 4 already.",
        "reference: there is no file",
        "adapters: 'file:/etc/passwd' is neither a name nor a sequence",
        "minimum_length: must be a whole number from 1 to 1000, not 0.",
    ):
        assert wanted in found, found
    assert not (lab_home / "runs").exists()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is empty"),
        (b"BZh91AY", "is compressed by bzip2; only gzip is read"),
        (b">chr1\nACGT\n", "is no FASTQ: read 1 begins with '>chr1'"),
        (b"@r1\nACGT\n+\nIII\n", "read 1 has 4 bases and 3 qualities"),
        (b"@r1\nAC GT\n+\nIIIII\n", "read 1 holds letters that are no bases"),
        (b"@r1\nACGT\nACGT\n+\nIIII\nIIII\n", "is no FASTQ of four lines a read"),
        (b"@r1\nACGT\n+\n", "read 1 is not whole: the file is cut off"),
        (reads(5000)[:-20], "is cut off: its last read is not whole"),
        (gzip.compress(b"", mtime=0), "holds no reads"),
        (gzip.compress(reads(3000), mtime=0)[:-4], "is cut off: its gzip data ends in the middle"),
        (gzip.compress(reads(3000), mtime=0)[:-8] + b"\0" * 8, "is damaged near byte"),
        (
            gzip.compress(reads(3000) + b"@r\nACGT\n", mtime=0),
            "is cut off: its last read is not whole",
        ),
    ],
)
def test_a_file_that_is_no_whole_fastq_is_refused_by_its_cause(
    tmp_path: Path, data: Data, content: bytes, wanted: str
) -> None:
    path = tmp_path / "reads.fq.gz"
    path.write_bytes(content)
    assert wanted in refused([row(path)], data.fasta)


def test_a_large_file_in_blocks_without_its_end_mark_is_refused_without_reading_it(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    bgzip = shutil.which("bgzip")
    if bgzip is None:
        pytest.skip("needs bgzip (Debian package tabix)")
    plain = tmp_path / "reads.fq"
    plain.write_bytes(gzip.decompress(Path(data.rows[0]["fastq_1"]).read_bytes()))
    subprocess.run([bgzip, plain], check=True)
    packed = tmp_path / "reads.fq.gz"
    monkeypatch.setattr(checks, "_PROVED", 0)
    files, problems = checks.look_at_files(_samples(packed))
    assert problems == []
    assert abs(files[str(packed)].reads / 3000 - 1) < 0.1  # the estimate, for progress
    content = packed.read_bytes()
    assert content.endswith(BGZF_END)
    packed.write_bytes(content[: -len(BGZF_END)])
    _, problems = checks.look_at_files(_samples(packed))
    assert "is cut off: the end mark" in str(problems[0])


def _samples(path: Path) -> Any:
    from labkit.workflows.alignment.samplesheet import read_sheet

    return read_sheet([row(path)])[0]


def test_windows_line_ends_and_a_missing_last_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq"
    path.write_bytes(reads(10, "/1").replace(b"\n", b"\r\n")[:-2])
    head = fastq.look(str(path))
    assert (len(head.names), head.mates, head.longest) == (10, {1}, 50)


def test_files_of_different_lanes_are_no_mates(tmp_path: Path, data: Data) -> None:
    first, second = tmp_path / "a_1.fq", tmp_path / "b_2.fq"
    first.write_bytes(reads(10, "/1", name="a"))
    second.write_bytes(reads(10, "/2", name="b"))
    found = refused([row(first, second)], data.fasta)
    assert "read 1 is 'a0' in fastq_1 and 'b0' in fastq_2: they are not mates" in found
    second.write_bytes(reads(10, "/1", name="a"))
    assert "row 1, fastq_2: holds reads of mate 1." in refused([row(first, second)], data.fasta)


def test_long_reads_ask_for_minimap2_and_have_no_mates(tmp_path: Path, data: Data) -> None:
    path, other = tmp_path / "long.fq", tmp_path / "other.fq"
    path.write_bytes(reads(10, length=4000))
    other.write_bytes(reads(10, length=4000, name="o"))
    assert "has reads of 4,000 bases. Say preset='map-ont'" in refused([row(path)], data.fasta)
    found = refused([row(path, other)], data.fasta, preset="map-ont")
    assert "row 1, fastq_2: long reads have no mates." in found


@pytest.mark.parametrize(
    ("fai", "wanted"),
    [
        ("chrA\t60000\t99\t70\t71\n", "genome.fa.fai: does not belong to genome.fa."),
        ("chrA\t61000\t16\t70\t71\n", "genome.fa.fai: does not belong to genome.fa."),
        ("chrA\t60000\t16\t70\t71\n", "genome.fa.fai: does not belong to genome.fa."),
        ("nonsense", "genome.fa.fai: does not belong to genome.fa."),
    ],
)
def test_an_index_of_another_reference_is_refused(
    data: Data, tmp_path: Path, fai: str, wanted: str
) -> None:
    fasta = Path(shutil.copy(data.fasta, tmp_path))
    Path(f"{fasta}.fai").write_text(fai)
    assert wanted in refused(data.rows, fasta)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(">p\nMKVLAAGIE\n", "has letters that are no bases"), (">*\nACGTACGTA\n", "cannot hold")],
)
def test_what_an_index_belongs_to_is_looked_at_too(
    data: Data, tmp_path: Path, text: str, wanted: str
) -> None:
    fasta = tmp_path / "ref.fa"
    fasta.write_text(text)
    Path(f"{fasta}.fai").write_text(f"{text[1]}\t9\t3\t9\t10\n")
    assert wanted in refused(data.rows, fasta)


def test_masked_bases_and_ambiguous_ones_are_bases(tmp_path: Path) -> None:
    fasta = tmp_path / "ref.fa"
    fasta.write_text(">HLA-A*01:01 x\nacgtnXXNRYKMSWBDHV\n")
    assert reference.read_contigs(str(fasta)) == ({"HLA-A*01:01": 18}, [])


def test_addresses_that_are_not_read_are_told_as_such(data: Data, tmp_path: Path) -> None:
    rows = [row("https://ftp.example.org/a_1.fq.gz", "file:///data/a_2.fq.gz")]
    found = refused(rows, "ftp://x.org/ref.fa", known_sites="https://x.org/k.vcf")
    for wanted in (
        "row 1, fastq_1: https://ftp.example.org/a_1.fq.gz is an address, and https:// is not "
        "read: download the file first.",
        "row 1, fastq_2: file:///data/a_2.fq.gz is an address: write the path alone.",
        "reference: ftp://x.org/ref.fa is an address, and ftp:// is not read",
    ):
        assert wanted in found, found
    assert "no file" not in found
    found = refused(data.rows, data.fasta, known_sites="https://x.org/k.vcf")
    assert "known_sites: https://x.org/k.vcf is an address, and https:// is not read" in found


def test_the_right_index_is_believed_and_gives_the_contigs(data: Data, tmp_path: Path) -> None:
    samtools = shutil.which("samtools")
    if samtools is None:
        pytest.skip("needs samtools")
    fasta = Path(shutil.copy(data.fasta, tmp_path))
    subprocess.run([samtools, "faidx", fasta], check=True)
    subprocess.run([samtools, "dict", "-o", fasta.with_suffix(".dict"), fasta], check=True)
    wanted = {"chrA": 60_000, "chrB": 25_000, "chrM": 5_000}
    assert reference.read_contigs(str(fasta)) == (wanted, [])
    packed = tmp_path / "packed.fa.gz"
    packed.write_bytes(gzip.compress(fasta.read_bytes()))
    assert reference.read_contigs(str(packed)) == (wanted, [])


def test_a_dictionary_of_another_reference_is_refused(data: Data, tmp_path: Path) -> None:
    fasta = Path(shutil.copy(data.fasta, tmp_path))
    lines = ["@HD\tVN:1.6", "@SQ\tSN:chrA\tLN:60001", "@SQ\tSN:chrB\tLN:25000"]
    fasta.with_suffix(".dict").write_text("\n".join(lines) + "\n")
    found = refused(data.rows, fasta)
    assert "genome.dict: does not match genome.fa: chrA has 60,001 bases there" in found


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"ACGT\n", "is no FASTA: it does not begin with '>'."),
        (b"", "the reference is empty."),
        (b">a\nACGT\n>a\nAC\n", "has the sequence 'a' twice."),
        (b">a\n>b\nAC\n", "the sequence 'a' is empty."),
        (b">p\nMKVLAAGIE\n", "'p' has letters that are no bases: E, I, L. Is it a protein?"),
        (b">*\nACGT\n", "the sequence '*' has a name that SAM and BAM cannot hold."),
        (b">a,b\nACGT\n", "the sequence 'a,b' has a name that SAM and BAM cannot hold."),
        (gzip.compress(b">a\nACGT\n" * 99, mtime=0)[:-9], "is cut off or damaged"),
    ],
)
def test_what_is_no_reference_is_refused(
    data: Data, tmp_path: Path, content: bytes, wanted: str
) -> None:
    path = tmp_path / "ref.fa"
    path.write_bytes(content)
    assert wanted in refused(data.rows, path)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            ["##fileformat=VCFv4.2", "#CHROM", "1\t5\t.\tA\tC"],
            "has sites on 1, which the reference",
        ),
        (
            ["##fileformat=VCFv4.2", "##contig=<ID=chrA,length=7>", "#CHROM"],
            "was made for another reference: chrA has 7 bases there and 60,000 here.",
        ),
        (["##fileformat=VCFv4.2", "##contig=<ID=2,length=7>", "#CHROM"], "has sites on 2"),
        (["chrA\t1\t2"], "is no VCF that can be read"),
    ],
)
def test_known_sites_of_another_reference_are_refused(
    data: Data, tmp_path: Path, lines: list[str], wanted: str
) -> None:
    path = tmp_path / "known.vcf"
    path.write_text("\n".join(lines) + "\n")
    assert wanted in refused(data.rows, data.fasta, known_sites=path)
    packed = tmp_path / "known.vcf.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert wanted in refused(data.rows, data.fasta, known_sites=[packed])


def test_known_sites_of_this_reference_are_accepted(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "known.vcf"
    head = '##contig=<ID=chrA,length=60000,assembly="x">'
    path.write_text(f"##fileformat=VCFv4.2\n{head}\n#CHROM\nchrB\t5\t.\tA\tC\n")
    assert Alignment(data.rows, data.fasta, known_sites=path).check() == []


def test_a_disk_too_small_for_the_results_is_refused_with_both_numbers(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage("/")._replace(free=2 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    found = refused(data.rows, data.fasta)
    assert "the results will take about 17.7 MB, 2 MB are free" in found
    huge = small._replace(free=30 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: huge)
    assert "temporary files of the largest sample" in refused(data.rows, data.fasta)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"aligner": "bwamem2"}, "Did you mean 'bwa-mem2'?"),
        ({"aligner": "minimap2"}, "minimap2 needs one. Say preset='map-ont'"),
        ({"aligner": "bwa", "preset": "sr"}, "belongs to minimap2, not to bwa."),
        ({"format": "sam"}, "Valid: bam, cram."),
        ({"max_n": 2}, "must be a share of the read"),
        ({"optical_distance": -1}, "must be a whole number from 0 to 10000"),
        ({"mark_duplicates": "no"}, "must be True or False"),
        ({"environment": "../x"}, "is no name of an environment"),
        ({"adapters": ["^ACGTACGT"]}, "neither a name nor a sequence"),
        ({"adapters": [("ACGTACGT", "ACGTACGT", "ACGTA")]}, "cannot be ("),
        ({"adapters": 5}, "adapters: cannot be 5."),
    ],
)
def test_options_are_checked_by_an_allow_list(
    data: Data, options: dict[str, Any], wanted: str
) -> None:
    assert wanted in refused(data.rows, data.fasta, **options)


def test_adapters_are_names_sequences_or_pairs() -> None:
    truseq = ("AGATCGGAAGAGC", "AGATCGGAAGAGC")
    for value, wanted in (
        (None, []),
        (False, []),
        ("truseq", [truseq]),
        ("ACGTACGT", [("ACGTACGT", "ACGTACGT")]),
        (("AAAAACC", "CCCCCAA"), [("AAAAACC", "CCCCCAA")]),
        (["truseq", ("AAAAACC", "CCCCCAA")], [truseq, ("AAAAACC", "CCCCCAA")]),
    ):
        assert aligners.read_adapters(value) == (wanted, [])


@pytest.mark.parametrize(
    ("read", "platform", "wanted"),
    [
        (b"A00123:1:FC:1:1101:5:6", "ILLUMINA", 2500),
        (b"LH00123:1:FC:1:1101:5:6", "ILLUMINA", 2500),
        (b"K00123:1:FC:1:1101:5:6", "ILLUMINA", 2500),
        (b"M00123:1:FC:1:1101:5:6", "ILLUMINA", 100),
        (b"NB551234:1:FC:1:1101:5:6", "ILLUMINA", 100),
        (b"HWI-D00123:1:FC:1:1101:5:6", "ILLUMINA", 100),
        (b"read1", "ILLUMINA", 0),
        (b"A00123:1:FC:1:1101:5:6", "ONT", 0),
    ],
)
def test_the_optical_distance_follows_the_instrument(
    read: bytes, platform: str, wanted: int
) -> None:
    assert aligners.optical_distance(read, platform) == wanted


@needs_env("alignment")
def test_a_task_asks_for_what_genome_reads_and_cores_need(data: Data) -> None:
    gb = 1024**3
    assert sizes.task_memory("bwa-mem2", 90_000, 2, 1e6) < 3 * gb  # fits a small server
    human = 3_100_000_000
    assert 22 * gb < sizes.task_memory("bwa-mem2", human, 8, 5e10) < 27 * gb
    assert 8 * gb < sizes.task_memory("bwa", human, 8, 5e10) < 11 * gb
    asked = sizes.task_memory("bwa", human, 8, 5e10)
    assert 1.8 * gb < sizes.sort_memory(asked, "bwa", human, 8) < 2.4 * gb
    plan = Alignment(data.rows, data.fasta, aligner="bwa").plan("local")
    assert plan.stage("align").resources.memory == 2 * gb
    assert sum(task.units for task in plan.stage("align").tasks) == pytest.approx(12_000, rel=0.1)


@needs_env("alignment")
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_sort_gets_all_of_its_memory(threads: int) -> None:
    argv = programs.sort_argv(600 * 1024**2, threads, Path("sort"))
    each, others = (argv[argv.index(word) + 1] for word in ("-m", "-@"))
    assert int(others) == threads - 1
    # samtools takes -m for each further thread, and once where there is none
    assert int(each.removesuffix("K")) * max(1, threads - 1) == 600 * 1024


@needs_env("alignment")
def test_a_job_file_says_the_same_job(data: Data, tmp_path: Path) -> None:
    sheet = tmp_path / "samples.csv"
    fields = list(data.rows[0])
    lines = [",".join(fields), *(",".join(row[f] for f in fields) for row in data.rows)]
    sheet.write_text("\n".join(lines) + "\n")
    file = tmp_path / "job.json"
    content = {"samples": str(sheet), "reference": str(data.fasta), "aligner": "bwa"}
    file.write_text(json.dumps({"workflow": "alignment", **content, "options": {"cpu": 1}}))
    planned = load(file).plan("local").stage("align")
    wanted = Alignment(sheet, data.fasta, aligner="bwa").plan("local", cpu=1).stage("align")
    assert planned == wanted
    file.write_text(json.dumps({"workflow": "alignment", "samples": "x", "referenc": "y"}))
    with pytest.raises(RefusedError, match="Did you mean 'reference'"):
        load(file)


def test_what_runs_on_nodes_is_readable_by_python_3_9() -> None:
    for path in sorted(Path(fastq.__file__).parent.glob("*.py")):
        ast.parse(path.read_text(), feature_version=(3, 9))


def test_the_gathers_fit_beside_the_notebook_in_a_standard_server() -> None:
    """One that asked for all 4 GB of a server waited for ever: the notebook has some."""
    where = Environment("alignment")
    for stage in (gather_stage(where), gather_calls_stage(where)):
        assert stage.resources.memory <= 3 << 30
