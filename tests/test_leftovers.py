"""What killed test runs left: taken away where no living process owns it, and only there."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_root
from tests.support import leftovers
from tests.support.portal import People

REPOSITORY = Path(__file__).resolve().parents[1]


def account(name: str, comment: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", 4000, 4000, comment, f"/home/{name}", "/bin/sh"))


@needs_root
def test_only_what_a_dead_process_made_is_without_an_owner(tmp_path: Path) -> None:
    number, _, created = leftovers.this_process().partition(" ")
    reused = f"{number} {float(created) - 100:.2f}"  # an earlier process of that number
    mine = leftovers.comment()
    accounts = [
        account("lt0a1b-mine", mine),
        account("lt0a1b-dead", mine.replace(leftovers.this_process(), reused)),
        account("lt0a1b-untold", ""),
        account("ada", mine.replace(leftovers.this_process(), reused)),
    ]
    assert leftovers.ownerless_accounts(accounts) == ["lt0a1b-dead"]
    names = ("mine", "dead", "untold", "of-somebody-else")
    for name in (*(f"labhub-test-{name}" for name in names), "other"):
        (tmp_path / name).mkdir()
        leftovers.claim(tmp_path / name)
    (tmp_path / "labhub-test-untold" / "test-owner").unlink()
    for name in ("labhub-test-dead", "labhub-test-of-somebody-else", "other"):
        (tmp_path / name / "test-owner").write_text(reused)
    os.chown(tmp_path / "labhub-test-of-somebody-else", 65534, 65534)
    assert leftovers.ownerless_folders(tmp_path) == [tmp_path / "labhub-test-dead"]


@needs_root
def test_what_a_killed_run_made_goes_and_the_rest_stays(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = people.add("living")
    code = (
        "import sys, pathlib\n"
        "from tests.support import leftovers\n"
        "from tests.support.portal import People\n"
        f"folder = pathlib.Path({str(tmp_path)!r}, 'labhub-test-killed')\n"
        "folder.mkdir()\n"
        "leftovers.claim(folder)\n"
        "print(People().add('killed'), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        name = run.stdout.readline().strip()
        people.names.append(name)  # removed at the end, whatever happens
        leftovers.reap(tmp_path)
        assert pwd.getpwnam(name)  # its run lives
        run.send_signal(signal.SIGKILL)
    # Its state is named by what runs with it.
    state = str(tmp_path / "labhub-test-killed" / "state")
    with subprocess.Popen(["sleep", "600"], env={"LABHUB_STATE": state}) as hub:
        leftovers.reap(tmp_path)
        assert hub.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "labhub-test-killed").exists()
    with pytest.raises(KeyError):
        pwd.getpwnam(name)
    assert pwd.getpwnam(living)
