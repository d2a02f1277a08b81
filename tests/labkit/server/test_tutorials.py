"""Tutorials come once, and are the user's from then on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.server.tutorials import copy_in


@pytest.fixture
def lab(tmp_path: Path) -> tuple[Path, Path, Path]:
    source, home, state = (tmp_path / name for name in ("source", "home", "state"))
    for folder in (source, home, state):
        folder.mkdir()
    (source / "01-cells.ipynb").write_text("first")
    (source / "more").mkdir()
    (source / "more" / "02-plates.ipynb").write_text("second")
    (source / ".hidden.ipynb").write_text("no")
    (source / "program.exe").write_text("no")
    (source / "link.ipynb").symlink_to("/etc/passwd")
    return source, home, state


def test_all_are_copied_once(lab: tuple[Path, Path, Path]) -> None:
    source, home, state = lab
    assert copy_in(source, home, state) == ["01-cells.ipynb", "more/02-plates.ipynb"]
    assert (home / "tutorials/more/02-plates.ipynb").read_text() == "second"
    names = sorted(p.name for p in (home / "tutorials").rglob("*"))
    assert names == ["01-cells.ipynb", "02-plates.ipynb", "more"]
    assert copy_in(source, home, state) == []


def test_what_the_user_did_stays(lab: tuple[Path, Path, Path]) -> None:
    source, home, state = lab
    copy_in(source, home, state)
    (home / "tutorials/01-cells.ipynb").write_text("mine")
    (home / "tutorials/more/02-plates.ipynb").unlink()
    (source / "01-cells.ipynb").write_text("new edition")
    (source / "03-new.ipynb").write_text("third")
    assert copy_in(source, home, state) == ["03-new.ipynb"]
    assert (home / "tutorials/01-cells.ipynb").read_text() == "mine"
    assert not (home / "tutorials/more/02-plates.ipynb").exists()


def test_a_file_of_the_same_name_is_never_overwritten(lab: tuple[Path, Path, Path]) -> None:
    source, home, state = lab
    (home / "tutorials").mkdir()
    (home / "tutorials/01-cells.ipynb").write_text("mine")
    assert copy_in(source, home, state) == ["more/02-plates.ipynb"]
    assert (home / "tutorials/01-cells.ipynb").read_text() == "mine"


def test_planted_links_lead_nowhere(lab: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, home, state = lab
    outside = tmp_path / "outside"
    outside.mkdir()
    (home / "tutorials").mkdir()
    (home / "tutorials/01-cells.ipynb").symlink_to(outside / "victim")
    (home / "tutorials/more").symlink_to(outside)
    with pytest.raises(OSError):
        copy_in(source, home, state)
    assert list(outside.iterdir()) == []


def test_a_link_in_place_of_the_folder_is_refused(
    lab: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    source, home, state = lab
    outside = tmp_path / "outside"
    outside.mkdir()
    (home / "tutorials").symlink_to(outside)
    with pytest.raises(OSError):
        copy_in(source, home, state)
    assert list(outside.iterdir()) == []


def test_an_interrupted_copy_is_taken_up(
    lab: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, home, state = lab
    link = os.link

    def fail(name: str, *args: object, **kwargs: object) -> None:
        if "02-plates" in name:
            raise OSError("disk full")
        link(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="disk full"):
        copy_in(source, home, state)
    monkeypatch.undo()
    assert copy_in(source, home, state) == ["more/02-plates.ipynb"]
    assert sorted(p.name for p in (home / "tutorials/more").iterdir()) == ["02-plates.ipynb"]


def test_no_tutorials_no_folder(tmp_path: Path) -> None:
    assert copy_in(tmp_path / "none", tmp_path, tmp_path) == []
    assert not (tmp_path / "tutorials").exists()
