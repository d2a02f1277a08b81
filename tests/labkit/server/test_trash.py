"""The trash stays small, and makes room where the disk is full."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.server import trash
from tests.conftest import needs_root
from tests.labkit.server.conftest import Server, small_home

NO_ROOM_NEEDED = 0


def put(folder: Path, name: str, size: int, days_ago: float) -> None:
    """Put a file into a trash."""
    for part in ("files", "info"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "files" / name).write_bytes(os.urandom(size))
    info = folder / "info" / f"{name}.trashinfo"
    info.write_text("[Trash Info]\n")
    when = time.time() - days_ago * 86400
    os.utime(info, (when, when))


def test_what_is_old_or_too_much_goes_oldest_first(tmp_path: Path) -> None:
    for name, days in (("ancient", 40), ("older", 3), ("newer", 2), ("newest", 1)):
        put(tmp_path, name, 40_960, days)
    assert trash.tidy(tmp_path, most=200_000, room=NO_ROOM_NEEDED) == ["ancient"]
    assert trash.tidy(tmp_path, most=100_000, room=NO_ROOM_NEEDED) == ["older"]
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["newer", "newest"]
    assert len(list((tmp_path / "info").iterdir())) == 2


def test_one_that_is_larger_than_all_goes_and_the_others_stay(tmp_path: Path) -> None:
    put(tmp_path, "large", 409_600, 0)
    put(tmp_path, "small", 40_960, 1)
    assert trash.tidy(tmp_path, most=100_000, room=NO_ROOM_NEEDED) == ["large"]


def test_a_link_goes_and_not_what_it_names(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "data").write_text("x")
    (tmp_path / "trash" / "files").mkdir(parents=True)
    (tmp_path / "trash" / "files" / "link").symlink_to(kept)
    assert trash.tidy(tmp_path / "trash", age=-1, room=NO_ROOM_NEEDED) == ["link"]
    assert (kept / "data").exists()


def test_no_trash_is_no_error(tmp_path: Path) -> None:
    assert trash.tidy(tmp_path / "none") == []


@pytest.fixture
def small() -> Iterator[Server]:
    with small_home("2m") as server:
        server.start()
        yield server


@needs_root
def test_deleting_in_a_full_home_makes_room(small: Server) -> None:
    folder = small.home / "results"
    folder.mkdir()
    (folder / "big").write_bytes(bytes(1 << 20))
    with small.client() as client:
        assert client.delete("api/contents/results").status_code == 204
    assert not folder.exists()
    (small.home / "new").write_bytes(bytes(1 << 20))
