"""Backups: what is in them, and which archives are refused."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hub.runtime import backups
from hub.state import create
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(state=tmp_path / "state", envs=tmp_path / "state" / "envs")
    create.make_folders(made)
    create.make_lab_file(made)
    create.make_secrets(made)
    with closing(sqlite3.connect(made.database)) as db:
        db.execute("CREATE TABLE users (name TEXT)")
        db.execute("INSERT INTO users VALUES ('ada')")
        db.commit()
    return made


def names(paths: Paths) -> list[str]:
    with closing(sqlite3.connect(paths.database)) as db:
        return [row[0] for row in db.execute("SELECT name FROM users ORDER BY name")]


def content(paths: Paths) -> dict[str, bytes]:
    """All of the state that a restore could touch."""
    return {
        str(file.relative_to(paths.state)): file.read_bytes()
        for file in paths.state.rglob("*")
        if file.is_file() and "backups" not in file.parts
    }


def test_a_backup_while_somebody_writes_is_of_one_moment(paths: Paths) -> None:
    with closing(sqlite3.connect(paths.database)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO users VALUES ('bob')")
        writer.commit()
        writer.execute("INSERT INTO users VALUES ('half')")  # not committed
        file = backups.create(paths).file
    assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(paths.database)) as db:
        db.execute("DELETE FROM users")
        db.commit()
    backups.restore(paths, file)
    assert names(paths) == ["ada", "bob"]


def test_a_backup_never_overwrites(paths: Paths, tmp_path: Path) -> None:
    file = tmp_path / "thesis.tar.gz"
    file.write_text("ten years of work")
    with pytest.raises(ProblemsError, match="cannot be written"):
        backups.create(paths, file)
    assert file.read_text() == "ten years of work"


def test_a_restore_keeps_what_was_there(paths: Paths) -> None:
    file = backups.create(paths).file
    (paths.secrets / "proxy_token").write_text("f" * 64)
    (paths.secrets / "oauth_client_secret").write_text("newer")
    aside = backups.restore(paths, file)
    assert (aside / "secrets" / "proxy_token").read_text() == "f" * 64
    assert (aside / "secrets" / "oauth_client_secret").read_text() == "newer"
    assert not (paths.secrets / "oauth_client_secret").exists()
    assert paths.secrets.stat().st_mode & 0o777 == 0o700
    assert all(p.stat().st_mode & 0o077 == 0 for p in paths.secrets.iterdir())


def test_the_labs_own_apps_come_back(paths: Paths) -> None:
    app = paths.state / "services" / "plates"
    (app / "static" / "css").mkdir(parents=True)
    (app / "service.yaml").write_text("title: Plates")
    (app / "static" / "css" / "a.css").write_text("a")
    (app / "run").write_text("#!/bin/sh")
    (app / "run").chmod(0o755)
    (app / "link").symlink_to("/etc/passwd")
    (paths.state / "services.yaml").write_text("services: {plates: {on: true}}")
    file = backups.create(paths).file
    (app / "service.yaml").write_text("broken")
    backups.restore(paths, file)
    assert (app / "service.yaml").read_text() == "title: Plates"
    assert (app / "static" / "css" / "a.css").read_text() == "a"
    assert (app / "run").stat().st_mode & 0o100
    assert not (app / "link").exists()
    assert (paths.state / "services.yaml").exists()


def test_the_one_time_link_is_in_no_backup(paths: Paths) -> None:
    (paths.secrets / "login_link.json").write_text("{}")
    with tarfile.open(backups.create(paths).file) as archive:
        assert "secrets/login_link.json" not in archive.getnames()


def test_a_lab_file_kept_elsewhere_is_saved_by_content(paths: Paths, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("named_servers: 7\n")
    create.make_lab_file(paths, mine)
    file = backups.create(paths).file
    mine.unlink()
    backups.restore(paths, file)
    assert paths.lab_file.read_text() == "named_servers: 7\n"
    assert not paths.lab_file.is_symlink()


def forged(paths: Paths, tmp_path: Path, change: Callable[[tarfile.TarFile], None]) -> Path:
    """A good backup with something more in it."""
    good, bad = backups.create(paths, tmp_path / "good.tar.gz").file, tmp_path / "bad.tar.gz"
    with tarfile.open(good) as old, tarfile.open(bad, "w:gz") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        change(new)
    return bad


def plain(name: str, data: bytes = b"x") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))

    return add


def special(kind: bytes, name: str = "secrets/x") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "/etc/shadow"
        archive.addfile(member)

    return add


@pytest.mark.parametrize(
    "change",
    [
        plain("../outside"),
        plain("/etc/cron.d/x"),
        plain("secrets/../../outside"),
        plain("secrets/.."),
        plain("secrets/deep/er"),
        plain("config.d/../secrets/x"),
        plain("services/../secrets/x"),
        plain("services/plates/../../../outside"),
        plain("services/loose"),
        special(tarfile.SYMTYPE, "services/plates/x"),
        plain("envs/hub/bin/python"),
        plain("run/supervisord.conf"),
        plain("secrets/login_link.json"),
        plain("lab.yaml"),  # twice
        special(tarfile.SYMTYPE),
        special(tarfile.LNKTYPE),
        special(tarfile.SYMTYPE, "secrets"),
        special(tarfile.CHRTYPE),
        special(tarfile.FIFOTYPE),
        special(tarfile.DIRTYPE),
    ],
)
def test_a_hostile_archive_is_refused_and_changes_nothing(
    paths: Paths, tmp_path: Path, change: Callable[[tarfile.TarFile], None]
) -> None:
    bad = forged(paths, tmp_path, change)
    before = content(paths)
    outside = set(tmp_path.iterdir())
    with pytest.raises(ProblemsError):
        backups.restore(paths, bad)
    assert content(paths) == before
    assert set(tmp_path.iterdir()) == outside
    assert not list(paths.run.iterdir())


def archive_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    file = tmp_path / "made.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, data in files.items():
            plain(name, data)(archive)
    return file


MANIFEST = {backups.MANIFEST: json.dumps({"format": backups.FORMAT}).encode()}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"lab.yaml": b""}, "no manifest"),
        (MANIFEST, "no lab file"),
        ({backups.MANIFEST: b'{"format": 99}', "lab.yaml": b""}, "another version"),
        ({**MANIFEST, "lab.yaml": b"isolaton: 1"}, "isolaton"),
        ({**MANIFEST, "lab.yaml": b"", "jupyterhub.sqlite": b"no database" * 99}, "damaged"),
    ],
)
def test_what_is_no_backup_is_refused(
    paths: Paths, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    before = content(paths)
    with pytest.raises(ProblemsError, match=said):
        backups.restore(paths, archive_of(tmp_path, files))
    assert content(paths) == before


def test_a_cut_off_archive_is_refused(paths: Paths, tmp_path: Path) -> None:
    whole = backups.create(paths).file.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 4):
        cut = tmp_path / "cut.tar.gz"
        cut.write_bytes(whole[:length])
        with pytest.raises(ProblemsError):
            backups.restore(paths, cut)
    assert names(paths) == ["ada"]
