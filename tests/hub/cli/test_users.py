"""``labhub user`` with real accounts in /etc/passwd, and with the sign-up list."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from ruamel.yaml import YAML

from tests.conftest import needs_root
from tests.support.cli_portal import LABHUB, run

pytestmark = needs_root

GOOD = "seven green kettles"
BETTER = "eight blue teapots"


class Cli:
    """A portal's folder that has only a lab file, and a Unix group of its own."""

    def __init__(self, folder: Path, method: str) -> None:
        self.tag = "lc" + secrets.token_hex(3)
        self.name = f"{self.tag}-ada"
        envs = folder / "envs"
        envs.mkdir()
        (envs / "hub").symlink_to(sys.prefix)
        self.state = folder / "state"
        self.state.mkdir(mode=0o711)
        self.homes = folder / "homes"
        self.homes.mkdir(mode=0o755)
        with (self.state / "lab.yaml").open("w") as stream:
            YAML().dump(
                {
                    "authentication": {"method": method, "unix_group": self.tag},
                    "admins": [f"{self.tag}-boss"],
                    "storage": {"homes": str(self.homes)},
                },
                stream,
            )
        self.env = {**os.environ, "LABHUB_STATE": str(self.state), "LABHUB_ENVS": str(envs)}

    def __call__(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return run("user", *words, env=self.env, stdin=stdin)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(self("list", "--json").stdout)}

    def close(self) -> None:
        for entry in pwd.getpwall():
            if entry.pw_name.startswith(self.tag):
                subprocess.run(["userdel", "--remove", entry.pw_name], capture_output=True)
        subprocess.run(["groupdel", self.tag], capture_output=True)


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path, "pam")
    yield cli
    cli.close()


@pytest.fixture
def signup(tmp_path: Path) -> Iterator[Cli]:
    from jupyterhub import orm

    cli = Cli(tmp_path, "signup")
    orm.new_session_factory(f"sqlite:///{cli.state}/jupyterhub.sqlite")().close()
    yield cli
    cli.close()


def password_field(name: str) -> str:
    for line in Path("/etc/shadow").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":")[1]
    return ""


