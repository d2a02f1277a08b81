"""Backups at another place: the restore drill, and what breaks off or is damaged there."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub.labfile.backup import Backup
from hub.labfile.read import read
from hub.labfile.schema import Settings
from hub.runtime import home_archive, remote_backup
from hub.runtime.home_archive import HomeError
from hub.runtime.remote_backup import Record
from hub.runtime.repository import PASSWORD, Repository
from hub.state import create
from hub.state.paths import REPOSITORY, Paths
from labkit.base.problems import ProblemsError
from labkit.base.remove import remove_tree
from tests.conftest import needs_root
from tests.support.portal import People
from tests.support.shaped_trees import deep

needs_restic = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")


@dataclass
class Lab:
    """A portal that has run, another place, and two people in a group of their own."""

    paths: Paths
    address: str
    ada: str
    bob: str

    def labhub(self, *words: str, code: int = 0) -> str:
        """Call the command line; returns all that it says."""
        env = {**os.environ, "LABHUB_STATE": str(self.paths.state), "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-m", "hub", *words],
            cwd=REPOSITORY,
            env={**env, "LABHUB_ENVS": str(self.paths.envs)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    @property
    def settings(self) -> Settings:
        return read(self.paths.lab_file)


def fill(state: Path, lab_file: str) -> Paths:
    """Make what a portal has stored."""
    paths = Paths(state=state, envs=state.parent / "envs")
    create.make_folders(paths)
    paths.lab_file.write_text(lab_file)
    create.make_secrets(paths)
    with closing(sqlite3.connect(paths.database)) as db:
        db.execute("CREATE TABLE users (name TEXT)")
        db.execute("INSERT INTO users VALUES ('ada')")
        db.commit()
    app = state / "services" / "plates"
    app.mkdir(parents=True)
    (app / "service.yaml").write_text("title: Plates")
    for file in (paths.lab_file, app / "service.yaml"):
        file.chmod(0o600)  # as all that comes back
    return paths


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, people: People) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    names = [people.add(f"{who}{len(people.names)}") for who in ("ada", "bob")]
    group = f"lt{secrets.token_hex(3)}"
    subprocess.run(["groupadd", group], check=True)
    try:
        for name in names:
            subprocess.run(["usermod", "--append", "--groups", group, name], check=True)
        address = str(folder / "elsewhere")
        text = f"authentication: {{unix_group: {group}}}\nbackup: {{to: {address}, homes: true}}\n"
        yield Lab(fill(folder / "state", text), address, *names)
    finally:
        subprocess.run(["groupdel", group], check=True)


def stored(folder: Path) -> dict[str, object]:
    """All that is in a folder: kinds, rights, owners, contents; the database by its rows."""
    out: dict[str, object] = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            status = path.lstat()
            key = str(path.relative_to(folder))
            out[key] = (stat.S_IFMT(status.st_mode), status.st_uid)
            if path.is_symlink():
                out[key] = (out[key], path.readlink())
            elif path.suffix == ".sqlite":
                with closing(sqlite3.connect(path)) as db:
                    out[key] = db.execute("SELECT * FROM users").fetchall()
            elif status.st_size > 1 << 30:
                out[key] = (out[key], status.st_size)
            elif path.is_file():
                out[key] = (out[key], stat.S_IMODE(status.st_mode), path.read_bytes())
    return out


def state_of(paths: Paths) -> dict[str, object]:
    """What a restore of the portal puts back."""
    parts = ("lab.yaml", "jupyterhub.sqlite", "secrets", "services")
    return {name: value for name, value in stored(paths.state).items() if name.startswith(parts)}


def as_person(name: str, code: str) -> None:
    """Let a person shape their home."""
    account = pwd.getpwnam(name)
    subprocess.run(
        [sys.executable, "-c", code],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd=account.pw_dir,
        check=True,
    )


SHAPE = """
import os
os.makedirs("thesis/\u00fcber alles")
open("thesis/\u00fcber alles/chapter one.txt", "w").write("It was a dark and stormy night.")
open("closed", "w").write("mine"); os.chmod("closed", 0o600)
os.symlink("/etc/shadow", "link")
os.mkfifo("fifo")
open("sparse", "wb").truncate(1 << 40)
open("unreadable", "w").write("x"); os.chmod("unreadable", 0)
os.mkdir("tmp"); open("tmp/CACHEDIR.TAG", "w").write("Signature: 8a477f597d28d172789f06886806bc55")
open("tmp/x", "w").write("x")
"""


@needs_root
@needs_restic
def test_the_restore_drill(lab: Lab) -> None:
    """Back up, lose everything, restore into nothing, compare."""
    home = Path(pwd.getpwnam(lab.ada).pw_dir)
    as_person(lab.ada, SHAPE)
    said = lab.labhub("backup", code=1)
    assert "labhub backup --new" in said
    said = lab.labhub("backup", "--new")
    assert f"Saved the portal and 2 homes at {lab.address}" in said
    assert str(lab.paths.secrets / PASSWORD) in said
    saved, saved_home = state_of(lab.paths), stored(home)
    del saved_home["unreadable"], saved_home["tmp/x"]
    password = (lab.paths.secrets / PASSWORD).read_text()
    finding = remote_backup.finding(lab.settings, lab.paths)
    assert not finding.problems
    assert "read back, 2 homes" in finding.detail
    # The machine is lost.
    assert remove_tree(lab.paths.state)
    for entry in home.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    # A new one: whoever restores has the address and the password.
    create.make_folders(lab.paths)
    (lab.paths.secrets / PASSWORD).write_text(password)
    (lab.paths.secrets / PASSWORD).chmod(0o600)
    lab.labhub("restore", "--from", lab.address, "--yes")
    assert state_of(lab.paths) == saved
    lab.labhub("restore", "--home", lab.ada)
    back = stored(home)
    sparse = home / "sparse"
    assert sparse.stat().st_size == 1 << 40
    assert sparse.stat().st_blocks < 1000
    assert back == saved_home
    # Who has files already finds the saved ones beside them.
    said = lab.labhub("restore", "--home", lab.ada, "--day", date.today().isoformat())
    beside = Path(said.strip().splitlines()[-1])
    assert beside.parent == home
    assert beside.name.startswith("restored-")
    assert (beside / "thesis/\u00fcber alles/chapter one.txt").read_text().startswith("It was")
    assert beside.stat().st_uid == home.stat().st_uid
    yesterday = (date.today() - timedelta(days=1)).isoformat()
    assert "no portal was saved" in lab.labhub(
        "restore", "--yes", "--from", lab.address, "--day", yesterday, code=1
    )
    assert "no home of this name" in lab.labhub("restore", "--home", "nobody-such", code=1)


@pytest.fixture
def quick(tmp_path: Path) -> tuple[Paths, Repository]:
    """A portal without people, and its repository."""
    address = str(tmp_path / "elsewhere")
    paths = fill(tmp_path / "state", f"backup: {{to: {address}}}\n")
    remote_backup.make_repository(paths, address)
    return paths, Repository(address, paths)


def limited(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"backup": settings.backup.model_copy(update=limits)})


@needs_root
@needs_restic
def test_a_home_that_is_too_much_stops_no_other(lab: Lab, tmp_path: Path) -> None:
    """What broke off is no snapshot that looks whole."""
    address = str(tmp_path / "elsewhere")
    as_person(lab.ada, "open('large', 'wb').write(bytes(40 << 20))")
    deep_folder = Path(pwd.getpwnam(lab.bob).pw_dir) / "deep"
    deep_folder.mkdir()
    deep(deep_folder, 2200)  # beyond what one path can say
    remote_backup.make_repository(lab.paths, address)
    try:
        settings = limited(lab.settings, home_size=32 << 20)
        record = remote_backup.create(lab.paths, settings, address)
    finally:
        assert remove_tree(deep_folder)
    assert len(record.problems) == 1, record.problems
    problem = record.problems[0]
    assert lab.ada in problem
    assert "more than backup.home_size" in problem
    assert record.homes == 1
    names = [one.name for one in Repository(address, lab.paths).snapshots()]
    assert names == ["portal.tar", f"home-{lab.bob}.tar"]
    assert f"{lab.ada}: holds more" in lab_doctor(lab, address)


def lab_doctor(lab: Lab, address: str) -> str:
    settings = limited(lab.settings, to=address)
    return " ".join(p.text for p in remote_backup.finding(settings, lab.paths).problems)


@needs_root
def test_a_home_has_a_deadline(ada: str) -> None:
    account = pwd.getpwnam(ada)
    with pytest.raises(HomeError, match="home_time"):
        list(home_archive.pieces(account, 1 << 40, timeout=0))


def sender(data: bytes) -> Callable[[int], None]:
    def send(end: int) -> None:
        os.write(end, data)

    return send


@needs_root
def test_what_is_no_archive_is_not_put_back(ada: str) -> None:
    account = pwd.getpwnam(ada)
    with pytest.raises(HomeError, match="tar says"):
        home_archive.put_back(account, sender(b"x" * 2000), "x", 60)


@needs_root
def test_an_archive_cannot_leave_the_home(ada: str, bob: str) -> None:
    """Its owner has shaped it; it is unpacked with no more than the owner's rights."""
    account = pwd.getpwnam(ada)
    evil = subprocess.run(
        ["tar", "-cPf", "-", "--transform", "s,.*,/root/evil,", "/etc/hostname"],
        capture_output=True,
        check=True,
    ).stdout
    home_archive.put_back(account, sender(evil), "", 60)
    assert not Path("/root/evil").exists()
    assert (Path(account.pw_dir) / "root" / "evil").stat().st_uid == account.pw_uid


