from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit.workflows.alignment.samplesheet import Lane, read_sheet


def texts(sheet: Any) -> list[str]:
    return [str(problem) for problem in read_sheet(sheet)[1] if not problem.warning]


def test_lanes_of_a_sample_are_joined_in_order(tmp_path: Path) -> None:
    sheet = tmp_path / "samples.csv"
    sheet.write_text(
        "sample,lane,fastq_1,fastq_2,platform\n"
        "b,L2,b2_1.fq,b2_2.fq,illumina\n"
        "a,,sub/a_1.fq.gz,,\n"
        "b,L1,s3://bucket/b1_1.fq,s3://bucket/b1_2.fq,\n"
    )
    samples, problems = read_sheet(sheet)
    assert problems == []
    assert [(s.name, [lane.lane for lane in s.lanes]) for s in samples] == [
        ("b", ["L2", "L1"]),
        ("a", ["L1"]),
    ]
    assert samples[0].lanes[0].platform == "ILLUMINA"
    assert samples[0].lanes[1].files == ("s3://bucket/b1_1.fq", "s3://bucket/b1_2.fq")
    assert samples[1].lanes[0].files == (
        str(tmp_path / "sub/a_1.fq.gz"),
    )  # from the sheet's folder


def test_a_sheet_with_excels_semicolons_is_read(tmp_path: Path) -> None:
    sheet = tmp_path / "samples.csv"
    sheet.write_bytes("\ufeffsample;fastq_1;center\r\na;a.fq;Lab, Basel\r\n".encode())
    samples, problems = read_sheet(sheet)
    assert problems == []
    assert samples[0].lanes[0].files == (str(tmp_path / "a.fq"),)
    assert samples[0].lanes[0].center == "Lab, Basel"


def test_a_data_frame_with_missing_values_is_read_like_a_file() -> None:
    import pandas as pd

    frame = pd.DataFrame({"sample": ["a"], "fastq_1": ["/x/a.fq"], "fastq_2": [None]})
    samples, problems = read_sheet(frame)
    assert problems == []
    assert samples[0].lanes[0].files == ("/x/a.fq",)


def test_the_read_group_is_complete_and_takes_flow_cell_and_lane_from_the_reads() -> None:
    lane = Lane(1, "s1", "L1", "/a.fq", library="libA", center="Lab", date="2026-11-21")
    group = lane.read_group(b"A00123:55:HXYZDSX2:3:1101:10:20", "ILLUMINA")
    assert group == {
        "ID": "s1.L1",
        "SM": "s1",
        "LB": "libA",
        "PL": "ILLUMINA",
        "PU": "HXYZDSX2.3",
        "CN": "Lab",
        "DT": "2026-11-21",
    }
    plain = Lane(1, "s1", "L1", "/a.fq").read_group(b"read1", "ONT")
    assert (plain["LB"], plain["PL"], plain["PU"]) == ("s1", "ONT", "s1.L1")


def test_everything_wrong_is_told_at_once_with_its_row() -> None:
    rows = [
        {"sample": "a", "lane": "L1", "fastq_1": "/x/1.fq", "fastq_2": "/x/1.fq"},
        {"sample": "a", "lane": "L1", "fastq_1": "/x/3.fq", "date": "21.11.2026"},
        {"sample": "a", "lane": "", "fastq_1": "/x/4.fq", "platform": "ILUMINA"},
        {"sample": "", "lane": "L1", "fastq_1": ""},
    ]
    table = [{"fastq_2": "", "date": "", "platform": "", **row} for row in rows]
    found = texts(table)
    for wanted in (
        "row 1, fastq_2: /x/1.fq is given twice: it is row 1, fastq_1 as well.",
        "row 2: sample a, lane L1 stands in row 1 already.",
        "row 2, date: '21.11.2026' is no date.",
        "row 3, lane: is empty, and its sample has several rows.",
        "row 3, platform ILUMINA: there is no such platform. Did you mean 'ILLUMINA'?",
        "row 4, sample: is empty.",
        "row 4, fastq_1: is empty.",
    ):
        assert any(text.startswith(wanted) for text in found), (wanted, found)


@pytest.mark.parametrize("column", ["sample", "lane", "library", "platform_unit", "center"])
@pytest.mark.parametrize("value", ["a\tSM:other", "a\nb", "../x", "-x", "$(id)", "a\\tLB:x", "ä"])
def test_no_value_breaks_out_of_a_read_group_or_a_file_name(column: str, value: str) -> None:
    row = {"sample": "a", "lane": "L1", "fastq_1": "/x.fq"} | {column: value}
    assert any(column in text for text in texts([row])), value


def test_a_sheet_without_its_columns_or_rows_is_refused_with_the_columns() -> None:
    assert "has no column 'fastq_1'" in texts([{"sample": "a", "reads": "x.fq"}])[0]
    assert "has no rows" in texts([])[0]
    assert "there is no file" in texts("missing.csv")[0]


