"""Two people's names, and those of their servers, never make one name."""

from __future__ import annotations

import itertools
from pathlib import Path

from hub.cli.logs import log_file
from hub.sandbox.instance import sandbox_key
from hub.state.paths import Paths

USERS = ["ada", "ada-", "ada--x", "ada-x", "ada_x", "ada--", "ada+x", "ada.log", "a%2Bb"]
SERVERS = ["", "x", "-x", "x--y", "y", "log"]


def test_logs(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    places = list(itertools.product(USERS, SERVERS))
    logs = {paths.server_log(user, server) for user, server in places}
    assert len(logs) == len(places)
    assert {log.parent for log in logs} == {tmp_path / "log" / "servers"}
    assert paths.server_log("ada--x") != paths.server_log("ada", "x")


def test_a_persons_logs_are_theirs_alone(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    (tmp_path / "log" / "servers").mkdir(parents=True)
    assert paths.server_logs("nobody") == []
    for user, server in itertools.product(USERS, SERVERS):
        paths.server_log(user, server).touch()
    full = paths.server_log("ada").with_name("ada.log.1")
    full.touch()
    own = {paths.server_log("ada", server) for server in SERVERS} | {full}
    assert set(paths.server_logs("ada")) == own


def test_an_earlier_versions_log_is_still_shown(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    earlier = tmp_path / "log" / "servers" / "ada--x.log"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert log_file(paths, "ada/x") == earlier
    paths.server_log("ada", "x").touch()
    assert log_file(paths, "ada/x") == paths.server_log("ada", "x")


def test_sandboxes() -> None:
    """Cgroups, network namespaces and folders are named by numbers: account and server."""
    keys = {sandbox_key(uid, server) for uid in (1000, 10001, 100) for server in SERVERS}
    assert len(keys) == 3 * len(SERVERS)