@needs_restic
def test_what_cannot_be_read_back_is_no_good_backup(
    quick: tuple[Paths, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, repository = quick
    remote_backup.create(paths, read(paths.lab_file), repository.address)
    good = remote_backup.last(paths)
    assert good is not None
    for pack in Path(repository.address, "data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(bytes(pack.stat().st_size))
    before = state_of(paths)
    with pytest.raises(ProblemsError, match="restic cannot"):
        remote_backup.restore(paths, repository.address)
    assert state_of(paths) == before
    monkeypatch.setattr(Repository, "read", lambda _, __, target, ___: target.write(b"else"))
    with pytest.raises(ProblemsError, match="not what was saved"):
        remote_backup.create(paths, read(paths.lab_file), repository.address)
    finding = remote_backup.finding(read(paths.lab_file), paths)
    assert finding.problems
    record = remote_backup.last(paths)
    assert record is not None
    assert record.good == good.good


@needs_restic
def test_the_password_is_seen_nowhere(
    quick: tuple[Paths, Repository],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    paths, repository = quick
    (paths.secrets / "backup_env").write_text("# S3\nAWS_SECRET_ACCESS_KEY=its-secret\n")
    (paths.secrets / "backup_env").chmod(0o600)
    calls: list[tuple[list[str], dict[str, str]]] = []
    popen = subprocess.Popen

    def started(words: list[str], **options: Any) -> Any:
        calls.append((words, options["env"]))
        return popen(words, **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    remote_backup.create(paths, read(paths.lab_file), repository.address)
    password = (paths.secrets / PASSWORD).read_text().strip()
    said = "".join(capfd.readouterr()) + (paths.backups / "last.json").read_text()
    for words, env in calls:
        assert words[0] == "restic"
        assert password not in " ".join([*words, *env.values()])
        assert repository.address not in words
        assert env["AWS_SECRET_ACCESS_KEY"] == "its-secret"
        assert "its-secret" not in " ".join(words)
    assert len(calls) > 4
    assert password not in said
    assert "its-secret" not in said
    (paths.secrets / PASSWORD).chmod(0o644)
    with pytest.raises(ProblemsError, match="other accounts can read it"):
        repository.snapshots()
    (paths.secrets / PASSWORD).chmod(0o600)
    (paths.secrets / PASSWORD).write_text("another")
    with pytest.raises(ProblemsError, match="wrong password"):
        remote_backup.restore(paths, repository.address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "backup", "../x", "/mnt/../etc", "/mnt/x\n", "-o", "http://x", "ftp:x"),
        *("sftp:-oProxyCommand=sh", "rest:https://lab:secret@nas/"),
    ],
)
def test_what_is_no_place_is_refused(address: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Backup(to=address)
    assert "secret@" not in str(refusal.value)


@pytest.mark.parametrize(
    "address", ["/mnt/backup", "sftp:me@nas:/labhub", "s3:https://s3.example/bucket", "rclone:x:y"]
)
def test_places(address: str) -> None:
    assert Backup(to=address).to == address


def test_doctor_says_when_and_whether(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "envs")
    paths.backups.mkdir()
    settings = Settings(backup=Backup(to="/mnt/backup"))
    assert not remote_backup.finding(Settings(), paths).problems
    (never,) = remote_backup.finding(settings, paths).problems
    assert "none was made at /mnt/backup" in never.text
    now = time.time()
    good = Record("/mnt/backup", now, good=now, homes=3)
    for record, words in (
        (replace(good, good=0.0, problems=("nas: is off",)), "nas: is off"),
        (replace(good, place="/mnt/other"), "none was made at /mnt/backup"),
        (replace(good, good=now - 3 * 86400), "the last good one is 3"),
        (replace(good, problems=("ada: too large",)), "ada: too large"),
    ):
        remote_backup._note(paths, record)
        assert words in remote_backup.finding(settings, paths).problems[0].text
    remote_backup._note(paths, good)
    finding = remote_backup.finding(settings, paths)
    assert not finding.problems
    assert "read back, 3 homes, at /mnt/backup" in finding.detail