def test_an_unknown_column_is_told_but_does_not_stand_in_the_way() -> None:
    _, problems = read_sheet([{"sample": "a", "fastq_1": "/x.fq", "fastq2": "/y.fq"}])
    assert [p.warning for p in problems] == [True]
    assert "Did you mean 'fastq_2'" in str(problems[0])


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("@r\nA\n+\nI\n")
    return folder


def name_of(path: str | None) -> str:
    return Path(path).name if path else ""


def rows(folder: Path) -> list[tuple[str, str, str, str]]:
    samples, problems = read_sheet(folder)
    assert [problem for problem in problems if not problem.warning] == []
    return [
        (sample.name, lane.lane, name_of(lane.fastq_1), name_of(lane.fastq_2))
        for sample in samples
        for lane in sample.lanes
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("s_S1_L001_R1_001.fastq.gz", "s_S1_L001_R2_001.fastq.gz"),  # bcl-convert
        ("s_S1_R1_001.fastq.gz", "s_S1_R2_001.fastq.gz"),  # without lane splitting
        ("s_R1.fq.gz", "s_R2.fq.gz"),
        ("s.R1.fastq", "s.R2.fastq"),
        ("s_1.fastq.gz", "s_2.fastq.gz"),  # SRA, ENA
        ("s.1.FASTQ", "s.2.FASTQ"),
        ("s_R1_001.fastq.gz", "s_R2_001.fastq.gz"),
    ],
)
def test_a_folder_is_a_sheet(tmp_path: Path, first: str, second: str) -> None:
    touch(tmp_path, first, second, "notes.txt", ".hidden_R1.fastq")
    ((sample, _, one, other),) = rows(tmp_path)
    assert (sample, one, other) == ("s", first, second)


def test_lanes_runs_and_single_reads_of_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a_S1_L001_R1_001.fastq.gz", "a_S1_L001_R2_001.fastq.gz",
        "a_S1_L002_R1_001.fastq.gz", "a_S1_L002_R2_001.fastq.gz",
        "second run/a_S9_L001_R1_001.fastq.gz", "second run/a_S9_L001_R2_001.fastq.gz",
        "week_1.fastq", "week_3.fastq",  # no mates: two samples
        "single_R1.fastq", "my sample (α).fq",
    )  # fmt: skip
    assert sorted(rows(tmp_path)) == [
        ("a", "L001", "a_S1_L001_R1_001.fastq.gz", "a_S1_L001_R2_001.fastq.gz"),
        ("a", "L001-run2", "a_S9_L001_R1_001.fastq.gz", "a_S9_L001_R2_001.fastq.gz"),
        ("a", "L002", "a_S1_L002_R1_001.fastq.gz", "a_S1_L002_R2_001.fastq.gz"),
        ("my-sample-", "L1", "my sample (α).fq", ""),
        ("single", "L1", "single_R1.fastq", ""),
        ("week_1", "L1", "week_1.fastq", ""),
        ("week_3", "L1", "week_3.fastq", ""),
    ]


def test_what_a_folder_has_beside_samples_is_left_out_aloud(tmp_path: Path) -> None:
    touch(tmp_path, "s_S1_R1_001.fastq.gz", "s_S1_I1_001.fastq.gz",
          "Undetermined_S0_R1_001.fastq.gz")  # fmt: skip
    assert [row[2] for row in rows(tmp_path)] == ["s_S1_R1_001.fastq.gz"]
    (warning,) = read_sheet(tmp_path)[1]
    assert warning.warning and "2 files are left out: index reads" in str(warning)
    touch(tmp_path / "half", "t_R2.fastq")
    (wrong,) = texts(tmp_path / "half")
    assert "t_R2.fastq has no first mates beside it" in wrong
    (tmp_path / "empty").mkdir()
    assert "there are no FASTQ files" in texts(tmp_path / "empty")[0]


def test_columns_for_sarek_are_kept_and_checked() -> None:
    said = {"sample": "a", "fastq_1": "a.fq", "patient": "P1", "sex": "XX", "status": "1"}
    samples, problems = read_sheet([said, {**said, "sample": "b", "fastq_1": "b.fq"}])
    assert problems == []
    assert samples[0].for_sarek == {"patient": "P1", "sex": "XX", "status": "1"}
    wrong = [
        {**said, "lane": "1"},
        {**said, "lane": "2", "fastq_1": "2.fq", "status": "0"},
        {**said, "sample": "b", "fastq_1": "b.fq", "sex": "XY"},
        {**said, "sample": "c", "fastq_1": "c.fq", "sex": "f", "status": "2", "patient": "P 1"},
    ]
    found = "\n".join(texts(wrong))
    for text in ("sample a: status is 0 and 1.", "patient P1: sex is XY, and XX in another",
                 "row 4, sex: 'f': it is XX, XY, NA.", "row 4, status: '2': it is 0, 1.",
                 "row 4, patient: 'P 1': it holds spaces."):  # fmt: skip
        assert text in found, found
