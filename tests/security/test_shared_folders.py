"""Folders that people share: used by members, closed to others, no way out and no way to write."""

from __future__ import annotations

import contextlib
import grp
import itertools
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.labfile.read import read
from hub.labfile.schema import Settings
from hub.sandbox import shared_folders
from hub.sandbox.sandboxes import Sandboxes
from hub.sandbox.shared_folders import for_groups, group_name
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.security.bare_sandbox import bare_sandboxes, run_inside
from tests.security.neighbours import wait_for
from tests.support.portal import Portal, portal


@dataclass(frozen=True)
class Lab:
    settings: Settings
    group: str
    top: Path
    open_to_all: Path
    read_only: Path

    @property
    def folder(self) -> Path:
        return self.top / "groups" / self.group


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    group = f"g{secrets.token_hex(3)}"
    # Not below /tmp: that is each server's own.
    top = Path(tempfile.mkdtemp(prefix="labhub-shared-", dir="/srv"))
    top.chmod(0o755)
    (top / "reference").mkdir()
    (top / "reference" / "genome").write_text("ACGT")
    storage = {
        "group_folders": str(top / "groups"),
        "shared": [
            {"path": str(top / "reference")},
            {"path": str(top / "plates"), "mode": "rw"},
        ],
    }
    settings = Settings.model_validate({"groups": {group: []}, "storage": storage})
    try:
        yield Lab(settings, group, top, top / "plates", top / "reference")
    finally:
        subprocess.run(["groupdel", group_name([group])], capture_output=True, check=False)
        shutil.rmtree(top)


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Sandboxes]:
    shared_folders.make(lab.settings, on_this_machine=True)
    with bare_sandboxes(tmp_path_factory.mktemp("state"), "10.240.29.0/24") as those:
        yield those


