"""What people can say, what they said, and masks: without Label Studio."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.portal.annotating import brush, labels, pictures, results


def packed(values: np.ndarray, runs: bool) -> list[int]:
    """Write the run-length code by its description: runs of one value, or value by value."""
    flat = values.reshape(-1)
    bits = f"{flat.size:032b}{7:05b}{3:04b}{7:04b}{11:04b}{15:04b}"
    if runs:
        edges = [0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1), flat.size]
        for start, end in pairwise(edges):
            bits += f"1{3:02b}{end - start - 1:016b}{flat[start]:08b}"
    else:
        for start in range(0, flat.size, 16):
            part = flat[start : start + 16]
            bits += f"0{0:02b}{len(part) - 1:04b}" + "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@pytest.mark.parametrize("runs", [True, False])
def test_masks_are_unpacked(runs: bool) -> None:
    truth = np.random.default_rng(5).random((13, 9)) > 0.7
    truth[2:6, 1:8] = True
    mask = brush.unpack(packed(np.repeat(truth[..., None] * np.uint8(255), 4, 2), runs), 13, 9)
    np.testing.assert_array_equal(mask, truth)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda code: code[:-9], "ends too early"),
        (lambda code: [255, *code[1:]], "not 13 x 9 x 4"),
        (lambda code: [], "ends too early"),
    ],
)
def test_a_damaged_mask_is_refused(damage: object, says: str) -> None:
    code = packed(np.zeros((13, 9, 4), np.uint8), runs=False)
    with pytest.raises(ValueError, match=says):
        brush.unpack(damage(code), 13, 9)  # type: ignore[operator]


def test_places_are_pixels() -> None:
    import pandas as pd

    size = {"original_width": 200, "original_height": 50}
    task = {
        "id": 7,
        "data": {"image": "/data/x.png", "labkit_file": "a.tif", "labkit_key": "k", "well": "A1"},
        "annotations": [
            {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["no"]}}]},
            {
                "id": 3,
                "completed_by": 11,
                "created_at": "2026-11-20T10:00:00Z",
                "lead_time": 2.5,
                "result": [
                    {"type": "choices", "value": {"choices": ["a", "b"]}},
                    {
                        **size,
                        "type": "polygonlabels",
                        "value": {"polygonlabels": ["c"], "points": [[10, 20], [50, 100]]},
                    },
                    {"type": "textarea", "value": {"text": ["of no kind that labkit makes"]}},
                ],
            },
        ],
    }
    table = results.table([task], {11: "ada"})
    assert list(table["label"]) == ["a", "b", "c"]
    assert table["points"].iloc[2] == [(20, 10), (100, 50)]
    assert set(table["annotator"]) == {"ada"}
    assert set(table["well"]) == {"A1"}
    assert set(table["file"]) == {"a.tif"}
    assert table["created"].iloc[0] == pd.Timestamp("2026-11-20 10:00", tz="UTC")
    empty = results.table([], {})
    assert list(empty.columns) == list(results.COLUMNS)
    assert empty.empty


def test_labels_go_there_and_back() -> None:
    said = ["<round> & 'long'", 'a "b"']
    for tool in labels.TOOLS:
        assert labels.read(labels.configuration(said, tool)) == (tool, said)
    for text in ("<View/>", "no xml <"):
        with pytest.raises(ValueError, match=r"it has no labels|no XML"):
            labels.read(text)


@pytest.mark.parametrize("wrong", ["ab", [], ["a", "a"], [""], [3], ["x" * 101]])
def test_labels_that_cannot_be_are_named(wrong: object) -> None:
    assert list(labels.check(wrong, "choices"))  # type: ignore[arg-type]


def test_missing_and_broken_pictures_are_named(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(RefusedError) as refused:
        pictures.find([tmp_path / "gone.png", tmp_path / "notes.txt"])
    assert "gone.png" in str(refused.value)
    assert "notes.txt" in str(refused.value)
    with pytest.raises(LabkitError, match="is no picture"):
        pictures.shown(pictures.Picture(tmp_path / "broken.png"))
    with pytest.raises(RefusedError, match="no column 'image'"):
        pictures.find(pd.DataFrame({"file": ["a.png"]}))
    with pytest.raises(RefusedError, match="names no pictures"):
        pictures.find(3)


def test_the_functions_are_labkits_own() -> None:
    """Not the feature of ``__future__`` that has the same name."""
    assert callable(labkit.annotations)
    assert callable(labkit.annotate)


def test_out_of_the_portal_it_says_where_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABHUB_SERVICES_URL", raising=False)
    with pytest.raises(LabkitError, match="from a notebook of the lab's portal"):
        labkit.annotations("Shapes")
