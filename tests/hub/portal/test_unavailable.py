"""A locked database: 503 with Retry-After for pages, scripts and logins; afterwards all is well."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.exc import OperationalError

from hub.auth.guard import ADDRESS_FAILURES, PasswordGuard
from hub.auth.signup_people import opened
from hub.state.paths import Paths
from tests.conftest import needs_env, needs_root
from tests.support.portal import PASSWORD, Browser, Portal

pytestmark = [needs_root, needs_env("proxy")]
FAILURES = 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Portal]:
    signup = {"method": "signup", "lockout": {"failures": FAILURES, "wait": "10m"}}
    # The hub's own wait for a lock, made short.
    config = "c.JupyterHub.db_kwargs = {'connect_args': {'timeout': 0.2}}\n"
    with Portal({"authentication": signup}, config=config) as portal:
        with opened(Paths(portal.state, portal.envs)) as people:
            for name in ("ada", "bea"):
                people.add(name, PASSWORD, approved=True)
        yield portal


@contextmanager
def writing(portal: Portal) -> Iterator[None]:
    """Another program writes for long."""
    file = portal.state / "jupyterhub.sqlite"
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def ada(lab: Portal) -> Iterator[Browser]:
    with lab.browser() as browser:
        assert "Log out" in browser.login("ada").text
        yield browser


def test_the_database_is_in_wal_mode(lab: Portal) -> None:
    with closing(sqlite3.connect(Path(lab.state / "jupyterhub.sqlite"))) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_write_is_503_and_works_afterwards(lab: Portal) -> None:
    with writing(lab):
        busy = lab.api("POST", "/users/carl")
    assert busy.status_code == 503, busy.text
    assert int(busy.headers["Retry-After"]) > 0
    assert "busy" in busy.json()["message"]
    assert lab.api("POST", "/users/carl").status_code == 201


def test_who_reads_while_another_writes_does_not_notice(lab: Portal, ada: Browser) -> None:
    with writing(lab):
        assert ada.get("/hub/home").status_code == 200


def test_a_login_that_must_write_is_503_and_works_afterwards(lab: Portal) -> None:
    with lab.browser() as browser:
        browser.get("/hub/login")
        with writing(lab):
            for _ in range(FAILURES + 1):
                answer = browser.login("bea")  # the hub does not know her yet
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert "busy" in answer.text
        assert "Log out" in browser.login("bea").text


class Broken(PasswordGuard):
    """An authenticator whose database is locked."""

    async def check_password(self, handler: Any, name: str, password: str) -> Any:
        raise OperationalError("SELECT", None, sqlite3.OperationalError("database is locked"))


def test_a_locked_database_is_no_wrong_password() -> None:
    handler = Mock()
    handler.get_secure_cookie.return_value = None
    handler.request.headers = {}
    guard = Broken(failures=2, slowest_answer=0)
    for _ in range(2 * ADDRESS_FAILURES + 1):
        with pytest.raises(OperationalError):
            asyncio.run(guard.authenticate(handler, {"username": "ada", "password": PASSWORD}))
