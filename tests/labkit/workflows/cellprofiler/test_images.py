"""Image sets: what CellProfiler would see. The orders here were taken from CellProfiler itself."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd
import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.workflows.cellprofiler import example, rules
from labkit.workflows.cellprofiler.images import ImageSets, read_images
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.sources import Images, read_source
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


def sets(pipeline: Pipeline, files: list[Path]) -> ImageSets:
    return read_images(pipeline, read_source(files))


def names(found: ImageSets) -> list[str]:
    return [name.removesuffix("_w1.tif") for name in found.table["FileName_DNA"]]


def test_matching_by_metadata_sorts_without_case_and_as_text(tmp_path: Path) -> None:
    content = pipelines.named_and_typed(match="Metadata", keys=BY_PLATE)
    found = sets(content, listed(tmp_path))
    assert names(found)[:7] == [
        "p1_A02_s1", "p1_A02_s10", "p1_A02_s2", "p1_A1_s1", "p1_A1_s10", "p1_A1_s2", "P10_A02_s1",
    ]  # fmt: skip
    assert not found.problems
    assert list(found.places().iloc[1]) == ["p1", "A02", "10"]
    assert "Wave" not in found.metadata  # the channels differ in it


def test_groups_sort_with_case_and_keep_the_order_inside(tmp_path: Path) -> None:
    content = pipelines.named_and_typed(match="Metadata", keys=BY_SITE, groups=["Plate", "Well"])
    found = sets(content, listed(tmp_path))
    assert names(found)[:4] == ["P10_A02_s1", "P10_A02_s10", "P10_A02_s2", "P10_A1_s1"]
    assert names(found)[-1] == "p1_A1_s2"
    assert list(found.table["Group_Number"][:4]) == [1, 1, 1, 2]
    assert list(found.table["Group_Index"][:4]) == [1, 2, 3, 1]
    assert list(found.table["ImageNumber"]) == list(range(1, 19))


def test_order_is_that_of_the_addresses(tmp_path: Path) -> None:
    found = sets(pipelines.named_and_typed(), listed(tmp_path))
    assert names(found)[:3] == ["p1_A02_s10", "p1_A02_s1", "p1_A02_s2"]


def test_missing_channel_is_named_and_left_out(tmp_path: Path) -> None:
    content = pipelines.named_and_typed(match="Metadata", keys=BY_PLATE)
    found = sets(content, listed(tmp_path, without="P2_A02_s1_w2"))
    assert len(found) == 17
    (problem,) = found.problems
    assert "P2 / A02 / 1" in str(problem) and "channel ER" in str(problem)
    assert problem.warning


def test_order_with_a_gap_is_refused(tmp_path: Path) -> None:
    """CellProfiler pairs the channels of different sites from the gap on, and ends Complete."""
    found = sets(pipelines.named_and_typed(), listed(tmp_path, without="P2_A02_s1_w2"))
    (problem,) = found.problems
    assert not problem.warning and "DNA 18, ER 17" in str(problem)


def test_same_metadata_twice_is_refused(tmp_path: Path) -> None:
    files = [*listed(tmp_path), tmp_path / "again" / "p1_A1_s1_w1.tif"]
    content = pipelines.named_and_typed(match="Metadata", keys=BY_PLATE)
    fatal = [p for p in sets(content, files).problems if not p.warning]
    assert len(fatal) == 1 and "same metadata" in str(fatal[0])


def test_images_of_no_channel_are_named(tmp_path: Path) -> None:
    content = pipelines.named_and_typed()
    found = sets(content, [*listed(tmp_path), tmp_path / "thumb.tif"])
    assert "thumb.tif" in str(found.problems[0]) and found.problems[0].warning


def test_nothing_that_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"channel DNA: no file matches(.|\n)*no image set"):
        sets(pipelines.named_and_typed(), [tmp_path / "notes.txt"])


@pytest.mark.parametrize(
    ("rule", "name", "fits"),
    [
        ('and (file does contain "w1")', "a_w1.tif", True),
        ('and (file does contain "w1") (file doesnot startwith "a")', "a_w1.tif", False),
        ('or (file does endwith ".png") (extension does istif)', "x.TIF", True),
        ("extension does isimage", "x.npy", False),
        ('or (extension does isimage) (file does endwith ".npy")', "x.npy", True),
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
    assert rules.parse(rule)(PurePosixPath(tmp_path / name)) is fits


@pytest.mark.parametrize(
    "rule", ["", "and (image does iscolor)", "and (file does contain", 'file is "x"']
)
def test_rules_that_names_cannot_tell_are_refused(rule: str) -> None:
    with pytest.raises(rules.RuleError):
        rules.parse(rule)


def loaddata(images: Images, data_file: str | Path | None = None, **places: str) -> ImageSets:
    pipeline = pipelines.made(pipelines.LOAD)
    return read_images(pipeline, read_source(images, data_file), places)


def test_loaddata_csv_with_relative_paths_and_old_names(tmp_path: Path) -> None:
    csv = tmp_path / "load.csv"
    csv.write_text(
        "Image_FileName_DNA,Image_PathName_DNA,Metadata_Well\nx.tif,sub,A01\ny.tif,,01\n"
    )
    (tmp_path / "y.tif").touch()
    found = loaddata(csv)
    assert [str(p) for p in found.paths()["DNA"]] == [
        str(tmp_path / "sub/x.tif"),
        str(tmp_path / "y.tif"),
    ]
    assert list(found.table["Metadata_Well"]) == ["A01", "01"]


def test_data_file_beside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    csv = tmp_path / "load.csv"
    csv.write_text("FileName_DNA\nx.tif\n")
    (tmp_path / "img" / "x.tif").touch()
    found = loaddata(tmp_path / "img", csv)
    assert found.paths().loc[0, "DNA"] == str(tmp_path / "img/x.tif")


def test_rows_and_columns_make_wells(tmp_path: Path) -> None:
    table = pd.DataFrame({"FileName_DNA": ["/x"], "Metadata_Row": [3], "Metadata_Column": [4]})
    assert loaddata(table).places().loc[0, "well"] == "C04"


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
        loaddata(pd.DataFrame(columns))


def test_no_images_at_all(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nothing at"):
        loaddata(tmp_path / "none")
    with pytest.raises(RefusedError, match=r"LoadData's file .* is not there"):
        loaddata(tmp_path)


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
        sets(pipelines.named_and_typed(), [odd])


BBBC021 = {
    "TableNumber": ["4", "4"],
    "ImageNumber": ["233", "234"],
    "Image_FileName_DAPI": ["d1.tif", "d2.tif"],
    "Image_PathName_DAPI": ["/w/Week1_22123", "/w/Week1_22141"],
    "Image_FileName_Actin": ["a1.tif", "a2.tif"],
    "Image_PathName_Actin": ["/w/Week1_22123", "/w/Week1_22141"],
    "Image_Metadata_Plate_DAPI": ["Week1_22123", "Week1_22141"],
    "Image_Metadata_Well_DAPI": ["B02", "C03"],
    "Replicate": ["1", "1"],
    "Image_Metadata_Compound": ["5-fluorouracil", "DMSO"],
}


def test_metadata_of_each_channel_name_plate_and_well() -> None:
    found = loaddata(pd.DataFrame(BBBC021))
    assert found.places().to_numpy().tolist() == [["Week1_22123", "B02", ""],
                                                  ["Week1_22141", "C03", ""]]  # fmt: skip
    assert found.channels == ["DAPI", "Actin"]
    values = found.metadata_values("Plate")
    assert values is not None and list(values) == ["Week1_22123", "Week1_22141"]
    assert found.metadata_values("Compound") is not None
    assert found.metadata_values("Dose") is None


def test_channels_that_disagree_about_the_plate_are_refused() -> None:
    table = pd.DataFrame(BBBC021).assign(Image_Metadata_Plate_Actin=["Week1_22123", "Other"])
    found = loaddata(table)
    (problem,) = found.problems
    assert not problem.warning and "in 1 image sets (2)" in str(problem)
    assert "plate='Plate_DAPI'" in problem.hint
    assert not found.places()["plate"].any()
    chosen = loaddata(table, plate="Plate_Actin")
    assert not chosen.problems
    assert list(chosen.places()["plate"]) == ["Week1_22123", "Other"]


def test_plate_well_and_site_can_be_named() -> None:
    found = loaddata(pd.DataFrame(BBBC021), plate="Image_Metadata_Compound", site="Replicate")
    assert found.places().to_numpy().tolist() == [["5-fluorouracil", "B02", "1"],
                                                  ["DMSO", "C03", "1"]]  # fmt: skip
    (problem,) = loaddata(pd.DataFrame(BBBC021), plate="Plate_DAPY").problems
    assert not problem.warning and "Did you mean 'Plate_DAPI'" in problem.hint


def one_image(tmp_path: Path) -> Path:
    path = tmp_path / "img" / "x.tif"
    path.parent.mkdir()
    path.touch()
    return path


def test_addresses_of_files_are_paths(tmp_path: Path) -> None:
    path = one_image(tmp_path)
    spaced = path.with_name("a b.tif")
    spaced.touch()
    for table in (
        {"URL_DNA": [spaced.as_uri()]},
        {"Image_URL_DNA": [spaced.as_uri()], "Image_FileName_DNA": ["other.tif"]},
        {"FileName_DNA": ["a b.tif"], "PathName_DNA": [path.parent.as_uri()]},
        {"FileName_DNA": [spaced.as_uri()]},
    ):
        assert loaddata(pd.DataFrame(table)).paths().loc[0, "DNA"] == str(spaced)
    assert read_source(path.parent.as_uri()).files == [spaced, path]
    assert read_source([path.as_uri()]).files == [path]
    (tmp_path / "list.txt").write_text(f"{path.as_uri()}\nimg/a b.tif\n")
    assert read_source(tmp_path / "list.txt").files == [path, spaced]
    for remote in ("https://lab.example.org/a.tif", ["gs://bucket/a.tif"]):
        with pytest.raises(RefusedError, match=r"is not on a disk.*Fetch"):
            read_source(remote)


def test_one_image_is_a_list_of_one(tmp_path: Path) -> None:
    path = one_image(tmp_path)
    source = read_source(path)
    assert (source.files, source.base) == ([path], path.parent)


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_tables_with_other_separators(tmp_path: Path, separator: str, word: str) -> None:
    path = one_image(tmp_path)
    table = tmp_path / "load.tsv"
    lines = (("FileName_DNA", "PathName_DNA", "Metadata_Dose"), (path.name, "img", "0,5"))
    table.write_text("\ufeff" + "".join(f"{separator.join(line)}\n" for line in lines))
    found = loaddata(table)
    assert found.paths().loc[0, "DNA"] == str(path)
    assert list(found.table["Metadata_Dose"]) == ["0,5"]
    (problem,) = found.problems
    assert problem.warning and word in problem.text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.xlsx", b"PK\x03\x04", "is a spreadsheet. Save it as CSV"),
        ("x.csv", b"FileName_DNA\n\xff\xfe\x00", "not text in UTF-8"),
        ("x.csv", b"", "cannot be read as CSV"),
        ("x.csv", b"File,Folder\na,b\n", "no FileName_ column; it has File, Folder"),
        ("x.csv", b"FileName_DNA,Metadata_Well\n/a.tif,A1\n,A2\n", "empty in 1 image sets (row 2)"),
        ("x.csv", b"FileName_DNA\nimg/none.tif\n", "data_file="),
        ("x.dat", b"\xff\x00", "none of these"),
    ],
)  # fmt: skip
def test_mistakes_end_in_words(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError) as caught:
        loaddata(tmp_path / name)
    assert says in str(caught.value)


def test_a_data_file_needs_its_folder(tmp_path: Path) -> None:
    path = one_image(tmp_path)
    with pytest.raises(RefusedError, match=r"x\.tif is not a folder"):
        read_source(path, tmp_path / "load.csv")


def test_the_input_folder_is_that_of_the_images(tmp_path: Path) -> None:
    path = one_image(tmp_path)
    csv = tmp_path / "load.csv"
    csv.write_text("FileName_DNA\nimg/x.tif\n")
    table = pd.DataFrame({"FileName_DNA": ["x.tif"], "PathName_DNA": [str(path.parent)]})
    bases = [read_source(images).base for images in (path.parent, csv, table, [path])]
    assert bases == [path.parent, tmp_path, path.parent, path.parent]


@pytest.mark.parametrize("size", [20, 64])
def test_a_plate_of_images_too_small_for_its_nuclei(tmp_path: Path, size: int) -> None:
    with pytest.raises(LabkitError, match=rf"no room in an image of {size} x {size}.*size="):
        example.make_plate(tmp_path, wells=1, size=size)
