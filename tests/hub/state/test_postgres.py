"""A whole portal on PostgreSQL: up, login, spawn, restart, backup, restore.

Its password is in no output, log or command line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import needs_env
from tests.support.cli_portal import LabhubPortal, run
from tests.support.postgres import Postgres, needs_postgres

pytestmark = [
    needs_postgres,
    needs_env("proxy"),
    needs_env("notebook"),
    needs_env("cellxgene"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def portal(server: Postgres) -> Iterator[LabhubPortal]:
    made = LabhubPortal({"database": {"url": server.url}})
    file = made.state / "secrets" / "database_password"
    file.write_text(server.password)
    file.chmod(0o600)
    try:
        made.labhub("up")
        yield made
    finally:
        made.close()


def test_it_lives_there_through_restart_backup_and_restore(
    portal: LabhubPortal, server: Postgres, ada: str, tmp_path: Path
) -> None:
    assert not (portal.state / "jupyterhub.sqlite").exists()
    with portal.browser() as browser:
        assert "Log out" in browser.login(ada).text
        assert "PostgreSQL" in portal.labhub("doctor", ok=True).stdout
        portal.spawn(ada)
        assert portal.run(ada, "print('here')") == "here\n"
        portal.labhub("restart", "hub")
        assert portal.run(ada, "print('here')") == "here\n"
        assert ada in portal.labhub("status").stdout
        archive = tmp_path / "portal.tar.gz"
        portal.labhub("backup", str(archive))
        portal.labhub("down", "--keep-servers", "--yes")
        server.sql("DELETE FROM users")
        portal.labhub("restore", str(archive), "--yes")
        (kept,) = (portal.state / "backups").glob("before-restore-*/jupyterhub.sqlite")
        assert kept.stat().st_size
        portal.labhub("up")
        assert server.sql("SELECT name FROM users WHERE name LIKE '%ada%'") == ada
        assert portal.run(ada, "print('here')") == "here\n"
        assert browser.get("/hub/home").url.path == "/hub/home"


def test_a_new_password_from_the_environment_restarts_the_hub_alone(
    portal: LabhubPortal, server: Postgres, tmp_path: Path
) -> None:
    (portal.state / "secrets" / "database_password").unlink()
    first = server.password
    server.change_password()
    assert "no password supplied" in portal.labhub("doctor", ok=False).stderr
    given = {**portal.environ, "LABHUB_DATABASE_PASSWORD": server.password}
    done = run("up", env=given)
    assert done.returncode == 0, done.stdout + done.stderr
    restarted = [line for line in done.stdout.splitlines() if "restarted" in line]
    assert [line.split() for line in restarted] == [["hub", "restarted"]]
    # All that comes later has no variable: another `up`, the hub's own restart, a backup.
    assert "Nothing to do" in portal.labhub("up").stdout
    portal.labhub("restart", "hub")
    assert "PostgreSQL" in portal.labhub("doctor").stdout
    archive = tmp_path / "portal.tar.gz"
    portal.labhub("backup", str(archive))
    _are_nowhere((first, server.password), portal)
    portal.labhub("down", "--keep-servers", "--yes")
    portal.labhub("restore", str(archive), "--yes")


def test_a_portal_without_its_database_can_be_looked_at_and_stopped(
    portal: LabhubPortal, server: Postgres
) -> None:
    portal.labhub("up")
    server.stop()
    status = portal.labhub("status", ok=False)
    assert "User servers: not known" in status.stdout
    assert "hub     running" in status.stdout
    assert "refused" in status.stderr
    shown = json.loads(portal.labhub("status", "--json", ok=False).stdout)
    assert shown["servers"] is None and not shown["ok"]
    refused = portal.labhub("down", "--yes", ok=False)
    assert "down --keep-servers" in refused.stderr
    assert "The portal is down" in portal.labhub("down", "--keep-servers").stdout
    server.start()


def _are_nowhere(passwords: tuple[str, ...], portal: LabhubPortal) -> None:
    shown = {}
    for words in (["check"], ["doctor"], ["render"], ["render", "supervisor"]):
        done = portal.labhub(*words)
        shown[" ".join(words)] = done.stdout + done.stderr
    for process in psutil.process_iter(["cmdline"]):
        shown[f"process {process.pid}"] = " ".join(process.info["cmdline"] or ())
    logs = [path for path in (portal.state / "log").rglob("*") if path.is_file()]
    assert {"hub.log"} <= {path.name for path in logs}
    shown |= {str(path): path.read_text(errors="replace") for path in logs}
    for where, text in shown.items():
        assert not [word for word in passwords if word in text], where
