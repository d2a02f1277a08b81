"""The lab's shared folders in the file browser and in the pages that look for files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from labkit.server.file_finder import find_everywhere
from labkit.server.shared_folders import folders, link


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made = [tmp_path / name for name in ("srv/plates", "srv/imaging", "other/plates")]
    for place in made:
        place.mkdir(parents=True)
    gone = tmp_path / "gone"
    monkeypatch.setenv("LABHUB_SHARED_FOLDERS", json.dumps([*map(str, made), str(gone)]))
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def test_links_lead_to_the_folders(places: list[Path], home: Path) -> None:
    assert len(folders()) == 3
    assert link(home) == list(folders())
    assert {(home / "shared" / name).resolve() for name in folders()} == set(places)
    assert link(home) == []


def test_what_a_person_has_there_stays(places: list[Path], home: Path) -> None:
    (home / "shared").mkdir()
    (home / "shared" / "plates").mkdir()
    (home / "shared" / "mine").symlink_to(home)
    link(home)
    assert not (home / "shared" / "plates").is_symlink()
    assert (home / "shared" / "mine").exists()
    places[1].rmdir()
    link(home)
    assert not (home / "shared" / "imaging").is_symlink()  # it led nowhere


def test_the_scratch_folder_is_linked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABHUB_SHARED_FOLDERS", raising=False)
    monkeypatch.setenv("LABHUB_SCRATCH", str(tmp_path / "scratch"))
    link(home)
    assert list(home.iterdir()) == []
    (tmp_path / "scratch").mkdir()
    link(home)
    link(home)
    assert (home / "scratch").resolve() == tmp_path / "scratch"


def test_without_shared_folders_nothing_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABHUB_SHARED_FOLDERS", raising=False)
    assert link(home) == []
    monkeypatch.setenv("LABHUB_SHARED_FOLDERS", "no list")
    assert link(home) == []
    assert list(home.iterdir()) == []


def test_pages_find_what_is_in_them_and_follow_no_link_out(places: list[Path], home: Path) -> None:
    link(home)
    (home / "own.h5ad").touch()
    (places[1] / "theirs.h5ad").touch()
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "no.h5ad").touch()
    (places[1] / "out").symlink_to(elsewhere)
    found, complete = find_everywhere(
        home, time.monotonic() + 60, lambda name: name.endswith(".h5ad")
    )
    assert complete
    assert {one.path for one in found} == {"own.h5ad", "shared/imaging/theirs.h5ad"}
    assert all((home / one.path).is_file() for one in found)
