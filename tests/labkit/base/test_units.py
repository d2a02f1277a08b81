"""Sizes and durations are read and written in one way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

import labkit
from labkit.base.units import (
    DURATION_PATTERN,
    GB,
    KB,
    MB,
    SIZE_PATTERN,
    TB,
    exact_duration,
    exact_size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GB", 4 * GB),
        ("4G", 4 * GB),
        (" 4 gib ", 4 * GB),
        ("512M", 512 * MB),
        ("1.5GiB", 3 * GB // 2),
        (".5 TB", TB // 2),
        ("1k", KB),
        ("7", 7),
        ("7 B", 7),
        (100, 100),
        (1.9, 1),
    ],
)
def test_sizes_are_read(text: str | float, size: int) -> None:
    assert parse_size(text) == size
    assert not isinstance(text, str) or re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize("text", ["", "lots", "-1 GB", "4 XB", "1 2 GB", "1,5 GB", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write it like 4 GB"):
        parse_size(text)
    assert not re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize("value", [0, "0", "0 GB", -1, 0.5, float("nan"), float("inf")])
def test_a_size_is_above_zero(value: str | float) -> None:
    with pytest.raises(ValueError, match="must be above zero"):
        parse_size(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (KB, "1 KB"),
        (1023 * KB, "1023 KB"),
        (MB - 1, "1 MB"),
        (512 * MB, "512 MB"),
        (1000 * MB, "1000 MB"),
        (2_147_483_648, "2 GB"),
        (2_000_000_000, "1.86 GB"),
        (3 * GB // 2, "1.5 GB"),
        (31 * GB // 2, "15.5 GB"),
        (200 * GB, "200 GB"),
        (5 * TB, "5 TB"),
        (4096 * TB, "4096 TB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("size", [1, 512 * MB, 2 * GB, 3 * GB // 2, 5 * TB, 1000, 1536 * MB])
def test_an_exact_size_is_read_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


def test_exact_sizes_are_short() -> None:
    sizes = (2 * GB, 1536 * MB, 1000, 0)
    assert [exact_size(size) for size in sizes] == ["2G", "1536M", "1000", "0"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90 min", 5400),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1 h 30 min", 5400),
        ("1.5 h", 5400),
        ("2d", 172_800),
        ("2 days 1 h", 176_400),
        ("45s", 45),
        ("0s", 0),
        ("1:30:00", 5400),
        ("1-12:00:00", 129_600),
        (30, 30),
        (0.5, 0.5),
        (timedelta(minutes=3), 180),
    ],
)
def test_durations_are_read(text: str | float | timedelta, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds
    assert not isinstance(text, str) or re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize("text", ["soon", "1 fortnight", "30", "-3 min", "1m1h", "1h1h", "1 mon"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time; write it like 90 min"):
        parse_duration(text)
    assert not re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize("value", ["", " ", -3, float("nan"), float("inf")])
def test_nothing_is_no_duration(value: str | float) -> None:
    with pytest.raises(ValueError, match="is no span of time"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-1, "0 s"),
        (0.42, "0.4 s"),
        (3, "3 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (600, "10 min"),
        (3599.8, "1 h"),
        (5400, "1 h 30 min"),
        (5430, "1 h 30 min"),
        (8 * 3600, "8 h"),
        (86_399, "1 day"),
        (129_600, "1 day 12 h"),
        (2 * 86_400, "2 days"),
        (timedelta(days=30, minutes=20), "30 days"),
    ],
)
def test_durations_are_written(seconds: float | timedelta, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["30s", "10m", "1h30m", "2d", "1d1h1m1s", "0s"])
def test_an_exact_duration_comes_back_as_written(text: str) -> None:
    assert exact_duration(parse_duration(text)) == text


@pytest.mark.parametrize("seconds", [5, 90, 600, 5400, 129_600, 172_800])
def test_what_is_written_can_be_read(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("size", [1, 1023 * KB, 512 * MB, 2 * GB])
def test_a_size_that_is_written_can_be_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_the_pages_write_the_same() -> None:
    node = shutil.which("node")
    assert node, "node is needed: it is part of the hub's environment"
    sizes = [0, 1, 1023, 1024, 1_048_000, MB - 1, 999 * MB, 2_000_000_000, 31 * GB // 2, 4096 * TB]
    spans = [0, 0.42, 9.97, 59.6, 90, 3599.8, 5400, 86_399, 129_600, 30 * 86_400]
    script = Path(labkit.__file__).parent / "server/data/static/units.js"
    ask = f"console.log(JSON.stringify([{sizes}.map(units.size), {spans}.map(units.span)]))"
    said = subprocess.run(
        [node, "-e", f"{script.read_text()}\n{ask}"], capture_output=True, text=True, check=True
    )
    assert json.loads(said.stdout) == [
        [format_size(size) for size in sizes],
        [format_duration(span) for span in spans],
    ]
