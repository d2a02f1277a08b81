"""The life of a portal under ./labhub: up, crash, change, down."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pexpect
import psutil
import pytest

from hub.state.paths import Paths
from hub.supervisor.client import Supervisor
from labkit.base.ports import free_port
from tests.conftest import needs_env, needs_root
from tests.support.cli_portal import LABHUB, LabhubPortal, eventually, leftovers, run
from tests.support.portal import PASSWORD

pytestmark = [needs_root, needs_env("proxy"), needs_env("notebook"), needs_env("cellxgene")]


@pytest.fixture(scope="module")
def portal() -> Iterator[LabhubPortal]:
    made = LabhubPortal()
    try:
        made.first = made.labhub("up")  # type: ignore[attr-defined]
        yield made
    finally:
        made.close()


def answers(portal: LabhubPortal, name: str) -> bool:
    """Whether a user's stub server answers through the proxy."""
    with contextlib.suppress(httpx.HTTPError, RuntimeError, ValueError):
        return portal.run(name, "print('here')") == "here\n"
    return False


def test_up_prints_the_address_and_a_first_link_that_works(portal: LabhubPortal) -> None:
    out = portal.first.stdout  # type: ignore[attr-defined]
    assert f"Test lab is at {portal.url}" in out
    link = re.search(rf"{portal.url}/hub/link#\S+", out)
    assert link
    assert httpx.get(link[0].partition("#")[0]).status_code == 200
    assert portal.pids().keys() == {"proxy", "gate", "hub", "culler"}
    assert "waiting for" in portal.first.stderr  # type: ignore[attr-defined]


def test_status_is_quick_and_says_that_all_is_well(portal: LabhubPortal) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = portal.labhub("status")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"{portal.url} answers" in done.stdout
    # CPU, not the clock: other tests share the machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_a_second_up_changes_nothing(portal: LabhubPortal) -> None:
    pids = portal.pids()
    done = portal.labhub("up")
    assert "Nothing to do" in done.stdout
    assert "/hub/link" not in done.stdout, "the first link would end"
    assert portal.pids() == pids


def test_no_secret_is_on_a_command_line_or_in_a_file_of_the_portal(portal: LabhubPortal) -> None:
    folder = portal.state / "secrets"
    values = [
        file.read_text().strip() for file in folder.iterdir() if file.name != "login_link.json"
    ]
    assert len(values) >= 5
    seen = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    for place in ("log", "run"):
        for file in (portal.state / place).rglob("*"):
            if file.is_file():
                seen.append(file.read_text(errors="replace"))
    seen.append(portal.labhub("render", "supervisor").stdout)
    seen.append(portal.labhub("render", "settings").stdout)
    for value in values:
        assert not [text for text in seen if value in text]


def test_what_the_portal_writes_is_its_own(portal: LabhubPortal) -> None:
    for name in ("secrets", "log", "run", "backups"):
        assert (portal.state / name).stat().st_mode & 0o077 == 0
    for file in (portal.state / "secrets").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert portal.state.stat().st_mode & 0o022 == 0
    assert (portal.state / "jupyterhub.sqlite").stat().st_mode & 0o077 == 0


def test_a_killed_hub_comes_back_and_no_server_is_lost(portal: LabhubPortal, ada: str) -> None:
    portal.spawn(ada)
    assert answers(portal, ada)
    pid = portal.pids()["hub"]
    os.kill(pid, signal.SIGKILL)
    assert answers(portal, ada), "the proxy goes on without the hub"
    eventually(lambda: portal.pids()["hub"] not in (0, pid))
    eventually(lambda: portal.api("GET", f"/users/{ada}").status_code == 200)
    assert portal.api("GET", f"/users/{ada}").json()["servers"][""]["ready"]
    assert answers(portal, ada)


def test_a_killed_proxy_gets_its_routes_back(portal: LabhubPortal, ada: str) -> None:
    eventually(lambda: answers(portal, ada))
    pid = portal.pids()["proxy"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: portal.pids()["proxy"] not in (0, pid))
    # JupyterHub by itself would look after five minutes.
    eventually(lambda: answers(portal, ada), timeout=30)


