"""Image sets: what CellProfiler would see. The orders here were taken from CellProfiler itself."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.workflows.cellprofiler import example, rules
from labkit.workflows.cellprofiler.images import ImageSets, read_images
from labkit.workflows.cellprofiler.pipeline import Pipeline
from tests.labkit.workflows.cellprofiler import pipelines

BY_PLATE = "[{'DNA': 'Plate', 'ER': 'Plate'}, {'DNA': 'Well', 'ER': 'Well'}, {'DNA': 'Site', 'ER': 'Site'}]"  # noqa: E501
BY_SITE = "[{'DNA': 'Site', 'ER': 'Site'}, {'DNA': 'Well', 'ER': 'Well'}, {'DNA': 'Plate', 'ER': 'Plate'}]"  # noqa: E501


def listed(tmp_path: Path, *, without: str = "-") -> list[Path]:
    plates = {"B": "p1", "a": "P10", "b": "P2"}
    return [
        path
        for folder, plate in plates.items()
        for well in ("A1", "A02")
        for site in (1, 10, 2)
        for wave in (2, 1)
        if without not in (path := tmp_path / folder / f"{plate}_{well}_s{site}_w{wave}.tif").name
    ]


def sets(tmp_path: Path, content: str, files: list[Path]) -> ImageSets:
    return read_images(Pipeline.read(pipelines.write(tmp_path, content)), files)


def names(found: ImageSets) -> list[str]:
    return [name.removesuffix("_w1.tif") for name in found.table["FileName_DNA"]]


def test_matching_by_metadata_sorts_without_case_and_as_text(tmp_path: Path) -> None:
    content = pipelines.names_and_types(match="Metadata", keys=BY_PLATE)
    found = sets(tmp_path, content, listed(tmp_path))
    assert names(found)[:7] == [
        "p1_A02_s1", "p1_A02_s10", "p1_A02_s2", "p1_A1_s1", "p1_A1_s10", "p1_A1_s2", "P10_A02_s1",
    ]  # fmt: skip
    assert not found.problems
    assert list(found.places().iloc[1]) == ["p1", "A02", "10"]
    assert "Wave" not in found.metadata  # the channels differ in it


def test_groups_sort_with_case_and_keep_the_order_inside(tmp_path: Path) -> None:
    content = pipelines.names_and_types(match="Metadata", keys=BY_SITE, groups=["Plate", "Well"])
    found = sets(tmp_path, content, listed(tmp_path))
    assert names(found)[:4] == ["P10_A02_s1", "P10_A02_s10", "P10_A02_s2", "P10_A1_s1"]
    assert names(found)[-1] == "p1_A1_s2"
    assert list(found.table["Group_Number"][:4]) == [1, 1, 1, 2]
    assert list(found.table["Group_Index"][:4]) == [1, 2, 3, 1]
    assert list(found.table["ImageNumber"]) == list(range(1, 19))


def test_order_is_that_of_the_addresses(tmp_path: Path) -> None:
    found = sets(tmp_path, pipelines.names_and_types(), listed(tmp_path))
    assert names(found)[:3] == ["p1_A02_s10", "p1_A02_s1", "p1_A02_s2"]


def test_missing_channel_is_named_and_left_out(tmp_path: Path) -> None:
    content = pipelines.names_and_types(match="Metadata", keys=BY_PLATE)
    found = sets(tmp_path, content, listed(tmp_path, without="P2_A02_s1_w2"))
    assert len(found) == 17
    (problem,) = found.problems
    assert "P2 / A02 / 1" in str(problem) and "channel ER" in str(problem)
    assert problem.warning


def test_order_with_a_gap_is_refused(tmp_path: Path) -> None:
    """CellProfiler pairs the channels of different sites from the gap on, and ends Complete."""
    found = sets(tmp_path, pipelines.names_and_types(), listed(tmp_path, without="P2_A02_s1_w2"))
    (problem,) = found.problems
    assert not problem.warning and "DNA 18, ER 17" in str(problem)


def test_same_metadata_twice_is_refused(tmp_path: Path) -> None:
    files = [*listed(tmp_path), tmp_path / "again" / "p1_A1_s1_w1.tif"]
    content = pipelines.names_and_types(match="Metadata", keys=BY_PLATE)
    fatal = [p for p in sets(tmp_path, content, files).problems if not p.warning]
    assert len(fatal) == 1 and "same metadata" in str(fatal[0])


def test_images_of_no_channel_are_named(tmp_path: Path) -> None:
    content = pipelines.names_and_types()
    found = sets(tmp_path, content, [*listed(tmp_path), tmp_path / "thumb.tif"])
    assert "thumb.tif" in str(found.problems[0]) and found.problems[0].warning


def test_nothing_that_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"channel DNA: no file matches(.|\n)*no image set"):
        sets(tmp_path, pipelines.names_and_types(), [tmp_path / "notes.txt"])


@pytest.mark.parametrize(
    ("rule", "name", "fits"),
    [
        ('and (file does contain "w1")', "a_w1.tif", True),
        ('and (file does contain "w1") (file doesnot startwith "a")', "a_w1.tif", False),
        ('or (file does endwith ".png") (extension does istif)', "x.TIF", True),
        (r'and (file does containregexp "s[0-9]\\.tif")', "s3.tif", True),
        (r'and (directory doesnot containregexp "[\\\\/]\\.")', ".cache/x.tif", False),
        (
            'and (or (file does eq "a.tif") (file does eq "b.tif")) (extension does isimage)',
            "b.tif",
            True,
        ),
    ],
)
def test_rules(tmp_path: Path, rule: str, name: str, fits: bool) -> None:
    assert rules.parse(rule)(tmp_path / name) is fits


@pytest.mark.parametrize(
    "rule", ["", "and (image does iscolor)", "and (file does contain", 'file is "x"']
)
def test_rules_that_names_cannot_tell_are_refused(rule: str) -> None:
    with pytest.raises(rules.RuleError):
        rules.parse(rule)


def loaddata(tmp_path: Path) -> Pipeline:
    return Pipeline.read(pipelines.write(tmp_path, pipelines.text(pipelines.LOAD)))


def test_loaddata_csv_with_relative_paths_and_old_names(tmp_path: Path) -> None:
    csv = tmp_path / "load.csv"
    csv.write_text(
        "Image_FileName_DNA,Image_PathName_DNA,Metadata_Well\nx.tif,sub,A01\ny.tif,,01\n"
    )
    found = read_images(loaddata(tmp_path), csv)
    assert [str(p) for p in found.paths()["DNA"]] == [
        str(tmp_path / "sub/x.tif"),
        str(tmp_path / "y.tif"),
    ]
    assert list(found.table["Metadata_Well"]) == ["A01", "01"]


def test_data_file_beside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    csv = tmp_path / "load.csv"
    csv.write_text("FileName_DNA\nx.tif\n")
    found = read_images(loaddata(tmp_path), tmp_path / "img", csv)
    assert found.paths().loc[0, "DNA"] == str(tmp_path / "img/x.tif")


def test_rows_and_columns_make_wells(tmp_path: Path) -> None:
    table = pd.DataFrame({"FileName_DNA": ["x"], "Metadata_Row": [3], "Metadata_Column": [4]})
    assert read_images(loaddata(tmp_path), table).places().loc[0, "well"] == "C04"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"File": ["x"]}, "no FileName_ column"),
        ({"FileName_DNA": []}, "no rows"),
        ({"FileName_DNA": ["http://x/y.tif"]}, "not on a disk"),
    ],
)
def test_tables_that_cannot_work(tmp_path: Path, columns: dict[str, list[str]], says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        read_images(loaddata(tmp_path), pd.DataFrame(columns))


def test_no_images_at_all(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nothing at"):
        read_images(loaddata(tmp_path), tmp_path / "none")
    with pytest.raises(RefusedError, match=r"LoadData's file .* is not there"):
        read_images(loaddata(tmp_path), tmp_path)


def test_image_sets_by_pattern(tmp_path: Path) -> None:
    wanted, _ = example.make_plate(tmp_path / "p", wells=2, sites=2, size=64 * 3)
    pattern = r"(?P<Plate>\w+)_(?P<Well>[A-P]\d\d)_s(?P<Site>\d+)_(?P<Channel>DNA|ER)\.tif"
    found = labkit.image_sets(tmp_path, pattern)
    assert len(found) == len(wanted) == 4
    assert set(found) == {
        *("FileName_DNA", "PathName_DNA", "FileName_ER", "PathName_ER"),
        *("Metadata_Plate", "Metadata_Well", "Metadata_Site"),
    }
    (tmp_path / "p" / "Plate1_A02_s1_ER.tif").unlink()
    with pytest.raises(RefusedError, match="Well A02, Site 1: channel ER is missing"):
        labkit.image_sets(tmp_path, pattern)
    with pytest.raises(RefusedError, match="no group called Channel"):
        labkit.image_sets(tmp_path, "x")
    with pytest.raises(RefusedError, match="no regular expression"):
        labkit.image_sets(tmp_path, "(")


def test_line_breaks_in_names_do_not_add_files_to_the_list(tmp_path: Path) -> None:
    odd = tmp_path / "x_w1.tif\n/etc/passwd_w1.tif"
    with pytest.raises(RefusedError, match="line break"):
        sets(tmp_path, pipelines.names_and_types(), [odd])
