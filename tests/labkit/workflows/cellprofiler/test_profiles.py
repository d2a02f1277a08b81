"""Well profiles, with the real pycytominer, on tables whose wells are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.base.problems import LabkitError
from labkit.workflows.cellprofiler.platemap import parse_well, plate_format, to_grid
from labkit.workflows.cellprofiler.task_code.gather import platemaps, profiles
from labkit.workflows.cellprofiler.task_code.gather.platemaps import PlateMapError

needs_pycytominer = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("pycytominer") is None,
    reason="needs pycytominer (environment 'notebook')",
)

ROWS = {
    number: {"plate": "P1", "well": f"{'AB'[(number - 1) // 8]}{(number - 1) % 8 + 1:02d}"}
    for number in range(1, 17)
}


def tables(folder: Path, *, empty: int | None = None) -> Path:
    """Write object tables: well n has n cells of area 100 n."""
    rng = np.random.default_rng(3)
    rows = [
        {
            "ImageNumber": number,
            "ObjectNumber": cell + 1,
            "AreaShape_Area": 100.0 * number,
            "AreaShape_Center_X": float(cell),
            "Intensity_MeanIntensity_DNA": rng.normal(0.5, 0.1),
            "Texture_Same": 1.0,
            "Location_Center_X": float(cell),
            "Parent_Cells": cell,
        }
        for number in ROWS
        if number != empty
        for cell in range(number)
    ]
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "Nuclei.parquet")
    pd.DataFrame({"ImageNumber": list(ROWS)}).to_parquet(folder / "Image.parquet")
    return folder


@needs_pycytominer
def test_profiles_of_known_wells(tmp_path: Path) -> None:
    plate_map = tmp_path / "map.csv"
    wells = [row["well"] for row in ROWS.values()]
    treatments = ["control" if well < "B" else "drug" for well in wells]
    pd.DataFrame({"Well": wells, "treatment": treatments}).to_csv(plate_map, index=False)
    out = tmp_path / "out"
    made = profiles.make(
        tables(tmp_path / "t"),
        out,
        ROWS,
        plate_map,
        controls="Metadata_treatment == 'control'",
    )
    assert made == {"wells": 16, "features": 3, "selected": 2}
    aggregated = pd.read_parquet(out / "aggregated.parquet").set_index("Metadata_Well")
    assert aggregated.loc["A03", "Nuclei_AreaShape_Area"] == 300
    assert aggregated.loc["B08", "Metadata_Count_Nuclei"] == 16
    assert "Nuclei_AreaShape_Center_X" not in aggregated
    normalized = pd.read_parquet(out / "normalized.parquet").set_index("Metadata_Well")
    assert set(normalized["Metadata_treatment"]) == {"control", "drug"}
    controls = np.arange(1, 9) * 100.0
    expected = (900 - controls.mean()) / controls.std()
    assert normalized.loc["B01", "Nuclei_AreaShape_Area"] == pytest.approx(expected)
    selected = pd.read_parquet(out / "selected.parquet")
    assert "Nuclei_Texture_Same" not in selected


@needs_pycytominer
def test_a_well_without_cells_stays(tmp_path: Path) -> None:
    places = profiles.place_table(ROWS)
    found, features = profiles.aggregate_tables(tables(tmp_path / "t", empty=2), places)
    row = found.set_index("Metadata_Well").loc["A02"]
    assert row["Metadata_Count_Nuclei"] == 0 and np.isnan(row[features[0]])


@needs_pycytominer
def test_plate_map_without_some_wells_is_refused(tmp_path: Path) -> None:
    plate_map = tmp_path / "map.csv"
    plate_map.write_text("well_position,x\nA01,1\n")
    with pytest.raises(profiles.ProfileError, match="lacks wells A02, A03"):
        profiles.make(tables(tmp_path / "t"), tmp_path / "out", ROWS, plate_map)


def test_what_profiles_cannot_be_made_of(tmp_path: Path) -> None:
    with pytest.raises(profiles.ProfileError, match="no metadata called Well"):
        profiles.place_table({1: {"plate": "P", "well": ""}})
    (tmp_path / "map.csv").write_text("position,x\nA01,1\n")
    with pytest.raises(PlateMapError, match="no column Well"):
        platemaps.read(tmp_path / "map.csv")


JUMP = "plate_map_name\twell_position\tbroad_sample\n" + "".join(
    f"{name}\t{well}\t{sample}\n"
    for name, samples in (("map1", ("x", "y")), ("map2", ("z", "w")))
    for well, sample in zip(("A01", "A02"), samples, strict=True)
)


def test_wells_of_several_maps_in_one_file_are_refused(tmp_path: Path) -> None:
    """JUMP's plate maps: each well would be joined to the samples of all plates."""
    (tmp_path / "map.txt").write_text(JUMP)
    table = platemaps.read(tmp_path / "map.txt")
    with pytest.raises(PlateMapError, match=r"wells A01, A02 more than once: .* column Plate"):
        platemaps.for_plate(table, "P1", ["A01", "A02"])
    one = platemaps.for_plate(table[table["plate_map_name"] == "map2"], "P1", ["a1"])
    assert one.to_dict("records") == [
        {"plate_map_name": "map2", "well_position": "a1", "broad_sample": "z"}
    ]


