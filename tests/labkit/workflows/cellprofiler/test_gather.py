"""The gather's tables: numbers of the whole job, one type, keys checked."""

from __future__ import annotations

from pathlib import Path
from urllib.request import pathname2url

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labkit.workflows.cellprofiler.task_code.gather import aggregates, saved, tables
from labkit.workflows.cellprofiler.task_code.gather.tables import GatherError, Part


def part(folder: Path, name: str, content: str, numbers: tuple[int, ...], good: set[int]) -> Part:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "Image.csv").write_text(content)
    return Part(folder / name, numbers, frozenset(good))


def gather(folder: Path, *parts: Part, memory: int = 1 << 30) -> pd.DataFrame:
    (files,) = tables.find(parts).values()
    target = folder / "Image.parquet"
    rows, seen = tables.gather(files, target, memory=memory)
    table = pd.read_parquet(target)
    assert rows == len(table) and seen == set(table["ImageNumber"])
    return table


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_numbers_types_and_order(tmp_path: Path, memory: int) -> None:
    first = part(tmp_path, "1", "ImageNumber,A,B,C,D\n1,1,x,nan,\n2,2,y,nan,\n", (5, 6), {5, 6})
    second = part(
        tmp_path, "2", "ImageNumber,A,B,C,D\n1,1.5,7,nan,1\n2,nan,8,nan,2\n", (1, 3), {1, 3}
    )
    table = gather(tmp_path, first, second, memory=memory)
    assert list(table["ImageNumber"]) == [1, 3, 5, 6]
    assert list(table["A"])[:1] + list(table["A"])[2:] == [1.5, 1.0, 2.0]
    assert list(table["B"]) == ["7", "8", "x", "y"]
    assert table["C"].isna().all() and list(table["D"].dropna()) == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_saved_images_are_told_where_they_lie_now(tmp_path: Path) -> None:
    """CellProfiler records the folder that it saved into: an attempt's, which is gone then."""
    folder = tmp_path / r"a \1 job" / "results/analysis/000001"
    folder.mkdir(parents=True)
    ran = "/mnt/home/run/attempts/analysis/0.2/part-1"
    content = (
        "ImageNumber,PathName_Out,PathName_Raw,PathName_None,URL_Out\n"
        f"1,{ran}/sub,/data/attempts/x,,file:{ran}/o.png\n"
        f"2,{ran},/data,,file://{ran}/o.png\n"
    )
    table = gather(folder, part(folder, "part-1", content, (1, 2), {1, 2}))
    now = folder / "part-1"
    assert list(table["PathName_Out"]) == [f"{now}/sub", str(now)]
    assert list(table["PathName_Raw"]) == ["/data/attempts/x", "/data"]
    assert list(table["URL_Out"]) == [f"file:{pathname2url(f'{now}/o.png')}",
                                      f"file://{pathname2url(f'{now}/o.png')}"]  # fmt: skip


def test_parts_with_different_columns_are_a_failure(tmp_path: Path) -> None:
    """Nulls would say that nothing was measured, where it was measured under another name."""
    content = "ImageNumber,Correlation_{}\n1,0.5\n".format
    parts = [
        part(tmp_path, "1", content("A_B"), (1,), {1}),
        part(tmp_path, "2", content("B_A"), (2,), {2}),
        part(tmp_path, "3", content("A_B"), (3,), {3}),
    ]
    with pytest.raises(GatherError, match=r"2 different sets of columns(.|\n)*/1/Image.csv has "
                       r"Correlation_A_B; .*/2/Image.csv has Correlation_B_A"):  # fmt: skip
        gather(tmp_path, *parts)


def test_image_sets_that_were_flagged_lack_what_follows(tmp_path: Path) -> None:
    """FlagImage ends the pipeline for an image set: one run has empty cells there, too."""
    parts = [
        part(tmp_path, "1", "ImageNumber,A,B,C\n1,1,2,3\n", (1,), {1}),
        part(tmp_path, "2", "ImageNumber,A\n1,4\n", (2,), {2}),
        part(tmp_path, "3", "ImageNumber,A,B\n1,5,6\n", (3,), {3}),
    ]
    (files,) = tables.find(parts).values()
    target = tmp_path / "Image.parquet"
    tables.gather(files, target, may_skip=True)
    assert pd.read_parquet(target).fillna(-1).to_numpy().tolist() == [
        [1, 1, 2, 3], [2, 4, -1, -1], [3, 5, 6, -1],
    ]  # fmt: skip
    with pytest.raises(GatherError, match="3 different sets"):
        tables.gather(files, target)
    parts.append(part(tmp_path, "4", "ImageNumber,A,X\n1,4,4\n", (4,), {4}))
    (files,) = tables.find(parts).values()
    with pytest.raises(GatherError, match="4 different sets"):
        tables.gather(files, target, may_skip=True)