def test_a_person_comes_and_goes(unix: Cli) -> None:
    name = unix.name
    added = unix("add", name, "--password-stdin", stdin=f"{GOOD}\n")
    assert added.returncode == 0, added.stderr
    entry = pwd.getpwnam(name)
    assert entry.pw_uid >= 1000
    home = Path(entry.pw_dir)
    assert home.parent == unix.homes
    assert home.stat().st_mode & 0o777 == 0o700
    first = password_field(name)
    assert first.startswith("$")
    assert GOOD not in added.stdout + added.stderr
    assert unix.rows()[name] == {
        "name": name,
        "can_log_in": True,
        "admin": False,
        "servers": 0,
        "home": str(home),
    }

    assert unix("passwd", name, "--password-stdin", stdin=f"{BETTER}\n").returncode == 0
    assert password_field(name) not in ("", first)

    (home / "thesis.txt").write_text("mine")
    removed = unix("remove", name, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert name not in unix.rows()
    assert (home / "thesis.txt").read_text() == "mine"
    assert password_field(name).startswith("!"), "locked"

    assert unix("add", name, "--password-stdin", stdin=f"{GOOD}\n").returncode == 0
    gone = unix("remove", name, "--yes", "--delete-home")
    assert gone.returncode == 0, gone.stderr
    assert not home.exists()
    with pytest.raises(KeyError):
        pwd.getpwnam(name)


def test_a_removed_person_leaves_no_rights_to_the_next(unix: Cli) -> None:
    from jupyterhub import orm

    name = unix.name
    unix("add", name, "--password-stdin", stdin=f"{GOOD}\n")
    db = orm.new_session_factory(f"sqlite:///{unix.state}/jupyterhub.sqlite")()
    user = orm.User(name=name, admin=True)
    db.add(user)
    db.commit()
    db.add(orm.APIToken(user=user, hashed="x", prefix="x", note="old"))
    db.commit()
    db.close()
    assert unix.rows()[name]["admin"]
    assert unix("remove", name, "--yes").returncode == 0
    db = orm.new_session_factory(f"sqlite:///{unix.state}/jupyterhub.sqlite")()
    assert orm.User.find(db, name) is None
    assert db.query(orm.APIToken).count() == 0
    db.close()


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (("add", "root", "--password-stdin"), GOOD, "cannot be a user name"),
        (("add", "../x", "--password-stdin"), GOOD, "cannot be a user name"),
        (("add", "$(id)", "--password-stdin"), GOOD, "cannot be a user name"),
        (("add", "a" * 300, "--password-stdin"), GOOD, "cannot be a user name"),
        (("add", "{name}", "--password-stdin"), "short", "at least"),
        (("add", "{name}", "--password-stdin"), "password123", "password"),
        (("add", "{name}", "--password-stdin"), "", "stdin is empty"),
        (("add", "{name}"), "", "--password-stdin"),
        (("passwd", "daemon", "--password-stdin"), GOOD, "account of the system"),
        (("passwd", "{name}", "--password-stdin"), GOOD, "no account"),
        (("remove", "{name}", "--yes"), "", "not a user of this portal"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(
    unix: Cli, words: tuple[str, ...], stdin: str, said: str
) -> None:
    before = Path("/etc/passwd").read_text().count(unix.tag)
    done = unix(*(word.format(name=unix.name) for word in words), stdin=stdin)
    assert done.returncode in (1, 2)
    assert said in done.stderr, done.stderr
    assert Path("/etc/passwd").read_text().count(unix.tag) == before


def test_the_password_is_asked_for_twice_and_not_shown(unix: Cli) -> None:
    words = ["user", "add", unix.name]
    child = pexpect.spawn(str(LABHUB), words, env=unix.env, encoding="utf-8", timeout=60)
    child.expect("New password for")
    child.sendline(GOOD)
    child.expect("Again")
    child.sendline(BETTER)
    child.expect("do not match")
    child.expect("New password for")
    child.sendline(GOOD)
    child.expect("Again")
    child.sendline(GOOD)
    child.expect("can log in")
    assert GOOD not in (child.before or "")
    child.close()
    assert password_field(unix.name).startswith("$")


def test_remove_asks_first(unix: Cli) -> None:
    unix("add", unix.name, "--password-stdin", stdin=f"{GOOD}\n")
    words = ["user", "remove", "--delete-home", unix.name]
    child = pexpect.spawn(str(LABHUB), words, env=unix.env, encoding="utf-8", timeout=60)
    child.expect("delete .*homes/.* with all its files")
    child.sendline("n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert Path(pwd.getpwnam(unix.name).pw_dir).is_dir()


def test_the_signup_list_by_the_same_commands(signup: Cli) -> None:
    from hub.auth import passwords, signup_people
    from hub.state.paths import Paths

    paths = Paths(state=signup.state, envs=signup.state / "envs")
    name, waiting = signup.name, f"{signup.tag}-eve"
    assert signup("add", name, "--password-stdin", stdin=f"{GOOD}\n").returncode == 0
    with signup_people.opened(paths) as known:
        known.add(waiting, GOOD)
        assert passwords.matches(GOOD, known.password_hash(name))
    rows = signup.rows()
    assert rows[name]["can_log_in"]
    assert not rows[waiting]["can_log_in"]
    assert signup("add", waiting, "--no-password").returncode == 0
    assert signup.rows()[waiting]["can_log_in"]
    assert signup("passwd", name, "--password-stdin", stdin=f"{BETTER}\n").returncode == 0
    with signup_people.opened(paths) as known:
        assert passwords.matches(BETTER, known.password_hash(name))
        assert not passwords.matches(GOOD, known.password_hash(name))
    assert signup("remove", name, "--yes").returncode == 0
    assert name not in signup.rows()