def test_while_the_hub_is_away_a_page_says_so_and_the_messages(portal: LabhubPortal) -> None:
    through_gate = portal.http.get(f"http://127.0.0.1:{portal.gate_port}/error/404").text
    assert "There is nothing here" in through_gate, "the hub's own page, while it is there"
    portal.labhub("message", "Back at <i>noon</i>.", "--maintenance", "--until", "2h")
    supervisor = Supervisor(Paths(portal.state, portal.envs))
    supervisor.stop(["hub"])
    try:
        page = portal.http.get(f"{portal.url}/hub/home")
        assert page.status_code == 503
        assert page.headers["Content-Type"].startswith("text/html")
        assert "The portal does not answer at the moment" in page.text
        assert "Back at &lt;i&gt;noon&lt;/i&gt;." in page.text
        assert "--ground" in page.text, "its style stands in the page"
    finally:
        supervisor.start(["hub"])
        portal.labhub("message", "--remove", "all")
    eventually(lambda: portal.api("GET", "/users").status_code == 200)


def test_message_says_what_is_wrong(portal: LabhubPortal) -> None:
    assert "give one of" in portal.labhub("message", ok=False).stderr
    assert "is no time" in portal.labhub("message", "x", "--until", "25:00", ok=False).stderr
    assert "no message 'x'" in portal.labhub("message", "--remove", "x", ok=False).stderr
    assert "No messages." in portal.labhub("message", "--list").stdout


def test_restart_hub_keeps_servers_and_proxy(portal: LabhubPortal, ada: str) -> None:
    eventually(lambda: answers(portal, ada))
    before = portal.pids()
    portal.labhub("restart", "hub")
    after = portal.pids()
    assert after["hub"] != before["hub"]
    assert after["proxy"] == before["proxy"]
    assert answers(portal, ada)


def test_a_changed_lab_file_restarts_the_hub_alone(portal: LabhubPortal, ada: str) -> None:
    before = portal.pids()
    portal.lab["lab"]["message"] = "Freezer 3 is back"
    portal.write_lab()
    done = portal.labhub("up")
    assert "hub restarted" in done.stdout
    after = portal.pids()
    assert after["hub"] != before["hub"]
    assert (after["proxy"], after["culler"]) == (before["proxy"], before["culler"])
    assert answers(portal, ada)


def test_a_broken_lab_file_stops_nothing(portal: LabhubPortal) -> None:
    before = portal.pids()
    text = (portal.state / "lab.yaml").read_text()
    (portal.state / "lab.yaml").write_text(text + "isolaton: none\nnamed_servers: many\n")
    try:
        done = portal.labhub("up", ok=False)
    finally:
        (portal.state / "lab.yaml").write_text(text)
    assert done.returncode == 1
    assert "isolaton" in done.stderr
    assert "did you mean isolation" in done.stderr
    assert "named_servers" in done.stderr
    assert portal.pids() == before


def test_doctor_finds_a_running_portal_well(portal: LabhubPortal) -> None:
    done = portal.labhub("doctor", "--json")
    import json

    topics = {row["topic"]: row for row in json.loads(done.stdout)["findings"]}
    assert {"versions", "disk", "permissions", "clock", "names", "portal", "apps"} <= set(topics)
    assert portal.url in topics["portal"]["detail"]
    assert "1.3.0" in topics["apps"]["detail"]


def test_doctor_names_what_others_could_read(portal: LabhubPortal) -> None:
    secret = portal.state / "secrets" / "proxy_token"
    secret.chmod(0o644)
    try:
        done = portal.labhub("doctor", ok=False)
    finally:
        secret.chmod(0o600)
    assert "other accounts can read it" in done.stderr
    assert str(secret) in done.stderr


def test_logs_show_the_hub_and_a_user_server(portal: LabhubPortal, ada: str) -> None:
    assert "JupyterHub is now running" in portal.labhub("logs", "hub", "-n", "500").stdout
    assert "stub server starts" in portal.labhub("logs", ada).stdout
    assert "there is no log" in portal.labhub("logs", "../../../etc/passwd", ok=False).stderr


def test_restore_refuses_while_the_portal_runs(portal: LabhubPortal) -> None:
    file = portal.labhub("backup").stdout.strip()
    done = portal.labhub("restore", "--yes", file, ok=False)
    assert "labhub down" in done.stderr
    assert all(portal.pids().values())


