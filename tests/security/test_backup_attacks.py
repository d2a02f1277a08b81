"""An app that wants its portal to have no backup; and archives that are not whole."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.apps.app_paths import AppPaths
from hub.apps.backup import Limits
from hub.runtime import backups
from hub.state.paths import REPOSITORY, Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.security.neighbours import wait_for
from tests.support.stored_app import declare, state_with_app, store

pytestmark = needs_root
TERABYTE = 1 << 40
QUICK = Limits(size=1 << 20, time=2)


@pytest.fixture
def paths() -> Iterator[Paths]:
    with state_with_app() as made:
        declare(made, "other")
        store(made, "other")
        yield made


@pytest.fixture
def data(paths: Paths) -> Path:
    return store(paths)


def owned(data: Path, path: Path) -> Path:
    os.chown(path, data.stat().st_uid, data.stat().st_gid)
    return path


def apps_in(file: Path) -> set[str]:
    with tarfile.open(file) as archive:
        return {name.split("/")[1] for name in archive.getnames() if name.startswith("appdata/")}


def test_a_database_that_is_held_is_left_out_by_name(paths: Paths, data: Path) -> None:
    with closing(sqlite3.connect(data / "plates.sqlite3", isolation_level=None)) as attacker:
        attacker.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        made = backups.create(paths, limits=QUICK)
    assert time.monotonic() - began < 60
    (left_out,) = made.left_out
    assert left_out.where == "plates"
    assert "plates.sqlite3" in left_out.text
    assert apps_in(made.file) == {"other"}
    assert not list(data.glob(".labhub*"))


def test_an_app_that_does_not_end_is_left_out_by_name(
    paths: Paths, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system of the app's own that never answers, as seen from the copying process.
    monkeypatch.setattr("hub.apps.backup._files", lambda _: iter(lambda: time.sleep(3600), 1))
    made = backups.create(paths, limits=Limits(time=1))
    assert {problem.where for problem in made.left_out} == {"plates", "other"}
    assert "within 1 s" in made.left_out[0].text
    assert apps_in(made.file) == set()


def test_an_app_that_stores_too_much_is_left_out_by_name(paths: Paths, data: Path) -> None:
    owned(data, data / "pictures").joinpath("big").write_bytes(os.urandom(2 << 20))
    owned(data, data / "pictures" / "big")
    made = backups.create(paths, limits=QUICK)
    (left_out,) = made.left_out
    assert left_out.where == "plates"
    assert "more than 1 MB" in left_out.text
    assert apps_in(made.file) == {"other"}


def test_a_database_that_grows_is_left_out_by_name(paths: Paths, data: Path) -> None:
    with closing(sqlite3.connect(data / "plates.sqlite3")) as attacker:
        attacker.execute("CREATE TABLE big (data BLOB)")
        attacker.executemany("INSERT INTO big VALUES (zeroblob(1048576))", [()] * 40)
        attacker.commit()
    made = backups.create(paths, limits=QUICK)
    assert [problem.where for problem in made.left_out] == ["plates"]
    assert "more than 1 MB" in made.left_out[0].text


def test_holes_take_no_room_and_come_back(paths: Paths, data: Path) -> None:
    hole = data / "pictures" / "hole"
    with hole.open("wb") as stream:
        stream.write(b"begin")
        stream.seek(TERABYTE)
        stream.write(b"end")
        stream.truncate(TERABYTE + (1 << 30))
    owned(data, hole)
    empty = data / "pictures" / "empty"
    with empty.open("wb") as stream:
        stream.truncate(TERABYTE)
    owned(data, empty)
    made = backups.create(paths, limits=QUICK)
    assert made.left_out == []
    assert made.file.stat().st_size < 1 << 20
    hole.unlink()
    empty.unlink()
    backups.restore(paths, made.file)
    assert empty.stat().st_size == TERABYTE
    assert hole.stat().st_size == TERABYTE + (1 << 30)
    assert (hole.stat().st_blocks + empty.stat().st_blocks) * 512 < 1 << 20
    with hole.open("rb") as stream:
        assert stream.read(6) == b"begin\0"
        stream.seek(TERABYTE - 1)
        assert stream.read(4) == b"\0end"
    # Other programs read it as well.
    listing = subprocess.run(
        ["tar", "-tvzf", made.file], capture_output=True, text=True, check=True
    ).stdout
    assert f"{TERABYTE} " in listing
    assert "appdata/plates/pictures/empty" in listing


def test_a_wrong_declaration_costs_its_app_alone(paths: Paths, data: Path) -> None:
    (paths.state / "services" / "plates" / "service.yaml").write_text("titel: Plates\n")
    made = backups.create(paths)
    assert made.left_out
    assert apps_in(made.file) == {"other"}
    assert data.exists()


def test_a_killed_backup_leaves_nothing_under_its_name(paths: Paths, data: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hub.runtime import backups;"
        "from hub.state.paths import Paths; backups.create(Paths(Path(sys.argv[1]),"
        " Path(sys.argv[2])))"
    )
    with closing(sqlite3.connect(data / "plates.sqlite3", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(paths.state), str(paths.envs)], cwd=REPOSITORY
        )
        wait_for(lambda: list(paths.backups.glob(".labhub-*")), timeout=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(paths.backups.glob("labhub-*"))
    (left_behind,) = paths.backups.glob(".labhub-*")
    with pytest.raises(ProblemsError, match="cannot be read as a backup"):
        backups.restore(paths, left_behind)
    made = backups.create(paths)
    assert list(paths.backups.iterdir()) == [made.file]
    assert not [entry for entry in data.iterdir() if entry.name.startswith(".labhub")]
    assert apps_in(made.file) == {"plates", "other"}


def test_what_is_cut_off_inside_is_refused(paths: Paths, data: Path, tmp_path: Path) -> None:
    """The packed stream is whole, the archive in it is not."""
    whole = gzip.decompress(backups.create(paths).file.read_bytes())
    with tarfile.open(backups.create(paths, tmp_path / "whole.tar.gz").file) as archive:
        last = archive.getmembers()[-1]
    for length in (last.offset_data + 1, len(whole) // 2):
        cut = tmp_path / "cut.tar.gz"
        cut.write_bytes(gzip.compress(whole[:length]))
        with pytest.raises(ProblemsError, match="cannot be read as a backup"):
            backups.restore(paths, cut)
    assert (data / "plates.sqlite3").exists()
    assert AppPaths(paths).data("other").exists()
