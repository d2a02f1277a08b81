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