def shell(
    sandboxes: Sandboxes, lab: Lab, who: str, text: str, *, member: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a shell in a person's sandbox, with the umask of servers."""
    folders = for_groups(lab.settings, [lab.group] if member else [])
    return run_inside(sandboxes, who, ["sh", "-ec", f"umask 077; {text}"], folders=folders)


@needs_root
@pytest.mark.parametrize("place", ["folder", "open_to_all"])
def test_members_use_each_others_files(
    sandboxes: Sandboxes, lab: Lab, ada: str, bob: str, place: str
) -> None:
    folder: Path = getattr(lab, place)
    wrote = f"cd {folder}; echo one > file; mkdir -p deep/er; echo two > deep/er/file"
    done = shell(sandboxes, lab, ada, wrote)
    assert done.returncode == 0, done.stderr
    used = f"cd {folder}; echo more >> file; cat file deep/er/file; rm -r deep; echo new > own"
    done = shell(sandboxes, lab, bob, used)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one\nmore\ntwo\n"
    done = shell(sandboxes, lab, ada, f"cd {folder}; cat own; rm own file")
    assert (done.returncode, done.stdout) == (0, "new\n"), done.stderr
    assert list(folder.iterdir()) == []


@needs_root
def test_who_is_not_in_the_group_finds_nothing(
    sandboxes: Sandboxes, lab: Lab, ada: str, bob: str
) -> None:
    assert shell(sandboxes, lab, ada, f"echo secret > {lab.folder}/file").returncode == 0
    tries = f"ls {lab.top}/groups || true; cat {lab.folder}/file || echo closed; id -nG"
    done = shell(sandboxes, lab, bob, tries, member=False)
    assert "secret" not in done.stdout
    assert "closed" in done.stdout
    assert lab.group not in done.stdout
    # Nor where they log in to the machine itself, without a sandbox.
    account = pwd.getpwnam(bob)
    outside = subprocess.run(
        [
            *("setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid)),
            *("--init-groups", "ls", str(lab.folder)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outside.returncode != 0
    assert "Permission denied" in outside.stderr
    (lab.folder / "file").unlink()


@needs_root
def test_a_link_out_of_a_shared_folder_opens_nothing(
    sandboxes: Sandboxes, lab: Lab, ada: str, bob: str
) -> None:
    private = Path(f"/home/{bob}/private")
    private.write_text("of bob alone")
    account = pwd.getpwnam(bob)
    shutil.chown(private, account.pw_uid, account.pw_gid)
    private.chmod(0o600)
    tries = f"cd {lab.open_to_all}; ln -s {private} out; ln -s /etc/shadow shadow"
    done = shell(sandboxes, lab, ada, f"{tries}; cat out shadow || echo closed")
    assert done.stdout == "closed\n"
    # A member may not set the folder's own rights, nor take its place.
    for attempt in (
        f"chmod 777 {lab.folder}",
        f"mv {lab.folder} {lab.top}/groups/else",
        f"ln -sfn / {lab.folder}",
        f"rmdir {lab.folder}",
    ):
        shell(sandboxes, lab, ada, attempt)
    assert lab.folder.stat().st_mode & 0o7777 == 0o2770
    assert lab.folder.stat().st_uid == 0
    assert not lab.folder.is_symlink()
    for link in [path for path in lab.folder.iterdir() if path.is_symlink()]:
        link.unlink()  # `ln` has put one into it
    for name in ("out", "shadow"):
        (lab.open_to_all / name).unlink()


@needs_root
def test_read_only_stays_so(sandboxes: Sandboxes, lab: Lab, ada: str) -> None:
    lab.read_only.chmod(0o777)  # whatever its own rights say
    place = lab.read_only
    tries = f"cat {place}/genome; for one in {place}/new {place}/genome; do "
    tries += "(echo x > $one) 2>&1 || echo refused; done"
    done = shell(sandboxes, lab, ada, tries)
    assert done.stdout.count("refused") == 2
    assert "Read-only file system" in done.stdout
    assert sorted(path.name for path in place.iterdir()) == ["genome"]


@pytest.fixture(scope="module")
def running(lab: Lab, ada: str) -> Iterator[Portal]:
    storage = lab.settings.storage.model_dump(mode="json")
    with portal({"groups": {lab.group: [ada]}, "storage": storage}) as made:
        shared_folders.make(read(made.state / "lab.yaml"), on_this_machine=True)
        yield made


@needs_root
def test_the_home_page_says_what_the_home_holds(running: Portal, ada: str) -> None:
    browser = running.browser()
    browser.login(ada)
    wait_for(lambda: "Your home folder holds" in browser.get("/hub/home").text, timeout=60)


@needs_root
def test_the_portals_groups_decide(running: Portal, lab: Lab, ada: str, bob: str) -> None:
    code = f"""
import os
print(os.environ["LABHUB_SHARED_FOLDERS"], os.path.isdir({str(lab.folder)!r}))
"""
    running.spawn(ada)
    running.spawn(bob)
    seen = running.run(ada, code)
    assert str(lab.folder) in seen
    assert "True" in seen
    seen = running.run(bob, code)
    assert str(lab.open_to_all) in seen
    assert str(lab.folder) not in seen
    assert "False" in seen
    running.api("DELETE", f"/groups/{lab.group}/users", json={"users": [ada]})
    running.stop_server(ada)
    running.spawn(ada)
    assert "False" in running.run(ada, code)


@needs_root
def test_what_is_there_stays_as_it_is_and_is_told_of(lab: Lab) -> None:
    kept = lab.top / "kept"
    kept.mkdir(mode=0o755)
    (kept / "file").write_text("x")
    (lab.top / "link").symlink_to("/etc")
    (lab.top / "empty").mkdir(mode=0o755)

    def settings(*names: str) -> Settings:
        shared = [{"path": str(lab.top / n), "mode": "rw", "groups": [lab.group]} for n in names]
        return Settings.model_validate({"groups": {lab.group: []}, "storage": {"shared": shared}})

    shared_folders.make(settings("kept", "empty"), on_this_machine=True)
    assert kept.stat().st_mode & 0o7777 == 0o755
    texts = [
        str(problem)
        for problem in shared_folders.problems(settings("kept", "empty"), on_this_machine=True)
    ]
    assert len(texts) == 2
    assert "open to all accounts" in texts[0]
    assert "others cannot use" in texts[1]
    assert f"chgrp -R {group_name([lab.group])} {kept}" in texts[1]
    with pytest.raises(ProblemsError, match="cannot be made"):
        shared_folders.make(settings("link"), on_this_machine=True)
    with pytest.raises(ProblemsError, match="make its parent folder"):
        shared_folders.make(settings("no/parent"), on_this_machine=True)
    assert list(shared_folders.problems(lab.settings, on_this_machine=True)) == []


def test_unix_groups_never_meet() -> None:
    names = ["a", "b", "x-a", "x", "ab", "a" * 22, "a" * 23, "a" * 24, "a" * 63]
    sets = [frozenset(one) for size in (1, 2, 3) for one in itertools.combinations(names, size)]
    made = {group_name(one) for one in sets}
    assert len(made) == len(sets)
    assert all(len(name) <= 32 for name in made)
    with contextlib.suppress(KeyError):
        assert grp.getgrnam(group_name(["a", "b"])).gr_mem == []


@pytest.mark.parametrize(
    ("storage", "more", "text"),
    [
        ({"shared": [{"path": "/srv/a", "groups": ["nobody"]}]}, {}, "do not exist: nobody"),
        ({"group_folders": "/etc/groups"}, {}, "system folder"),
        ({"group_folders": "groups"}, {}, "absolute path"),
        ({"shared": [{"path": "/srv/a"}, {"path": "/srv/a", "mode": "rw"}]}, {}, "twice: /srv/a"),
        (
            {"group_folders": "/srv/a", "shared": [{"path": "/srv/a/imaging"}]},
            {"groups": {"imaging": []}},
            "twice",
        ),
        (
            {"group_folders": "/srv/a"},
            {"target": "eks", "eks": {"images": "lab"}},
            "target eks",
        ),
    ],
)
def test_what_the_lab_file_may_not_say(
    storage: dict[str, object], more: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError, match=text):
        Settings.model_validate({"storage": storage, **more})