def test_a_map_with_plates_is_used_plate_by_plate() -> None:
    table = platemaps.named(
        pd.DataFrame({"Barcode": ["P1", "P2"], "Well": ["A1", "A1"], "drug": ["x", "y"]})
    )
    assert list(platemaps.for_plate(table, "P2", ["A01"])["drug"]) == ["y"]
    with pytest.raises(PlateMapError, match="lacks wells A01 of plate P3"):
        platemaps.for_plate(table, "P3", ["A01"])


@needs_pycytominer
def test_two_plates_are_annotated_by_their_own_rows(tmp_path: Path) -> None:
    rows = {n: {**row, "plate": "P1" if n <= 8 else "P2"} for n, row in ROWS.items()}
    plate_map = tmp_path / "map.csv"
    pd.DataFrame(
        [
            {"Plate": plate, "Well": f"{letter}{column}", "drug": f"{plate}{letter}{column}"}
            for plate in ("P1", "P2")
            for letter in "AB"
            for column in range(1, 9)
        ]
    ).to_csv(plate_map, index=False)
    profiles.make(tables(tmp_path / "t"), tmp_path / "out", rows, plate_map)
    annotated = pd.read_parquet(tmp_path / "out" / "annotated.parquet")
    assert len(annotated) == 16
    drugs = annotated.set_index(["Metadata_Plate", "Metadata_Well"])["Metadata_drug"]
    assert drugs["P1", "A03"] == "P1A3" and drugs["P2", "B08"] == "P2B8"


@pytest.mark.parametrize(
    ("well", "place"),
    [("A01", (0, 0)), ("a1", (0, 0)), ("H12", (7, 11)), ("P-24", (15, 23)), ("AF48", (31, 47))],
)
def test_wells(well: str, place: tuple[int, int]) -> None:
    assert parse_well(well) == place


@pytest.mark.parametrize("well", ["", "A", "1A", "A00", "AAA1", "A1; rm"])
def test_no_wells(well: str) -> None:
    with pytest.raises(LabkitError, match="is no well"):
        parse_well(well)


def test_plate_formats_and_grid() -> None:
    assert plate_format(2, 7) == (6, 8) and plate_format(9, 3) == (16, 24)
    grid = to_grid(pd.DataFrame({"well": ["A01", "C02"], "value": [1.0, 5.0]}))
    assert grid.shape == (3, 4) and grid[0, 0] == 1 and grid[2, 1] == 5
    assert np.isnan(grid[0, 1])