def test_what_failed_is_left_out(tmp_path: Path) -> None:
    one = part(tmp_path, "1", "ImageNumber,A\n1,1\n2,2\n3,3\n", (7, 8, 9), {7, 9})
    table = gather(tmp_path, one)
    assert dict(zip(table["ImageNumber"], table["A"], strict=True)) == {7: 1, 9: 3}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("ImageNumber,A\n4,1\n", "not planned"),
        ("ImageNumber,A\nx,1\n", "is no number"),
        ("ImageNumber,A\n1,1\n1,2\n", "2 rows for 1 image sets"),
        ("ImageNumber,A\n1,1,1\n", "damaged"),
    ],
)
def test_tables_that_do_not_fit_the_plan(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(GatherError, match=says):
        gather(tmp_path, part(tmp_path, "1", content, (1, 2), {1, 2}))


def test_the_same_image_set_twice(tmp_path: Path) -> None:
    parts = [part(tmp_path, str(n), "ImageNumber,A\n1,1\n", (1,), {1}) for n in (1, 2)]
    with pytest.raises(GatherError, match=r"twice|2 rows for 1"):
        gather(tmp_path, *parts)


def test_numbers_inside_other_columns_are_the_jobs_too(tmp_path: Path) -> None:
    content = "ImageNumber,TrackObjects_ParentImageNumber_30\n1,0\n2,1\n"
    table = gather(tmp_path, part(tmp_path, "1", content, (11, 12), {11, 12}))
    assert list(table["TrackObjects_ParentImageNumber_30"]) == [0, 11]


def test_means_of_image_numbers_are_taken_over_the_jobs_numbers(tmp_path: Path) -> None:
    """Seen with CellProfiler's own ExampleTrackObjects: 18.4 became 22, 0 among them."""
    objects = (
        "ImageNumber,ObjectNumber,TrackObjects_ParentImageNumber_50\n"
        "1,1,0\n1,2,0\n2,1,1\n2,2,1\n2,3,0\n"
    )
    feature = "Embryos_TrackObjects_ParentImageNumber_50"
    image = (
        f"ImageNumber,Mean_{feature},Median_{feature},StDev_{feature},Mean_Gone_ParentImageNumber\n"
        "1,0,0,0,1\n2,0.6666,1,0.4714,1\n3,nan,nan,nan,nan\n"
    )
    for name, content in (("Embryos", objects), ("Image", image)):
        one = part(tmp_path, name, content, (22, 23, 24), {22, 23, 24})
        tables.gather([(one, one.folder / "Image.csv")], tmp_path / f"{name}.parquet")
    assert aggregates.renew(tmp_path) == ["Mean_Gone_ParentImageNumber"]
    table = pq.read_table(tmp_path / "Image.parquet").to_pandas()
    parents = np.array([22.0, 22.0, 0.0])
    assert list(table["ImageNumber"]) == [22, 23, 24]
    assert list(table[f"Mean_{feature}"][:2]) == [0.0, parents.mean()]
    assert list(table[f"Median_{feature}"][:2]) == [0.0, 22.0]
    assert list(table[f"StDev_{feature}"][:2]) == [0.0, parents.std()]
    assert table.iloc[2, 1:].isna().all()
    assert table["Mean_Gone_ParentImageNumber"].isna().all()


def test_objects_combined_in_one_file_have_two_lines_of_names(tmp_path: Path) -> None:
    content = "Image,Nuclei,Cells\nImageNumber,AreaShape_Area,AreaShape_Area\n1,5,6\n"
    table = gather(tmp_path, part(tmp_path, "1", content, (3,), {3}))
    assert table.to_dict("records") == [
        {"ImageNumber": 3, "Nuclei_AreaShape_Area": 5, "Cells_AreaShape_Area": 6}
    ]


def test_planned_metadata_replaces_what_a_part_guessed(tmp_path: Path) -> None:
    one = part(tmp_path, "1", "ImageNumber,Metadata_Well\n1,01\n", (2,), {2})
    (files,) = tables.find([one]).values()
    planned = {"Metadata_Well": pa.array(["A1", "01"])}
    tables.gather(files, tmp_path / "Image.parquet", planned=planned)
    assert pq.read_table(tmp_path / "Image.parquet")["Metadata_Well"].to_pylist() == ["01"]


def test_prefixes_are_no_part_of_the_name(tmp_path: Path) -> None:
    one = part(tmp_path, "1", "ImageNumber\n1\n", (1,), {1})
    (one.folder / "Image.csv").rename(one.folder / "MyExpt_Image.csv")
    assert list(tables.find([one], ["MyExpt_"])) == ["Image"]


@pytest.mark.parametrize(
    ("method", "local", "stem"),
    [
        ("From image filename", 1, "sub/x_A01"),
        ("Sequential numbers", 12, "sub/n0012"),
        ("Single name", 1, "sub/n"),
    ],
)
def test_names_of_saved_images(method: str, local: int, stem: str) -> None:
    save = {"method": method, "channel": "DNA", "name": "n", "digits": 4, "place": "sub"}
    row = {"FileName_DNA": "x.tif", "Metadata_Well": "A01"}
    assert saved.stem_of({**save, "suffix": r"_\g<Well>"}, row, local) == stem
