from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labkit.workflows.cellprofiler.task_code.integrity import problem


def tiff(path: Path, **options: Any) -> Path:
    pixels = np.random.default_rng(1).integers(0, 60000, (200, 150), dtype=np.uint16)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_whole_tiff_is_well_and_every_cut_is_seen(tmp_path: Path, compression: str | None) -> None:
    path = tiff(tmp_path / "x.tif", compression=compression)
    data = path.read_bytes()
    assert problem(path) is None
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        assert "truncated" in str(problem(path)), share


def test_many_planes(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    planes = [Image.fromarray(np.full((20, 20), value, np.uint16)) for value in range(3)]
    planes[0].save(path, save_all=True, append_images=planes[1:])
    assert problem(path) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in str(problem(path))


def big_tiff(order: str) -> bytes:
    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack(f"{order}HHQQ", tag, kind, count, value)

    mark = b"II+\0" if order == "<" else b"MM\0+"
    head = mark + struct.pack(f"{order}HHQ", 8, 0, 16)
    entries = entry(273, 16, 1, 100) + entry(279, 16, 1, 50)
    body = struct.pack(f"{order}Q", 2) + entries + struct.pack(f"{order}Q", 0)
    return (head + body).ljust(150, b"\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_big_tiff_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    path = tmp_path / "big.tif"
    path.write_bytes(big_tiff(order))
    assert problem(path) is None
    path.write_bytes(big_tiff(order)[:149])
    assert problem(path) == "truncated: 149 of at least 150 bytes are there"


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    path = tiff(tmp_path / "x.tif")
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    path.write_bytes(data)
    assert "circle" in str(problem(path))


def test_other_problems_are_named(tmp_path: Path) -> None:
    cases = {
        "empty.tif": (b"", "empty"),
        "text.tif": (b"hello, I am no image", "not a TIFF"),
        "text.png": (b"hello, I am no image", "not a PNG"),
        "cut.png": (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "without its end"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert says in str(problem(tmp_path / name))
    assert "does not exist" in str(problem(tmp_path / "none.tif"))
    assert "not a file" in str(problem(tmp_path))
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    assert problem(tmp_path / "good.png") is None
