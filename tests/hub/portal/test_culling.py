"""The culler, its rights and its patience: the real one, against a real hub and real servers."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.portal import culling as activity
from hub.portal.cull_policy import CullPolicy
from hub.state.paths import Paths
from tests.conftest import needs_env, needs_root
from tests.labkit.server.conftest import kernel_run_at, wait_for
from tests.support.http_client import LocalhostTransport
from tests.support.portal import REPOSITORY, People, Portal

IDLE = 12


def culling(**kwargs: Any) -> Settings:
    return Settings.model_validate({"culling": kwargs})


def command(settings: Settings) -> list[str]:
    return activity.culler_command(settings, PortalAddresses.of_one_host(settings))


# -- configuration ---------------------------------------------------------------------


def test_the_command_holds_no_secret_and_reads_no_file_of_the_working_folder() -> None:
    words = command(culling(idle="90m", max_age="2d", check_every="2m"))
    assert "--timeout=5400" in words
    assert "--max-age=172800" in words
    assert "--cull-every=120" in words
    assert not any("token" in word or "ssl" in word for word in words)
    (config,) = [word for word in words if word.startswith("--config=")]
    assert Path(config.partition("=")[2]).is_absolute()
    assert Path(config.partition("=")[2]).is_file()


def test_nothing_is_culled_where_the_lab_says_never() -> None:
    assert command(culling(idle=None)) == []
    only_old = command(culling(idle=None, max_age="1d"))
    (idle,) = [word for word in only_old if word.startswith("--timeout=")]
    assert int(idle.partition("=")[2]) > 10 * 365 * 86400


def test_the_role_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(activity.TOKEN, "0" * 32)
    (role,) = activity.roles(Settings())
    assert role["scopes"] == [
        "list:users",
        "read:users:activity",
        "read:servers",
        "delete:servers",
    ]
    assert role["services"] == ["culler"]
    paths = Paths(Path("/nowhere"), Path("/nowhere/envs"))
    (service,) = activity.services(Settings(), paths)
    assert set(service) == {"name", "api_token"}  # no admin, no command: an external service
    monkeypatch.delenv(activity.TOKEN)
    assert activity.roles(Settings()) == activity.services(Settings(), paths) == []


@pytest.mark.parametrize(
    ("idle", "seconds"), [("2h", 180), ("10m", 60), ("1m", 6), ("5s", 1), (None, 180)]
)
def test_reports_come_well_before_the_idle_time_ends(idle: str | None, seconds: float) -> None:
    assert activity.report_interval(culling(idle=idle)).total_seconds() == seconds


# -- patience --------------------------------------------------------------------------


class Rounds:
    def __init__(self, grace: float, every: float) -> None:
        self.now = 0.0
        self.judge = CullPolicy(grace, every, lambda: self.now)

    def __call__(self, at: float, inactive: float, server: str = "/user/ada/") -> bool:
        self.now = at
        model = {"url": server, "started": "2026-01-01"}
        return self.judge(
            inactive=timedelta(seconds=inactive), inactive_limit=100, server=model, extra=1
        )


def test_an_idle_server_goes_after_the_grace() -> None:
    judge = Rounds(grace=30, every=20)
    assert [judge(at, 101 + at) for at in (0, 20, 40)] == [False, False, True]


def test_a_report_in_time_saves_it() -> None:
    judge = Rounds(grace=30, every=20)
    assert not judge(0, 101)
    assert not judge(20, 5)
    assert not judge(40, 101)
    assert not judge(60, 121)
    assert judge(80, 141)


def test_after_a_pause_the_watch_begins_anew() -> None:
    judge = Rounds(grace=30, every=20)
    assert not judge(0, 101)
    assert not judge(10_000, 10_101)  # the hub was down, or the machine asleep
    assert not judge(10_020, 10_121)
    assert judge(10_040, 10_141)


def test_rounds_longer_than_the_grace() -> None:
    judge = Rounds(grace=10, every=600)
    assert not judge(0, 101)
    assert judge(600, 701)


def test_each_server_is_judged_by_itself() -> None:
    judge = Rounds(grace=30, every=20)
    assert not judge(0, 101, "/user/ada/")
    assert not judge(40, 101, "/user/bob/")
    assert judge(40, 141, "/user/ada/")


# -- the real thing --------------------------------------------------------------------


class Culled(Portal):
    """A portal with the culler beside it, for times of seconds."""

    def start_culler(self) -> None:
        from hub.labfile.read import read

        settings = read(self.state / "lab.yaml")
        environ = {**self.environ, "JUPYTERHUB_API_TOKEN": self.env[activity.TOKEN]}
        with (self.state / "log" / "culler.log").open("ab") as log:
            self.processes["culler"] = subprocess.Popen(
                command(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=REPOSITORY,
            )

    def culler_log(self) -> str:
        return (self.state / "log" / "culler.log").read_text()

    def servers(self) -> set[str]:
        users = self.api("GET", "/users?state=ready").json()
        return {user["name"] for user in users}


@pytest.fixture(scope="module")
def portal() -> Iterator[Culled]:
    if os.geteuid() != 0:
        pytest.skip("needs root (user servers under their own accounts)")
    token = secrets.token_hex(32)
    lab = {
        "isolation": "path",
        "culling": {"idle": f"{IDLE}s", "check_every": "1s", "keep_at_most": "1h"},
    }
    culled = Culled(lab, env={activity.TOKEN: token}, config=_ENABLE)
    _lay_wheel(culled.envs)
    with culled as running:
        yield running
        running.stop("culler")


# The built environment may lack labkit's wheel: the same files, by the environment.
_ENABLE = """
c.Spawner.environment["PYTHONPATH"] = str(paths.envs / "wheel")
c.Spawner.environment["JUPYTER_CONFIG_PATH"] = str(paths.envs / "wheel" / "jupyter")
"""


def _lay_wheel(envs: Path) -> None:
    wheel = envs / "wheel"
    shutil.copytree(
        REPOSITORY / "labkit", wheel / "labkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    place = wheel / "jupyter" / "jupyter_server_config.d"
    place.mkdir(parents=True)
    shutil.copy(wheel / "labkit/server/data/config/labkit.json", place)
    quiet = dict.fromkeys(("jupyterlab", "jupyter_lsp", "notebook_shim"), False)
    (place / "tests.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": quiet}}))


def token_of(portal: Portal, name: str) -> str:
    return str(portal.api("POST", f"/users/{name}/tokens", json={"note": "test"}).json()["token"])


def client_of(portal: Portal, name: str) -> httpx.Client:
    return httpx.Client(
        base_url=portal.user_url(name),
        headers={"Authorization": f"token {token_of(portal, name)}"},
        transport=LocalhostTransport(),
        timeout=30,
    )


@needs_root
@needs_env("notebook")
@pytest.mark.slow
def test_idle_servers_go_and_busy_ones_stay(portal: Culled, people: People) -> None:
    idle, kernel, held, kept, tab = (
        people.add(n) for n in ("idle", "kernel", "held", "kept", "tab")
    )
    everybody = {idle, kernel, held, kept, tab}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: portal.spawn(name, "notebook"), sorted(everybody)))
    with client_of(portal, kernel) as client:
        first = client.post("api/kernels", json={"name": "python3"}).json()["id"]
        silent = kernel_run_at(
            portal.user_url(kernel), token_of(portal, kernel), first, "import time; time.sleep(300)"
        )
        silent.close()  # nobody looks on
    with client_of(portal, held) as client:
        second = client.post("api/kernels", json={"name": "python3"}).json()["id"]
        code = "from labkit.base.activity import hold\nheld = hold('a long copy'); held.__enter__()"
        kernel_run_at(
            portal.user_url(held), token_of(portal, held), second, code, wait=True
        ).close()
        wait_for(lambda: client.get("labkit/api/status").json()["busy"])
    with client_of(portal, kept) as client:
        assert client.put("labkit/api/keep", json={"seconds": 1800}).status_code == 200
    with client_of(portal, tab) as client:
        # An idle kernel with an open connection: pings go to and fro, and nothing else.
        third = client.post("api/kernels", json={"name": "python3"}).json()["id"]
        open_tab = kernel_run_at(portal.user_url(tab), token_of(portal, tab), third, "1")
    portal.start_culler()
    wait_for(lambda: idle not in portal.servers() and tab not in portal.servers(), 240)
    open_tab.close()
    time.sleep(IDLE + 5)
    assert portal.servers() == {kernel, held, kept}, portal.culler_log()
    # Let all go, each in its own way.
    with client_of(portal, kernel) as client:
        client.post(f"api/kernels/{first}/interrupt")
    with client_of(portal, held) as client:
        client.delete(f"api/kernels/{second}")
    with client_of(portal, kept) as client:
        assert client.delete("labkit/api/keep").status_code == 204
    wait_for(lambda: not portal.servers(), 240)
    assert "Error" not in portal.culler_log()
    assert "Traceback" not in portal.culler_log()


@needs_root
def test_the_cullers_token_opens_nothing_else(portal: Culled, people: People) -> None:
    name = people.add("victim")
    portal.api("POST", f"/users/{name}")
    headers = {"Authorization": f"token {portal.env[activity.TOKEN]}"}
    allowed = httpx.get(f"{portal.url}/hub/api/users", headers=headers)
    assert allowed.status_code == 200
    model = next(user for user in allowed.json() if user["name"] == name)
    assert not set(model) & {"groups", "roles", "auth_state", "created", "scopes"}
    for method, path in (
        ("POST", f"/users/{name}/server"),
        ("POST", f"/users/{name}/tokens"),
        ("GET", f"/users/{name}/tokens"),
        ("DELETE", f"/users/{name}"),
        ("POST", "/users/newcomer"),
        ("PATCH", f"/users/{name}"),
        ("GET", "/proxy"),
        ("GET", "/services"),
        ("GET", "/groups"),
        ("POST", "/shutdown"),
    ):
        answer = httpx.request(method, f"{portal.url}/hub/api{path}", headers=headers, json={})
        assert answer.status_code in (403, 404), (method, path, answer.text)


@needs_root
def test_the_token_is_not_on_the_command_line(portal: Culled) -> None:
    if "culler" not in portal.processes:
        portal.start_culler()
    pid = portal.processes["culler"].pid
    place = Path(f"/proc/{pid}/cmdline")
    wait_for(lambda: b"jupyterhub_idle_culler" in place.read_bytes())
    words = place.read_bytes()
    assert portal.env[activity.TOKEN].encode() not in words
    assert not re.search(rb"[0-9a-f]{32}", words)


def test_the_culler_runs_with_this_python() -> None:
    assert command(Settings())[0] == sys.executable
