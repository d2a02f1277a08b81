"""Whole records, mates in step, and mates in turn: as real files have them."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.jobs.job import Job
from labkit.jobs.model import State
from labkit.workflows.alignment import Alignment, checks
from labkit.workflows.alignment.task_code import fastq, records
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import simulate, stepwise
from tests.labkit.workflows.alignment.conftest import Data

Record = tuple[bytes, bytes, bytes, bytes]
PAIRS = 1500


@pytest.fixture(autouse=True)
def _home(lab_home: Path) -> None:
    """Nothing of a refused job may be in the home's runs."""


@pytest.fixture(scope="module")
def mates(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], ...]:
    """Records of first and of second mates, named without a comment."""
    rows, _ = simulate.pairs(data.genome, tmp_path_factory.mktemp("mates"), PAIRS, seed=11)
    return tuple(split(Path(rows[0][f"fastq_{mate}"]).read_bytes()) for mate in (1, 2))


def split(content: bytes) -> list[Record]:
    lines = gzip.decompress(content).splitlines()
    heads = [line.split(b" ")[0] for line in lines[0::4]]
    return list(zip(heads, lines[1::4], lines[2::4], lines[3::4], strict=True))


def write(path: Path, content: list[Record], end: bytes | Callable[[int], bytes] = b"") -> Path:
    with path.open("wb") as file:
        for number, (head, *rest) in enumerate(content):
            tail = end if isinstance(end, bytes) else end(number)
            file.write(b"\n".join((head + tail, *rest)) + b"\n")
    return path


def in_turn(mates: tuple[list[Record], ...]) -> list[Record]:
    return [record for pair in zip(*mates, strict=True) for record in pair]


def row(first: Path, second: Path | str = "") -> dict[str, str]:
    return {"sample": "s", "fastq_1": str(first), "fastq_2": str(second)}


def problems(data: Data, *files: Path, **options: Any) -> list[str]:
    found = Alignment([row(*files)], data.fasta, **options).check()
    return [str(problem) for problem in found if not problem.warning]


ENDS = {
    "equal": (b"", b""),
    "old Illumina": (b"/1", b"/2"),
    "Casava": (b" 1:N:0:ACGT", b" 2:N:0:ACGT"),
    "SRA": (b".1", b".2"),
    "SRA with a comment": (b".1 length=100", b".2 length=100"),
    "underscore": (b"_1", b"_2"),
    "forward and reverse": (b"/F", b"/R"),
}


def seen(bam: Path) -> Counter[tuple[Any, ...]]:
    """Return all that bwa says of each read."""
    return Counter(
        (r.name, r.flag & ~1024, r.contig, r.start, r.cigar, r.tags.get("NM"))
        for r in stepwise.records(bam)
    )


def run(data: Data, *files: Path, **options: Any) -> Job:
    workflow = helpers.Streams([row(*files)], data.fasta, aligner="bwa", **options)
    return helpers.run(workflow, retries=0)


