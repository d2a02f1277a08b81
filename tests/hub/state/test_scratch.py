"""Scratch folders: each person's own, and cleaned with their rights."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.labfile.read import read
from hub.labfile.schema import Settings
from hub.state import scratch
from hub.state.paths import REPOSITORY
from hub.state.scratch import make, remove_older
from labkit.base.remove import remove_tree
from tests.conftest import needs_root
from tests.security.neighbours import wait_for
from tests.support.portal import portal
from tests.support.shaped_trees import deep

LONG_AGO = time.time() - 100 * 86400


@pytest.fixture
def top() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="labhub-scratch-", dir="/srv"))
    folder.chmod(0o755)
    yield folder / "scratch"
    remove_tree(folder)


def put(path: Path, owner: os.stat_result | None = None, *, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    if owner is not None:
        os.chown(path, owner.st_uid, owner.st_gid)
    if old:
        os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_what_is_old_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = put(tmp_path / "outside" / "precious")
    folder = tmp_path / "scratch"
    put(folder / "a" / "b" / "old")
    new = put(folder / "c" / "new", old=False)
    read_lately = put(folder / "read")
    os.utime(read_lately, (time.time(), LONG_AGO))
    (folder / "link").symlink_to(outside)
    # The kernel sets the time of a file's last change of any kind: all here are of today.
    remove_older(folder, time.time() - 86400)
    assert (folder / "a" / "b" / "old").exists()
    remove_older(folder, time.time() + 86400)
    assert list(folder.iterdir()) == []
    assert not new.exists()
    assert outside.exists()


@needs_root
def test_it_is_done_as_the_owner(top: Path, ada: str, bob: str) -> None:
    folders = {who: make(top, pwd.getpwnam(who)) for who in (ada, bob)}
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders.values())
    owner = folders[ada].stat()
    mine = put(folders[ada] / "mine", owner)
    closed = folders[ada] / "closed"  # of root's: its owner may not go in
    closed.mkdir(mode=0o700)
    kept = put(closed / "kept")
    (folders[ada] / "link").symlink_to(folders[bob])
    theirs = put(folders[bob] / "theirs", folders[bob].stat(), old=False)
    (top / "trap").symlink_to("/etc")
    # A day in the future stands for days that go by: nobody can put a file's ctime back.
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from hub.state import scratch;"
        "now = time.time(); time.time = lambda: now + 40 * 86400; scratch.main()"
    )
    os.chown(folders[bob], *(pwd.getpwnam(bob)[2:4]))
    command = [sys.executable, "-I", "-S", "-c", program, str(REPOSITORY), str(top), "30"]
    subprocess.run(command, check=True)
    assert not mine.exists()
    assert not (folders[ada] / "link").is_symlink()
    assert kept.exists()
    assert not theirs.exists()
    assert Path("/etc/passwd").exists()
    assert all(folder.is_dir() for folder in folders.values())


@needs_root
def test_a_deep_tree_stops_nobody_elses(top: Path, ada: str, bob: str) -> None:
    first, second = (make(top, pwd.getpwnam(who)) for who in sorted((ada, bob)))
    owner = first.stat()
    deep(first, uid=owner.st_uid, gid=owner.st_gid)
    old = put(second / "old", second.stat())
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from hub.state import scratch;"
        "now = time.time(); time.time = lambda: now + 40 * 86400; scratch.main()"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(REPOSITORY), str(top), "30"]
    subprocess.run(command, check=True)
    assert not old.exists()


@needs_root
def test_a_name_that_is_taken_is_refused(top: Path, ada: str, bob: str) -> None:
    top.mkdir()
    (top / ada).symlink_to("/etc")
    with pytest.raises(OSError):
        make(top, pwd.getpwnam(ada))
    theirs = make(top, pwd.getpwnam(bob))
    (top / ada).unlink()
    theirs.rename(top / ada)
    with pytest.raises(PermissionError, match="somebody else"):
        make(top, pwd.getpwnam(ada))


@needs_root
def test_each_server_has_its_own(top: Path, ada: str, bob: str) -> None:
    code = """
import os, pathlib
place = pathlib.Path(os.environ["LABHUB_SCRATCH"])
(place / "file").write_text("x")
print(sorted(one.name for one in place.parent.iterdir()))
"""
    with portal({"storage": {"scratch": {"path": str(top), "days": 14}}}) as running:
        assert read(running.state / "lab.yaml").storage.scratch is not None
        for who in (ada, bob):
            running.spawn(who)
            assert running.run(who, code).strip() == str([who])
            assert (top / who / "file").exists()
        wait_for(lambda: (top / ".cleaned").exists(), timeout=60)
        browser = running.browser()
        browser.login(ada)
        assert "for 14 days" in browser.get("/hub/home").text
    shutil.rmtree(top)


@pytest.mark.parametrize(
    ("storage", "more", "text"),
    [
        ({"scratch": {"path": "/etc/scratch", "days": 3}}, {}, "system folder"),
        ({"scratch": {"path": "/srv/scratch", "days": 0}}, {}, "greater than or equal to 1"),
        (
            {"scratch": {"path": "/srv/scratch", "days": 3}},
            {"target": "eks", "eks": {"images": "lab"}},
            "storage.scratch",
        ),
    ],
)
def test_what_the_lab_file_may_not_say(
    storage: dict[str, object], more: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError, match=text):
        Settings.model_validate({"storage": storage, **more})


def test_it_is_cleaned_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    monkeypatch.setattr(scratch, "_running", [])
    stamp = tmp_path / ".cleaned"
    stamp.touch()
    scratch.clean(tmp_path, 30)
    assert started == []
    os.utime(stamp, (time.time() - 90_000,) * 2)
    scratch.clean(tmp_path, 30)
    assert started[0][-2:] == [str(tmp_path), "30"]