def test_down_can_leave_servers_running_for_the_next_up(portal: LabhubPortal, ada: str) -> None:
    done = portal.labhub("down", "--keep-servers")
    assert f"User servers go on: {ada}." in done.stdout
    assert not any(portal.pids().values())
    portal.labhub("up")
    eventually(lambda: answers(portal, ada))


def test_backup_and_restore_bring_users_and_tokens_back(portal: LabhubPortal, bob: str) -> None:
    portal.api("POST", f"/users/{bob}")
    token = portal.api("POST", f"/users/{bob}/tokens", json={"note": "kept"}).json()["token"]
    headers = {"Authorization": f"token {token}"}
    file = portal.labhub("backup", str(portal.folder / "saved.tar.gz")).stdout.strip()
    assert Path(file).stat().st_mode & 0o077 == 0
    secrets = {p.name: p.read_text() for p in (portal.state / "secrets").iterdir()}
    secrets.pop("login_link.json", None)
    assert portal.api("DELETE", f"/users/{bob}").status_code == 204
    assert httpx.get(f"{portal.url}/hub/api/user", headers=headers).status_code == 403

    portal.labhub("down", "--yes")
    (portal.state / "jupyterhub.sqlite").unlink()
    (portal.state / "secrets" / "cookie_secret").write_text("lost")
    done = portal.labhub("restore", "--yes", file)
    assert "before-restore" in done.stdout
    portal.labhub("up")
    who = httpx.get(f"{portal.url}/hub/api/user", headers=headers)
    assert who.json()["name"] == bob
    assert all((portal.state / "secrets" / n).read_text() == v for n, v in secrets.items())
    browser = portal.browser()
    assert browser.login(bob, PASSWORD).status_code == 200


def test_down_asks_before_it_stops_peoples_servers(portal: LabhubPortal, ada: str) -> None:
    portal.spawn(ada)
    before = portal.pids()
    environ: Any = portal.environ
    child = pexpect.spawn(str(LABHUB), ["down"], env=environ, encoding="utf-8", timeout=60)
    child.expect(f"User servers run: {ada}. Stop them too")
    child.sendline("n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert portal.pids() == before
    assert answers(portal, ada)


def test_down_stops_all_and_leaves_nothing(portal: LabhubPortal, ada: str) -> None:
    if not answers(portal, ada):
        portal.spawn(ada)
    done = portal.labhub("down", "--yes")
    assert "The portal is down" in done.stdout
    assert leftovers(portal.folder) == []
    for port in (portal.port, portal.hub_port, portal.api_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    status = run("status", env=portal.environ)
    assert status.returncode == 1
    assert "labhub up" in status.stdout
    assert "not running" in portal.labhub("down").stdout


def test_a_taken_port_is_named_before_anything_starts() -> None:
    portal = LabhubPortal()
    try:
        with socket.socket() as other:
            other.bind(("127.0.0.1", portal.port))
            other.listen(1)
            start = time.monotonic()
            done = portal.labhub("up", ok=False)
            assert time.monotonic() - start < 60
        assert f"port {portal.port} of 127.0.0.1 cannot be used: in use" in done.stderr
        assert f"pid {os.getpid()}" in done.stderr
        assert leftovers(portal.folder) == []
    finally:
        portal.close()


def test_a_hub_that_cannot_start_shows_its_log() -> None:
    portal = LabhubPortal()
    try:
        extra = portal.state / "config.d" / "99-broken.py"
        extra.write_text('raise RuntimeError("the coffee machine is empty")\n')
        done = portal.labhub("up", ok=False)
        assert "the coffee machine is empty" in done.stderr
        assert str(portal.state / "log" / "hub.log") in done.stderr
        assert leftovers(portal.folder) == [], "nothing is left running"
        extra.unlink()
        portal.labhub("up")
    finally:
        portal.close()


def test_a_named_lab_file_elsewhere_is_used_and_kept() -> None:
    portal = LabhubPortal()
    try:
        elsewhere = portal.folder / "mine.yaml"
        (portal.state / "lab.yaml").rename(elsewhere)
        other = free_port()
        elsewhere.write_text(elsewhere.read_text().replace(str(portal.hub_port), str(other)))
        portal.labhub("up", "--config", str(elsewhere))
        assert (portal.state / "lab.yaml").resolve() == elsewhere
        assert httpx.get(f"http://127.0.0.1:{other}/hub/health").status_code == 200
        assert "Nothing to do" in portal.labhub("up").stdout
    finally:
        portal.close()
