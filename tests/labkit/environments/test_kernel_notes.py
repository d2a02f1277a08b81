"""What a kernel says after an error: only where a person's own packages may have a part in it."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.environments.kernel_notes import Notes
from labkit.environments.personal import Shadow


def notes(folder: Path, *shadows: Shadow) -> Notes:
    """Return the notes of a person with these shadows."""
    own, lab = folder / "own", folder / "lab"
    for place in (own, lab):
        place.mkdir()
        (place / "wrong.py").write_text("raise ValueError('numpy.dtype size changed')\n")
        (place / "right.py").write_text("def later():\n    raise ValueError('no such gene')\n")
    personal = SimpleNamespace(packages=own, lab_packages=lab, shadows=lambda: list(shadows))
    return Notes(SimpleNamespace(), personal)  # type: ignore[arg-type]


def error_of(file: Path, call: str = "") -> BaseException:
    """Return what running a file, or a function of it, ends with."""
    with pytest.raises(ValueError) as caught:
        done = runpy.run_path(str(file))
        done[call]()
    return caught.value


def test_an_import_that_fails_with_any_error_is_explained(tmp_path: Path) -> None:
    said = notes(tmp_path, Shadow("numpy", "1.26", "2.4"))
    for place in ("own", "lab"):  # the lab's pandas meets a numpy that it was not built for
        text = said.about(error_of(tmp_path / place / "wrong.py"))
        assert "They hide the lab's: numpy 1.26 (the lab has 2.4)." in text
        assert "labkit env reset" in text


def test_who_hides_nothing_is_told_of_own_packages_alone(tmp_path: Path) -> None:
    said = notes(tmp_path)
    assert "labkit env reset" in said.about(error_of(tmp_path / "own" / "wrong.py"))
    assert said.about(error_of(tmp_path / "lab" / "wrong.py")) == ""


@pytest.mark.parametrize("place", ["own", "lab"])
def test_an_error_after_the_import_is_not_the_packages_fault(tmp_path: Path, place: str) -> None:
    said = notes(tmp_path, Shadow("numpy", "1.26", "2.4"))
    assert said.about(error_of(tmp_path / place / "right.py", "later")) == ""
