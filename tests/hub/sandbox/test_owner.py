"""A portal without root: it serves the person who started it, as plain processes."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import needs_root
from tests.security.neighbours import wait_for
from tests.support.portal import Portal

pytestmark = needs_root  # to start it as somebody else


class OwnersPortal(Portal):
    """The same portal, started by an ordinary account."""

    def __init__(self, owner: str) -> None:
        self.account = pwd.getpwnam(owner)
        # Whom the authenticator lets in is its own test: here it lets in everybody.
        super().__init__(config='c.JupyterHub.authenticator_class = "dummy"\n')
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)

    def _start(self, name: str, command: Sequence[str]) -> None:
        ids = (str(self.account.pw_uid), str(self.account.pw_gid))
        as_owner = ["setpriv", "--reuid", ids[0], "--regid", ids[1], "--clear-groups"]
        super()._start(name, [*as_owner, *command])

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "HOME": self.account.pw_dir, "USER": self.account.pw_name}


@pytest.fixture(scope="module")
def owners(ada: str) -> Iterator[OwnersPortal]:
    with OwnersPortal(ada) as running:
        yield running


def test_the_owner_has_a_server(owners: OwnersPortal, ada: str) -> None:
    owners.spawn(ada)
    said = owners.run(ada, "import os; print(os.getuid(), os.getcwd(), oct(os.umask(0o77)))")
    assert said.split() == [str(owners.account.pw_uid), owners.account.pw_dir, "0o77"]
    url = owners.run(ada, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
    assert url.startswith("http://127.0.0.1:")
    log = owners.state / "log" / "servers" / f"{ada}.log"
    assert "stub server starts" in log.read_text()
    owners.stop_server(ada)
    stubs = ["pgrep", "-u", ada, "-f", "envs/stub|log_writer"]
    wait_for(lambda: not subprocess.run(stubs, capture_output=True, text=True).stdout)


def test_the_server_outlives_the_hub(owners: OwnersPortal, ada: str) -> None:
    owners.spawn(ada)
    owners.run(ada, "import builtins; builtins.remembered = 42")
    owners.restart_hub(signal.SIGKILL)
    owners.run(ada, "print('to a log that nobody of the old hub reads', flush=True)")
    assert owners.run(ada, "import builtins; print(builtins.remembered)").strip() == "42"
    owners.stop_server(ada)


def test_nobody_else_has_one(owners: OwnersPortal, ada: str, bob: str) -> None:
    owners.api("POST", f"/users/{bob}")
    answer = owners.api("POST", f"/users/{bob}/server", json={"profile": "stub"})
    assert answer.status_code == 403
    assert f"serves {ada} alone" in answer.json()["message"]


def test_why_a_server_did_not_start(owners: OwnersPortal, ada: str) -> None:
    answer = owners.api("POST", f"/users/{ada}/server", json={"profile": "dies"})
    assert answer.status_code == 500
    assert "exit status 3" in answer.json()["message"]
    assert "the disk is on fire" in answer.json()["message"]


def test_it_makes_nothing_in_the_kernel(owners: OwnersPortal, ada: str) -> None:
    owners.spawn(ada)
    try:
        assert not (owners.state / "run" / "boxes").exists()
        assert not [path for path in Path("/run/netns").glob("*") if ada in path.name]
    finally:
        owners.stop_server(ada)
