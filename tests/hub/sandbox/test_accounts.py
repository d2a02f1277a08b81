"""Which Unix accounts the portal gives to whom."""

from __future__ import annotations

import grp
import pwd
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.sandbox.accounts import AccountError, Accounts
from tests.conftest import needs_root


@pytest.fixture
def prefix() -> Iterator[str]:
    """Names of this test's own; their accounts and groups are removed."""
    tag = f"lt{secrets.token_hex(3)}"
    yield tag
    for entry in pwd.getpwall():
        if entry.pw_name.startswith(tag):
            subprocess.run(["userdel", "--remove", entry.pw_name], capture_output=True)
    subprocess.run(["groupdel", f"{tag}g"], capture_output=True)


@pytest.fixture
def accounts(prefix: str, tmp_path: Path) -> Accounts:
    homes = tmp_path / "homes"
    homes.mkdir()
    return Accounts(f"{prefix}g", homes)


@pytest.mark.parametrize(
    "name",
    [
        "root",
        "",
        "../x",
        "$(id)",
        "a" * 32,
        "Ada",
        "ada\n",
        "ada:x",
        "-rf",
        "0ada",
        "ad\u0430",
        "a b",
        "ada/",
    ],
)
def test_hostile_names_are_refused(name: str) -> None:
    for door in (Accounts().check, Accounts().ensure, Accounts().add, Accounts().remove):
        with pytest.raises(AccountError, match="a name has"):
            door(name)


@pytest.mark.parametrize("name", ["daemon", "www-data", "nobody", "sys"])
def test_accounts_of_the_system_are_refused(name: str) -> None:
    pwd.getpwnam(name)  # it exists, or the test means nothing
    for door in (Accounts().check, Accounts().ensure, Accounts().add):
        with pytest.raises(AccountError, match="of the system"):
            door(name)


def test_even_a_member_of_the_group_is_refused_below_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accounts, "is_member", lambda *_: True)
    with pytest.raises(AccountError, match="of the system"):
        Accounts().ensure("www-data")


@needs_root
def test_a_new_name_becomes_a_locked_private_account(accounts: Accounts, prefix: str) -> None:
    entry = accounts.ensure(f"{prefix}-new")
    assert entry.pw_uid >= 1000
    home = Path(entry.pw_dir)
    assert home.parent == accounts.homes
    assert (home.owner(), home.stat().st_mode & 0o777) == (entry.pw_name, 0o700)
    assert entry.pw_name in grp.getgrnam(accounts.group).gr_mem
    assert accounts.ensure(entry.pw_name) == entry
    (listed,) = accounts.list()
    assert (listed.name, listed.locked, listed.made_here) == (entry.pw_name, True, True)


@needs_root
def test_who_signs_up_as_somebody_does_not_become_them(accounts: Accounts, prefix: str) -> None:
    name = f"{prefix}-other"
    subprocess.run(["useradd", "--create-home", name], check=True)
    with pytest.raises(AccountError, match=f"taken.*labhub user add {name}"):
        accounts.ensure(name)
    assert accounts.check(name).pw_name == name  # PAM: they proved it by the password
    accounts.add(name)
    assert accounts.ensure(name).pw_name == name


@needs_root
def test_a_home_that_somebody_left_is_not_inherited(accounts: Accounts, prefix: str) -> None:
    (accounts.homes / f"{prefix}-old").mkdir()
    with pytest.raises(AccountError, match="already there"):
        accounts.ensure(f"{prefix}-old")
    (accounts.homes / f"{prefix}-link").symlink_to("/etc")
    with pytest.raises(AccountError, match="already there"):
        accounts.ensure(f"{prefix}-link")


@needs_root
def test_a_password_is_set_and_is_in_no_command_line(
    accounts: Accounts, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run = subprocess.run

    def watch(command: list[str], **kwargs: object) -> object:
        seen.extend(command)
        return run(command, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watch)
    account = accounts.add(f"{prefix}-new", "correct horse")
    assert not account.locked
    assert "correct horse" not in " ".join(seen)
    assert "chpasswd" in seen
    with pytest.raises(AccountError, match="password"):
        accounts.set_password(account.name, "x\nroot:y")
    assert account.made_here


@needs_root
def test_removal_keeps_the_home_and_can_be_undone(accounts: Accounts, prefix: str) -> None:
    name = f"{prefix}-new"
    account = accounts.add(name, "correct horse")
    (account.home / "data").write_text("precious")
    accounts.remove(name)
    assert accounts.list() == []
    with pytest.raises(AccountError, match="taken"):
        accounts.ensure(name)
    expires = next(
        line.split(":")[7]
        for line in Path("/etc/shadow").read_text().splitlines()
        if line.startswith(f"{name}:")
    )
    assert expires == "1"  # PAM lets nobody in whose account has expired
    again = accounts.add(name)
    assert again.uid == account.uid
    assert (again.home / "data").read_text() == "precious"
    assert accounts.ensure(name).pw_uid == account.uid
    accounts.remove(name, keep_home=False)
    assert not account.home.exists()


@needs_root
def test_an_account_of_others_is_never_deleted(accounts: Accounts, prefix: str) -> None:
    name = f"{prefix}-other"
    subprocess.run(["useradd", "--create-home", "--base-dir", accounts.homes, name], check=True)
    with pytest.raises(AccountError, match="not a user of this portal"):
        accounts.remove(name)
    accounts.add(name)
    with pytest.raises(AccountError, match="did not make"):
        accounts.remove(name, keep_home=False)
    accounts.remove(name)
    assert Path(pwd.getpwnam(name).pw_dir).exists()
    assert accounts.list() == []