@pytest.fixture(scope="module")
def wanted(
    data: Data, mates: tuple[list[Record], ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What bwa and picard, step by step, say of the mates in two files."""
    if stepwise.missing:
        pytest.skip(f"needs {', '.join(stepwise.missing)} (images/alignment/apt.txt)")
    folder = tmp_path_factory.mktemp("steps")
    files = [folder / f"{mate}.fastq.gz" for mate in (1, 2)]
    for path, content in zip(files, mates, strict=True):
        plain = write(path.with_suffix(""), content).read_bytes()
        path.write_bytes(gzip.compress(plain, 1))
    return stepwise.align(folder, data.fasta, [{**row(*files), "lane": "L1"}])


@needs_env("alignment")
@pytest.mark.slow
@pytest.mark.parametrize("style", list(ENDS))
@pytest.mark.parametrize("files", [1, 2])
def test_mates_are_found_however_their_names_tell_them(
    data: Data,
    mates: tuple[list[Record], ...],
    tmp_path: Path,
    wanted: Path,
    style: str,
    files: int,
) -> None:
    first, second = ENDS[style]
    if files == 2:
        paths = [
            write(tmp_path / f"{mate}.fq", content, end)
            for mate, content, end in zip((1, 2), mates, (first, second), strict=True)
        ]
    else:
        turn = (first, second)
        paths = [write(tmp_path / "turn.fq", in_turn(mates), lambda n: turn[n % 2])]
    done = run(data, *paths)
    assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
    ours = helpers.sample(done, "s") / "s.bam"
    assert seen(ours) == seen(wanted)
    assert not stepwise.unlike(stepwise.records(ours), stepwise.records(wanted))
    assert all(r.flag & 1 for r in stepwise.records(ours))


@needs_env("alignment")
@pytest.mark.slow
@pytest.mark.parametrize("options", [{"adapters": None}, {"aligner": "minimap2", "preset": "sr"}])
def test_mates_in_turn_are_mates_without_cutadapt_and_for_minimap2(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path, options: dict[str, Any]
) -> None:
    turn = write(tmp_path / "turn.fq", in_turn(mates), lambda n: (b".1", b".2")[n % 2])
    two = [write(tmp_path / f"{n}.fq", content) for n, content in enumerate(mates)]
    options = {"aligner": "bwa", **options}
    found = []
    for files in ([turn], two):
        workflow = helpers.Streams([row(*files)], data.fasta, **options)
        done = helpers.run(workflow, retries=0)
        assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
        found.append(seen(helpers.sample(done, "s") / "s.bam"))
    assert found[0] == found[1]
    assert all(flag & 1 for _, flag, *_ in found[0])


def test_reads_that_only_look_like_mates_are_single(data: Data, tmp_path: Path) -> None:
    """SRR1.1 and SRR1.2 are the first two spots of a run, not mates."""
    names = [(b"@SRR1.%d" % n, b"ACGT" * 9, b"+", b"I" * 36) for n in range(1, 40)]
    for content in (names, names[:2], names[:1], [(b"@r", *names[0][1:])] * 4):
        workflow = Alignment([row(write(tmp_path / "reads.fq", content))], data.fasta)
        assert workflow.check() == []
        assert workflow.prepared.library == "single"


@pytest.mark.parametrize(
    "order", ["one file after the other", "some without mates", "late", "odd", "late without mates"]
)
def test_mates_that_are_not_in_turn_are_refused(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path, order: str
) -> None:
    one, two = (
        [(head + end, *rest) for head, *rest in content]
        for content, end in zip(mates, (b" 1:N:0:A", b" 2:N:0:A"), strict=True)
    )
    turn: Any = in_turn((one, two))  # type: ignore[arg-type]
    content: Any = {
        "one file after the other": one + two,
        "some without mates": turn[:99] + turn[100:],
        "late": turn[:2001] + turn[2002:],
        "odd": turn[:-1],
        "late without mates": one + two[:1],
    }[order]
    (found,) = problems(data, write(tmp_path / "turn.fq", content))
    assert "mates" in found and ("turn" in found or "its own" in found)


def late(mates: tuple[list[Record], ...]) -> list[Record]:
    """Second mates that are out of step from read 1,200 on."""
    return [*mates[1][:1199], *mates[1][1200:], mates[1][1199]]


def test_mates_out_of_step_after_the_first_thousand_are_refused(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path
) -> None:
    first = write(tmp_path / "a_1.fq", mates[0], b"/1")
    second = write(tmp_path / "a_2.fq", late(mates), b"/2")
    (found,) = problems(data, first, second)
    assert "read 1,200 is " in found and "they are not mates of each other" in found
    write(second, mates[1][:-3], b"/2")
    (found,) = problems(data, first, second)
    assert f"they are no mates: a_2.fq has {PAIRS - 3:,} reads, a_1.fq has" in found


BAD: dict[str, tuple[Record, str]] = {
    "qualities": (
        (b"@x", b"ACGTACGT", b"+", b"IIII"),
        "read 1,301 has 8 bases and 4 qualities",
    ),
    "a quality below '!'": ((b"@x", b"ACGT", b"+", b"II I"), "quality outside of '!' to '~'"),
    "a quality above '~'": ((b"@x", b"ACGT", b"+", b"II\x7fI"), "quality outside of '!' to '~'"),
    "letters": ((b"@x", b"AC?T", b"+", b"IIII"), "read 1,301 holds letters that are no bases"),
    "a name": (
        (b"@" + b"n" * 255, b"ACGT", b"+", b"IIII"),
        "name of 255 characters; BAM takes 254",
    ),
    "no name": ((b"@ 1:N:0", b"ACGT", b"+", b"IIII"), "read 1,301 has no name that BAM takes"),
    "an @": ((b"@@x", b"ACGT", b"+", b"IIII"), "read 1,301 has no name that BAM takes: '@x'"),
    "a letter": (("@é".encode(), b"ACGT", b"+", b"IIII"), "that is no plain ASCII"),
    "a head": ((b"x", b"ACGT", b"+", b"IIII"), "read 1,301 begins with 'x' instead of '@'"),
    "a plus": ((b"@x", b"ACGT", b"IIII", b"IIII"), "has no '+' in its third line"),
    "a long one": (
        (b"@x", b"ACGT" * 10_000, b"+", b"IIII" * 10_000),
        "has a read of 40,000 bases among short ones: read 1,301",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_record_after_the_first_thousand_is_checked_like_the_first(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path, what: str
) -> None:
    record, wanted = BAD[what]
    content = [*mates[0][:1300], record, *mates[0][1300:]]
    (found,) = problems(data, write(tmp_path / "reads.fq", content))
    assert wanted in found


@needs_env("alignment")
@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["qualities", "a long one", "out of step", "in turn", "old qualities"]
)
@pytest.mark.parametrize("adapters", ["truseq", None])
def test_large_files_are_checked_while_they_are_read(
    data: Data,
    mates: tuple[list[Record], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    adapters: Any,
) -> None:
    monkeypatch.setattr(checks, "_PROVED", 0)  # as if they were too large to be proved before
    if what == "out of step":
        wanted = "read 1,200 is "
        files = [write(tmp_path / "1.fq", mates[0]), write(tmp_path / "2.fq", late(mates))]
    elif what == "in turn":
        wanted = "turn.fq holds mates in turn, but reads 2,001 and 2,002 are "
        turn = in_turn(mates)
        files = [write(tmp_path / "turn.fq", turn[:2001] + turn[2002:])]
    elif what == "old qualities":
        wanted = "1.fq has base qualities from 'A' to 'h': they are Phred+64"
        files = [write(tmp_path / "1.fq", old_qualities(mates[0]))]
    else:
        record, wanted = BAD[what]
        files = [write(tmp_path / "1.fq", [*mates[0][:1300], record, *mates[0][1300:]])]
    (failed,) = run(data, *files, adapters=adapters).failed().to_dict("records")
    assert failed["reason"] == "INPUT"
    assert wanted in failed["text"]
    assert not failed["text"].startswith(("lane", "/"))


@pytest.mark.parametrize("end", [b"\n", b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_blank_lines_at_the_end_are_no_reads(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path, end: bytes, packed: bool
) -> None:
    for count in (7, PAIRS):
        path = write(tmp_path / "reads.fq", mates[0][:count])
        content = path.read_bytes() + end
        path.write_bytes(gzip.compress(content) if packed else content)
        assert problems(data, path) == []
        checker, *_ = records.read_whole([str(path)], records.Rule(), [()], False)
        assert checker.count == count
    path.write_bytes(content + content)  # in the middle they are a fault
    assert f"read {PAIRS + 1:,} begins with ''" in problems(data, path)[0]


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
def test_records_are_the_same_however_the_file_is_read(
    mates: tuple[list[Record], ...], size: int
) -> None:
    lines = [b"\n".join(record) for record in mates[0][:30]]
    lines.append(b"@empty\n\n+\n")
    plain = b"\n".join(lines) + b"\n"
    for content in (plain, plain[:-1], plain.replace(b"\n", b"\r\n"), plain + b"\n\n"):
        checker = records.Checker()
        taken = [checker.take(content[at : at + size]) for at in range(0, len(content), size)]
        taken.append(checker.end())
        assert b"".join(data for data, _ in taken) == plain
        names = [name for _, found in taken for name in found]
        assert names == [*(head[1:] for head, *_ in mates[0][:30]), b"empty"]
        assert (checker.count, checker.longest) == (31, 100)


@pytest.mark.parametrize(("low", "high"), [(66, 104), (64, 76), (59, 99)])
def test_qualities_of_old_sequencers_are_refused(
    data: Data, tmp_path: Path, low: int, high: int
) -> None:
    quality = bytes(range(low, high + 1)) * 2
    content: list[Record] = [(b"@r%d" % n, b"A" * len(quality), b"+", quality) for n in range(9)]
    (found,) = problems(data, write(tmp_path / "old.fq", content))
    assert f"from {chr(low)!r} to {chr(high)!r}: they are Phred+64" in found
    assert problems(data, tmp_path / "old.fq", preset="map-hifi") == []  # Q60 of HiFi reads
    binned: list[Record] = [(b"@r%d" % n, b"A" * 40, b"+", b"F:I," * 10) for n in range(9)]
    assert problems(data, write(tmp_path / "new.fq", binned)) == []


def old_qualities(content: list[Record]) -> list[Record]:
    """Return reads with Phred+64, of which the first 1300 could be good ones with Phred+33."""
    return [
        (*record[:3], (b"Bh" if number > 1300 else b"AJ") * (len(record[1]) // 2))
        for number, record in enumerate(content)
    ]


def test_qualities_are_judged_by_all_reads_of_a_small_file(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path
) -> None:
    (found,) = problems(data, write(tmp_path / "old.fq", old_qualities(mates[0])))
    assert "from 'A' to 'h': they are Phred+64" in found
    # good ones of a new sequencer, until one read is poor
    good = [(*record[:3], b"S" * len(record[1])) for record in mates[0]]
    good[1400] = (*good[1400][:3], b"#" * len(good[1400][1]))
    assert problems(data, write(tmp_path / "new.fq", good)) == []


def test_reads_with_u_for_t_are_told(data: Data, tmp_path: Path) -> None:
    path = write(tmp_path / "rna.fq", [(b"@r%d" % n, b"ACGU", b"+", b"IIII") for n in range(9)])
    (found,) = Alignment([row(path)], data.fasta, aligner="bwa").check()
    assert found.warning and "has U and no T" in str(found)


@needs_env("alignment")
@pytest.mark.slow
def test_filters_work_without_adapters(
    data: Data, mates: tuple[list[Record], ...], tmp_path: Path
) -> None:
    short = [(head, bases[:30], plus, quality[:30]) for head, bases, plus, quality in mates[0][:10]]
    unknown = [(h, b"N" * 60 + bases[60:], plus, q) for h, bases, plus, q in mates[0][10:15]]
    low = [(h, bases, plus, quality[:-20] + b"#" * 20) for h, bases, plus, quality in mates[0][15:]]
    path = write(tmp_path / "reads.fq", [*short, *unknown, *low])

    def lengths(**options: Any) -> Counter[int]:
        done = run(data, path, adapters=None, **options)
        assert done.state is State.SUCCEEDED, done.failed().to_dict("records")
        found = stepwise.records(helpers.sample(done, "s") / "s.bam")
        return Counter(len(r.quality) for r in found if r.primary)

    untouched = {30: 10, 100: PAIRS - 10}
    assert lengths() == untouched  # nothing asked for, nothing done
    assert lengths(minimum_length=31) == {100: PAIRS - 10}
    assert lengths(max_n=0.5) == {30: 10, 100: PAIRS - 15}
    assert lengths(quality=10) == {30: 10, 100: 5, 80: PAIRS - 15}


def test_head_says_which_mate_each_read_is(tmp_path: Path) -> None:
    path = tmp_path / "r.fq"
    path.write_bytes(b"@a/1\nAC\n+\nII\n@a/2\nAC\n+\nI5\n")
    head = fastq.look(str(path))
    assert (head.order, head.lowest, head.highest) == ([1, 2], ord("5"), ord("I"))
