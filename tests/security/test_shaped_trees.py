"""Folders that a user has shaped against those who clean up: deep, wide, closed, full of links."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.sandbox.cgroups import SandboxLimits
from hub.sandbox.instance import sandbox_key
from hub.sandbox.reap import reap, remove_all
from hub.sandbox.sandboxes import Sandboxes
from hub.state import trash
from labkit.base.remove import remove_tree
from tests.conftest import needs_root
from tests.security.bare_sandbox import bare_sandboxes
from tests.security.neighbours import traces, wait_for

LEVELS = 3000
FILES = 20_000
LIMITS = SandboxLimits(cpu=1, memory=64 << 20, processes=32)


def deep(folder: Path, levels: int = LEVELS) -> None:
    """Nest folders, far beyond Python's recursion and the length of a path."""
    here = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=here)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def wide(folder: Path, files: int = FILES) -> None:
    here = os.open(folder, os.O_RDONLY)
    for number in range(files):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_any_tree_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    tree = tmp_path / "tree"
    for name in ("deep", "wide", "closed", "closed/inner"):
        (tree / name).mkdir(parents=True)
    deep(tree / "deep")
    wide(tree / "wide", 500)
    (tree / "folder-link").symlink_to(outside)
    (tree / "file-link").symlink_to(outside / "precious")
    os.mkfifo(tree / "fifo")
    (tree / "closed" / "inner").chmod(0)
    (tree / "closed").chmod(0)
    assert remove_tree(tree)
    assert not tree.exists()
    assert (outside / "precious").read_text() == "kept"
    link = tmp_path / "link"
    link.symlink_to(outside)
    assert not remove_tree(link)
    assert (outside / "precious").exists()
    assert remove_tree(tmp_path / "nowhere")


def test_a_deadline_ends_it(tmp_path: Path) -> None:
    wide(tmp_path, 100)
    assert not remove_tree(tmp_path, timeout=-1)
    assert len(list(tmp_path.iterdir())) == 100


@pytest.fixture
def sandboxes(tmp_path: Path) -> Iterator[Sandboxes]:
    with bare_sandboxes(tmp_path, "10.240.23.0/24") as those:
        yield those


def shaped(sandboxes: Sandboxes, who: str) -> str:
    """Make a sandbox whose /tmp its user has shaped; returns its name."""
    account = pwd.getpwnam(who)
    key = sandbox_key(account.pw_uid, "")
    sandboxes.create(key, account, LIMITS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(sandboxes.folder(key) / "tmp")
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            for name, make in (("deep", deep), ("wide", wide)):
                Path(name).mkdir()
                make(Path(name))
            Path("closed").mkdir(mode=0)
            Path("link").symlink_to("/etc")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return key


@needs_root
def test_a_shaped_tmp_hinders_nobody(sandboxes: Sandboxes, ada: str, bob: str) -> None:
    key = shaped(sandboxes, ada)
    bin_ = sandboxes.instance.trash
    sandboxes.destroy(key)
    assert traces(sandboxes, key) == []
    # The same person and another one start at once, while it is still being deleted.
    for who in (ada, bob):
        account = pwd.getpwnam(who)
        sandboxes.create(sandbox_key(account.pw_uid, ""), account, LIMITS)
    wait_for(lambda: not trash.contents(bin_), timeout=60)
    assert Path("/etc/passwd").exists()


@needs_root
def test_reap_and_down_go_on(sandboxes: Sandboxes, ada: str, bob: str) -> None:
    first = shaped(sandboxes, ada)
    sandboxes.started(first)
    assert reap(sandboxes) == [first]
    assert traces(sandboxes, first) == []
    second = shaped(sandboxes, bob)
    remove_all(sandboxes)
    assert traces(sandboxes, second) == []
    assert not any(parent.exists() for parent in sandboxes.groups.parents.values())
    wait_for(lambda: not trash.contents(sandboxes.instance.trash), timeout=60)


@needs_root
def test_one_that_cannot_be_removed_stops_no_other(
    sandboxes: Sandboxes,
    ada: str,
    bob: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = []
    for who in (ada, bob):
        account = pwd.getpwnam(who)
        keys.append(sandbox_key(account.pw_uid, ""))
        sandboxes.create(keys[-1], account, LIMITS)
        sandboxes.started(keys[-1])
    destroy = sandboxes.destroy

    def fails(key: str) -> None:
        if key == min(keys):
            raise OSError(5, "the disk is on fire")
        destroy(key)

    monkeypatch.setattr(sandboxes, "destroy", fails)
    with caplog.at_level(logging.ERROR):
        reap(sandboxes)
    assert traces(sandboxes, max(keys)) == []
    assert f"Sandbox {min(keys)} cannot be removed" in caplog.text
    remove_all(sandboxes)
    assert not sandboxes.network.in_force()
    monkeypatch.undo()
