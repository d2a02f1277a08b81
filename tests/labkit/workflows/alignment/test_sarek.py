"""The sample sheet for nf-core/sarek, against its own schema's columns and patterns."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit.base.problems import RefusedError
from labkit.workflows.alignment.sarek import SarekSheet, sheet_words, write_sheet

if TYPE_CHECKING:
    import pandas as pd

# Of assets/schema_input.json, sarek 3.9.0.
SCHEMA = {
    "patient": r"\S+",
    "sample": r"\S+",
    "sex": r"XX|XY|NA",
    "status": r"0|1",
    "bam": r"\S+\.bam",
    "bai": r"\S+\.bai",
    "cram": r"\S+\.cram",
    "crai": r"\S+\.crai",
}


def bams(folder: Path, *samples: str, kind: str = "bam", **more: object) -> pd.DataFrame:
    """Return what a job says of its alignments, with files that are there."""

    import pandas as pd

    index = {"bam": "bai", "cram": "crai"}[kind]
    rows = []
    for sample in samples:
        path = folder / f"{sample}.{kind}"
        path.touch()
        Path(f"{path}.{index}").touch()
        row = {"sample": sample, "path": str(path), "index": f"{path}.{index}", "format": kind}
        rows.append({**row, "duplicates_marked": True, "recalibrated": False, **more})
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path, **more: dict[str, object]) -> SarekSheet:
    given = {"patient": None, "sex": None, "status": None, **more}
    return write_sheet(table, path, **given)  # type: ignore[arg-type]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name, value in row.items():
            assert re.fullmatch(SCHEMA[name], value), (name, value)
    return rows


def test_each_sample_is_a_patient_without_more_words(tmp_path: Path) -> None:
    sheet = write(bams(tmp_path, "a", "b"), tmp_path / "sheet.csv")
    rows = read(sheet.path)
    assert [(r["patient"], r["sample"], r["sex"], r["status"]) for r in rows] == [
        ("a", "a", "NA", "0"),
        ("b", "b", "NA", "0"),
    ]
    assert rows[0]["bam"] == str(tmp_path / "a.bam")
    assert rows[0]["bai"] == str(tmp_path / "a.bam.bai")
    assert sheet.notes == ()
    assert f"--input {sheet.path} --step prepare_recalibration" in repr(sheet)


def test_a_tumor_and_its_normal_belong_to_one_patient(tmp_path: Path) -> None:
    table = bams(tmp_path, "n", "t", kind="cram", recalibrated=True)
    sheet = write(
        table,
        tmp_path / "sheet.csv",
        patient={"n": "p1", "t": "p1"},
        sex={"p1": "XX"},
        status={"t": 1},
    )
    rows = read(sheet.path)
    assert list(rows[0]) == ["patient", "sex", "status", "sample", "cram", "crai"]
    assert [list(r.values())[:4] for r in rows] == [["p1", "XX", "0", "n"], ["p1", "XX", "1", "t"]]
    assert sheet.step == "variant_calling"
    (note,) = sheet.notes
    assert "SM:p1_n" in note and "SM:n" in note


@pytest.mark.parametrize(
    ("marked", "recalibrated", "step"),
    [
        ([True, False], [False, False], "markduplicates"),
        ([True, True], [True, False], "prepare_recalibration"),
        ([True, True], [True, True], "variant_calling"),
    ],
)
def test_sarek_begins_where_the_least_done_sample_is(
    tmp_path: Path, marked: list[bool], recalibrated: list[bool], step: str
) -> None:
    table = bams(tmp_path, "a", "b").assign(duplicates_marked=marked, recalibrated=recalibrated)
    assert write(table, tmp_path / "sheet.csv").step == step


def test_all_that_sarek_would_not_take_is_refused_at_once(tmp_path: Path) -> None:
    import pandas as pd

    spaced = tmp_path / "a folder"
    spaced.mkdir()
    table = pd.concat([bams(spaced, "a"), bams(tmp_path, "b", "c")])
    table.loc[table["sample"] == "b", "index"] = str(tmp_path / "b.bam.csi")
    (tmp_path / "c.bam").unlink()
    with pytest.raises(RefusedError) as refused:
        write(
            table,
            tmp_path / "sheet.txt",
            patient={"a": "p 1", "z": "p"},
            sex={"p 1": "female"},
            status={"b": 2},
        )
    text = str(refused.value)
    for part in (
        "a.bam: sarek takes no spaces in paths",
        "b.bam.csi: sarek reads .bai and .crai. Submit the alignment with format='cram'",
        "c.bam: is not there any more",
        "patient 'p 1': sarek takes no spaces",
        "patient of z: there is no such sample",
        "sex of p 1: is one of XX, XY, NA",
        "status of b: is 0 (normal) or 1 (tumor)",
        "sheet.txt: sarek takes a path without spaces that ends in .csv",
    ):
        assert part in text
    assert not (tmp_path / "sheet.txt").exists()


def test_bam_and_cram_do_not_mix(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.concat([bams(tmp_path, "a"), bams(tmp_path, "b", kind="cram")])
    with pytest.raises(RefusedError, match="BAM or CRAM, not both"):
        write(table, tmp_path / "sheet.csv")


def test_what_the_jobs_own_sheet_says_is_kept() -> None:
    sheet: list[dict[str, Any]] = [
        {"sample": "tumor", "sarek": {"patient": "P1", "sex": "XX", "status": "1"}},
        {"sample": "blood", "sarek": {"patient": "P1"}},
        {"sample": "alone", "sarek": {"sex": "XY"}},
        {"sample": "failed", "sarek": {"patient": "P2"}},
        {"sample": "old"},
    ]
    words = sheet_words(sheet, ["tumor", "blood", "alone", "old"], {})
    assert words.patient == {"tumor": "P1", "blood": "P1"}
    assert words.sex == {"P1": "XX", "alone": "XY"}
    assert words.status == {"tumor": 1}
    assert sheet_words(sheet, ["tumor"], {"tumor": "P9"}).sex == {"P9": "XX"}
