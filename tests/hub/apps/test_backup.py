"""What apps have stored, in backups: whole, and nothing that is not the app's own."""

from __future__ import annotations

import os
import pwd
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.apps.app_paths import AppPaths
from hub.runtime import backups
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.support.stored_app import state_with_app, store

pytestmark = needs_root


@pytest.fixture
def paths() -> Iterator[Paths]:
    with state_with_app() as made:
        yield made


@pytest.fixture
def data(paths: Paths) -> Path:
    return store(paths)


def wells(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "plates.sqlite3")) as db:
        return [row[0] for row in db.execute("SELECT name FROM wells ORDER BY name")]


def test_what_an_app_stored_comes_back_to_it(paths: Paths, data: Path) -> None:
    with closing(sqlite3.connect(data / "plates.sqlite3")) as writer:
        writer.execute("INSERT INTO wells VALUES ('half')")  # not committed
        file = backups.create(paths).file
    with tarfile.open(file) as archive:
        stored = {name for name in archive.getnames() if name.startswith("appdata/")}
    assert stored == {"appdata/plates/plates.sqlite3", "appdata/plates/pictures/deep/a.png"}
    assert not list(data.glob(".labhub*"))
    with closing(sqlite3.connect(data / "plates.sqlite3")) as db:
        db.execute("DELETE FROM wells")
        db.commit()
    (data / "pictures" / "deep" / "a.png").unlink()
    aside = backups.restore(paths, file)
    assert wells(data) == ["A01"]
    assert (data / "pictures" / "deep" / "a.png").read_bytes() == b"picture"
    assert wells(aside / "appdata" / "plates") == []
    assert (aside / "appdata" / "plates" / "scratch").exists()
    owner = data.stat().st_uid
    assert owner == pwd.getpwnam(AppPaths(paths).account("plates")).pw_uid
    assert {path.stat().st_uid for path in data.rglob("*")} == {owner}


def test_links_of_an_app_bring_nothing_of_others_into_a_backup(paths: Paths, data: Path) -> None:
    secret = paths.state / "secrets" / "cookie_secret"
    (data / "notes.txt").symlink_to(secret)
    (data / "pictures" / "shadow").symlink_to("/etc/shadow")
    (data / "pictures" / "etc").symlink_to("/etc")
    os.mkfifo(data / "pictures" / "pipe")
    with tarfile.open(backups.create(paths).file) as archive:
        stored = {name for name in archive.getnames() if name.startswith("appdata/")}
    assert stored == {"appdata/plates/plates.sqlite3", "appdata/plates/pictures/deep/a.png"}


def test_a_file_of_somebody_else_is_not_read_for_an_app(paths: Paths, data: Path) -> None:
    """A hard link to root's file: the portal's root could read it, the app's account cannot."""
    secret = data.parent / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    (data / "pictures" / "mine").hardlink_to(secret)
    made = backups.create(paths)
    (left_out,) = made.left_out
    assert left_out.where == "plates"
    assert "cannot be copied: pictures/mine: Permission denied" in left_out.text
    with tarfile.open(made.file) as archive:
        assert not [name for name in archive.getnames() if name.startswith("appdata/")]


def test_a_damaged_database_is_not_put_back(paths: Paths, data: Path, tmp_path: Path) -> None:
    good, bad = backups.create(paths, tmp_path / "good.tar.gz").file, tmp_path / "bad.tar.gz"
    broken = tmp_path / "broken"
    broken.write_bytes((data / "plates.sqlite3").read_bytes()[:5000])
    with tarfile.open(good) as old, tarfile.open(bad, "w:gz") as new:
        for member in old:
            if member.name.endswith("plates.sqlite3"):
                new.add(broken, member.name)
            else:
                new.addfile(member, old.extractfile(member))
    with pytest.raises(ProblemsError, match=r"plates\.sqlite3 is damaged"):
        backups.restore(paths, bad)
    assert wells(data) == ["A01"]
