"""Folders that a user has shaped against those who clean up: deep, wide, closed, full of links."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.apps import install
from hub.apps.app_paths import AppPaths
from hub.labfile.read import parse
from hub.runtime import backups
from hub.sandbox.accounts import Accounts
from hub.sandbox.cgroups import SandboxLimits
from hub.sandbox.instance import sandbox_key
from hub.sandbox.reap import reap, remove_all
from hub.sandbox.sandboxes import Sandboxes
from hub.state import trash
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from labkit.base.remove import remove_tree
from labkit.base.walk import DEEPEST, TooDeepError, walk
from labkit.portal.webapps.package import collect
from tests.conftest import needs_root
from tests.security.bare_sandbox import bare_sandboxes
from tests.security.neighbours import traces, wait_for
from tests.support.portal import UNIX_GROUP
from tests.support.shaped_trees import deep, shape_as, wide
from tests.support.stored_app import declare, state_with_app, store

LIMITS = SandboxLimits(cpu=1, memory=64 << 20, processes=32)


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
    shape_as(account, sandboxes.folder(key) / "tmp")
    return key


@needs_root
def test_a_shaped_tmp_hinders_nobody(sandboxes: Sandboxes, ada: str, bob: str) -> None:
    key = shaped(sandboxes, ada)
    bin_ = sandboxes.instance.trash
    # Where bubblewrap has mounted something below /var/tmp there is a folder of root's.
    (sandboxes.folder(key) / "tmp" / "of-root" / "envs").mkdir(parents=True)
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


def test_a_walk_goes_through_what_can_be_gone_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("1")
    (tree / "link").symlink_to(outside)
    (tree / "skipped").mkdir()
    (tree / "skipped" / "inside").touch()
    paths = [entry.path for entry in walk(tree, enter=lambda entry: entry.name != "skipped")]
    assert paths == ["a", "a/b", "a/b/file", "link", "skipped"]
    assert list(walk(tree / "link")) == list(walk(tmp_path / "nowhere")) == []
    deep(tree, DEEPEST)
    assert len(list(walk(tree))) == len(paths) + 1 + 2 * DEEPEST
    (tmp_path / "deeper").mkdir()
    for levels, name in ((DEEPEST + 1, "d"), (20, "d" * 250)):
        place = tmp_path / "deeper" / name[:2]
        place.mkdir()
        deep(place, levels, name)
        with pytest.raises(TooDeepError, match="too many folders in each other"):
            list(walk(place))
    held = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            held.append(descriptor.readlink())
    assert [path for path in held if path.is_relative_to(tmp_path)] == []


def test_a_walk_opens_no_file_that_became_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, swap in (("a", "link"), ("b", "pipe")):
        (tree / name).write_text("harmless")
        walking = walk(tree)
        entry = next(entry for entry in walking if entry.name == name)
        (tree / name).unlink()
        if swap == "link":
            (tree / name).symlink_to(tmp_path / "secret")
        else:
            os.mkfifo(tree / name)
        with pytest.raises(OSError):
            entry.open()


@needs_root
def test_an_app_that_stores_a_deep_tree_is_left_out_by_name() -> None:
    with state_with_app() as paths:
        data = store(paths)
        declare(paths, "other")
        store(paths, "other")
        tree = data / "pictures" / "shaped"
        tree.mkdir(parents=True)
        owner = data.stat()
        for path in (data / "pictures", tree):
            os.chown(path, owner.st_uid, owner.st_gid)
        deep(tree, uid=owner.st_uid, gid=owner.st_gid)
        try:
            made = backups.create(paths)
            (left_out,) = made.left_out
            assert left_out.where == "plates"
            assert "too many folders in each other" in left_out.text
            with tarfile.open(made.file) as archive:
                names = archive.getnames()
            assert {name.split("/")[1] for name in names if name.startswith("appdata/")} == {
                "other"
            }
        finally:
            assert remove_tree(tree)


def test_a_hostile_archive_of_deep_folders_is_refused(tmp_path: Path) -> None:
    with state_with_app() as paths:
        for top in ("appdata/plates", "services/plates"):
            file = tmp_path / "hostile.tar.gz"
            with tarfile.open(file, "w:gz") as archive:
                archive.addfile(tarfile.TarInfo("/".join([top, *["d"] * 1900, "file"])))
            with pytest.raises(ProblemsError, match="which no backup of a portal does"):
                backups.restore(paths, file)


def test_a_deep_folder_is_no_app(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state", tmp_path / "envs")
    folder = tmp_path / "plates"
    folder.mkdir()
    (folder / "service.yaml").write_text("title: A\ncommand: [python, '{folder}/a.py']\n")
    deep(folder)
    (tmp_path / "state").mkdir()
    with pytest.raises(ProblemsError, match="too many folders in each other"):
        install.add(str(folder), None, parse(""), paths)
    package = collect(folder, 1 << 20)
    assert "too many folders in each other" in " ".join(map(str, package.problems))
    assert remove_tree(folder)


def test_an_apps_folder_that_changes_while_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is looked at, and is a link to root's own when it is copied."""
    (tmp_path / "state").mkdir()
    paths = Paths(tmp_path / "state", tmp_path / "envs")
    monkeypatch.setattr(AppPaths, "make", lambda self: self.own.mkdir(exist_ok=True))
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    folder = tmp_path / "plates"
    folder.mkdir()
    (folder / "service.yaml").write_text("title: A\ncommand: [python, '{folder}/a.py']\n")
    (folder / "a.py").write_text("1")
    looked_at = install._copy_problems

    def then_swap(place: Path) -> object:
        found = looked_at(place)
        (folder / "a.py").unlink(missing_ok=True)
        (folder / "a.py").symlink_to(secret)
        return found

    monkeypatch.setattr(install, "_copy_problems", then_swap)
    with pytest.raises(ProblemsError, match="link out of the folder"):
        install.add(str(folder), None, parse(""), paths)
    assert list(AppPaths(paths).own.iterdir()) == []


@needs_root
def test_a_person_whose_home_is_deep_and_wide_is_removed(tmp_path: Path) -> None:
    name = f"lt{secrets.token_hex(2)}-deep"
    homes = Path(tempfile.mkdtemp(prefix="labhub-homes-", dir="/var/tmp"))
    homes.chmod(0o755)
    accounts = Accounts(group=UNIX_GROUP, homes=homes)
    try:
        account = accounts.add(name)
        entry = pwd.getpwnam(name)
        for part, make in (("deep", deep), ("wide", wide)):
            (account.home / part).mkdir()
            os.chown(account.home / part, entry.pw_uid, entry.pw_gid)
            make(account.home / part, 3000, uid=entry.pw_uid, gid=entry.pw_gid)
        accounts.remove(name, keep_home=False)
        assert not account.home.exists()
        with pytest.raises(KeyError):
            pwd.getpwnam(name)
        wait_for(lambda: not trash.contents(homes / ".labhub-trash"), timeout=60)
    finally:
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)
        remove_tree(homes)
