"""The portal's secrets are in no command line, no log and no user's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import needs_root
from tests.support.portal import PASSWORD, Portal, secrets_in

pytestmark = needs_root


@pytest.fixture(scope="module")
def scene(ada: str, bob: str) -> Iterator[tuple[Portal, dict[str, str], str]]:
    """A portal after a login, a wrong login, and two servers; and all its secrets."""
    with Portal(env={"JUPYTERHUB_CRYPT_KEY": "ab" * 32}) as portal:
        for name in (ada, bob):
            portal.spawn(name)
        client = portal.browser()
        client.login(ada, "wrong " + PASSWORD)
        client.login(ada)
        made = client.hub("POST", f"/users/{ada}/tokens", json={}).json()["token"]
        client.get(f"/hub/api/user?token={made}")
        client.get(f"/hub/home?token={made}")
        secrets = {
            "cookie secret": (portal.state / "secrets" / "cookie_secret").read_text().strip(),
            "proxy token": portal.proxy_token,
            "crypt key": "ab" * 32,
            "service token": portal.admin_token,
            "password": PASSWORD,
            "API token": made,
            "login cookie": next(
                str(c.value) for c in client.cookies.jar if c.name.startswith("jupyterhub-hub")
            ),
            "server token": portal.run(
                bob, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'], end='')"
            ),
        }
        yield portal, secrets, ada


def test_the_secrets_are_found_where_they_are(
    scene: tuple[Portal, dict[str, str], str],
) -> None:
    """Else the searches below would prove nothing."""
    portal, secrets, _ = scene
    values = list(secrets.values())
    assert all(len(value) >= 16 for value in values)
    hub = psutil.Process(portal.processes["hub"].pid)
    assert secrets["proxy token"] in secrets_in(str(hub.environ()), values)


def test_no_secret_in_any_command_line(scene: tuple[Portal, dict[str, str], str]) -> None:
    _, secrets, _ = scene
    for process in psutil.process_iter():
        try:
            line = "\0".join(process.cmdline())
        except psutil.Error:
            continue
        assert not secrets_in(line, list(secrets.values())), process.name()


def test_no_secret_in_any_log(scene: tuple[Portal, dict[str, str], str]) -> None:
    portal, secrets, _ = scene
    logs = [path for path in (portal.state / "log").rglob("*") if path.is_file()]
    assert {"hub.log", "proxy.log"} <= {path.name for path in logs}
    for path in logs:
        assert not secrets_in(path.read_text(errors="replace"), list(secrets.values())), path


def test_a_users_server_holds_only_its_own_token(
    scene: tuple[Portal, dict[str, str], str],
) -> None:
    portal, secrets, ada = scene
    code = """
import json, os
found = dict(os.environ)
for entry in os.listdir("/proc"):
    if entry.isdigit():
        for name in ("environ", "cmdline"):
            try:
                found[entry + name] = open(f"/proc/{entry}/{name}", errors="replace").read()
            except OSError:
                pass
print(json.dumps(found))
"""
    seen = portal.run(ada, code)
    assert not secrets_in(seen, list(secrets.values()))
    assert json.loads(seen)["JUPYTERHUB_USER"] == ada
    assert not [name for name in json.loads(seen) if "CONFIGPROXY" in name or "CRYPT" in name]


def test_a_users_server_cannot_read_the_state(scene: tuple[Portal, dict[str, str], str]) -> None:
    portal, _, ada = scene
    for path in (portal.state, portal.state / "secrets" / "cookie_secret", Path("/etc/shadow")):
        code = f"""
import os
try:
    print(os.listdir({str(path)!r}) if os.path.isdir({str(path)!r}) else open({str(path)!r}).read())
except OSError as error:
    print("refused", error.errno)
"""
        assert portal.run(ada, code).startswith("refused"), path


def test_the_files_are_the_portals_alone(scene: tuple[Portal, dict[str, str], str]) -> None:
    portal, _, _ = scene
    for path in (portal.state / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    database = portal.state / "jupyterhub.sqlite"
    assert database.stat().st_mode & 0o077 == 0, "the database holds hashes of tokens"
