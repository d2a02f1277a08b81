from __future__ import annotations

import math
from pathlib import Path

import pytest

from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.chunks import chunk_size, plan_chunks, split
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.task_code import costs
from labkit.workflows.cellprofiler.task_code.costs import Cost
from tests.labkit.workflows.cellprofiler import pipelines

FLY = Cost(3.1, 1.88)  # seconds, measured on ExampleFly


@pytest.mark.parametrize("workers", [1, 2, 8, None])
@pytest.mark.parametrize("count", [1, 3, 24, 100, 384, 3456, 50_000])
def test_every_row_is_in_one_chunk_and_chunks_fit(count: int, workers: int | None) -> None:
    chunks = plan_chunks(range(count), FLY, workers)
    rows = [row for chunk in chunks.rows for row in chunk]
    assert sorted(rows) == list(range(count))
    sizes = [len(chunk) for chunk in chunks.rows]
    assert max(sizes) <= chunks.size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("workers", [1, 2, 8, None])
def test_on_a_whole_plate_startup_is_below_five_percent(workers: int | None) -> None:
    size = chunk_size(50_000, FLY, workers)
    assert FLY.share(size) < 0.05


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
def test_the_last_task_keeps_nobody_waiting_long(workers: int) -> None:
    count = 400 * workers
    size = chunk_size(count, FLY, workers)
    alone = count * FLY.image_set / workers
    assert FLY.startup + size * FLY.image_set < 0.15 * alone


# the modules of example/analysis.cppipe
ANALYSIS = pipelines.made(
    *(
        (name, [])
        for name in (
            *("LoadData", "IdentifyPrimaryObjects", "IdentifySecondaryObjects"),
            *("MeasureObjectSizeShape", "MeasureObjectIntensity", "OverlayOutlines"),
            *("SaveImages", "ExportToSpreadsheet"),
        )
    )
)


def test_a_small_plate_uses_all_workers_but_not_at_any_price() -> None:
    assert chunk_size(24, FLY, 2) == 12
    assert FLY.share(chunk_size(24, FLY, 16)) <= 0.15
    assert chunk_size(24, FLY, 1) == 24


def test_on_a_cluster_idle_cores_are_no_reason_to_pay_for_more_starts() -> None:
    assert FLY.share(chunk_size(384, FLY, 1000, shared=True)) < 0.05
    few = chunk_size(3456, FLY, 16, shared=True)
    waves = 3456 / few / 16
    assert FLY.share(few) < 0.052 and waves / math.ceil(waves) > 0.9, "they end together"


def test_long_image_sets_do_not_make_endless_tasks() -> None:
    assert chunk_size(1000, Cost(3.0, 600.0), None) <= 6
    assert chunk_size(3, Cost(3.0, 9000.0), 2) == 1


def test_groups_stay_together_and_plates_apart() -> None:
    keys = [f"w{row // 3}" for row in range(30)]
    plates = ["a"] * 15 + ["b"] * 15
    chunks = split(keys, 7, plates)
    for chunk in chunks:
        assert len({plates[row] for row in chunk}) == 1
        assert len(chunk) % 3 == 0 and len(chunk) <= 7
    assert sorted(row for chunk in chunks for row in chunk) == list(range(30))


def test_a_group_larger_than_the_size_is_one_chunk() -> None:
    assert split(["a"] * 9 + ["b"], 4) == [list(range(9)), [9]]


def test_scattered_groups_are_collected() -> None:
    assert split(["a", "b", "a", "b"], 2) == [[0, 2], [1, 3]]


def test_costs_are_remembered_and_combined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    pipeline = ANALYSIS
    guess = costs.recall(pipeline)
    assert guess.image_sets == 0 and "never run" in str(guess)
    facts = [
        {"startup": 3.0, "working": 20.0, "image_sets": 10, "memory": 300},
        {"startup": 3.2, "working": 10.0, "image_sets": 5, "memory": 500},
        {},
    ]
    cost = costs.combine(facts)
    assert cost is not None
    assert (cost.image_set, cost.memory, cost.image_sets) == (2.0, 500, 15)
    costs.remember(costs.fingerprint(pipeline), cost)
    assert costs.recall(pipeline) == cost
    assert costs.fingerprint(pipelines.made(pipelines.LOAD)) != costs.fingerprint(pipeline)
    assert costs.combine([{}]) is None


def test_a_broken_memory_of_costs_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    costs.place().parent.mkdir(parents=True)
    for content in ("{", "[]", '{"x": 3}'):
        costs.place().write_text(content)
        assert costs.recall(ANALYSIS).image_sets == 0
    costs.remember_size("abc", 7)
    assert costs.recall_size("abc") == 7 and costs.recall_size("other") is None


def test_an_estimate_knows_how_large_the_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured: 0.97 s at 256 x 256 pixels, 11 s at 2160 x 2160 on a busy machine."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    found = []
    for size in (256, 2160):
        images, _ = example.make_plate(tmp_path / str(size), 1, 1, size=size)
        first = Path(images["PathName_OrigDNA"][0]) / images["FileName_OrigDNA"][0]
        megapixels = ImageSets(images, True).megapixels
        assert megapixels == 2 * size**2 / 1e6
        found.append(costs.recall(ANALYSIS, megapixels))
        first.write_bytes(b"II*")
        assert ImageSets(images, True).megapixels == 1.0
    small, large = found
    assert 0.2 < small.image_set < 2 and 3 < large.image_set < 40
    assert chunk_size(10_000, large, None) < chunk_size(10_000, small, None) / 5
