"""Internal SSL with servers as SLURM jobs: who is answered, and who has which key.

A whole portal by ./labhub, a real JupyterLab server, and attacks with every wrong certificate.
"""

from __future__ import annotations

import json
import os
import pwd
import ssl
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from certipy import Certipy

from hub.slurm.orphans import job_of
from hub.state.paths import Paths
from labkit.testing import SlurmCluster
from tests.conftest import needs_env, needs_root
from tests.hub.slurm.test_up import ASK_APP
from tests.support.cli_portal import LabhubPortal, eventually
from tests.support.portal import SUPPORT
from tests.support.slurm_portal import QUICK, needs_slurm, own_address

pytestmark = [
    needs_root,
    needs_slurm,
    needs_env("proxy"),
    needs_env("notebook"),
    pytest.mark.skipif(own_address() == "127.0.0.1", reason="needs a network besides loopback"),
    pytest.mark.slow,
]
APP = SUPPORT / "testapp"


@dataclass
class Scene:
    portal: LabhubPortal
    cluster: SlurmCluster
    ada: str
    bob: str

    @property
    def certificates(self) -> Path:
        return self.portal.state / "ssl" / "certificates"

    def place(self, name: str) -> str:
        """Where the proxy finds a person's server."""
        routes = self.portal.api("GET", "/proxy").json().values()
        return str(next(r["target"] for r in routes if r["data"].get("user") == name))

    def environ(self, name: str) -> dict[str, str]:
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        return dict(json.loads(self.portal.run(name, code)))

    def context(self, certificate: Path | str = "", key: Path | str = "") -> ssl.SSLContext:
        """A client that believes the portal, with a certificate or without."""
        context = ssl.create_default_context(cafile=str(self.certificates / "hub-ca_trust.crt"))
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(certificate, key)
        return context


@pytest.fixture(scope="module")
def scene(ada: str, bob: str) -> Iterator[Scene]:
    """Ada has JupyterLab's own server, Bob one that runs code for the tests."""
    with SlurmCluster(nodes=1, cpus=8) as cluster:
        portal = LabhubPortal({"target": "slurm", "groups": {"imaging": [ada, bob]}})
        portal.env |= cluster.environment
        portal.lab["slurm"] = {
            "partitions": ["main"],
            "hub_host": own_address(),
            "environments": str(portal.envs),
            "network": "shared",
            "internal_ssl": True,
        }
        portal.write_lab()
        (portal.state / "config.d" / "60-quick.py").write_text(QUICK)
        try:
            portal.labhub("up")
            portal.labhub("app", "add", str(APP))
            portal.spawn(bob)
            portal.spawn(ada, "notebook")
            yield Scene(portal, cluster, ada, bob)
        finally:
            portal.close()


def test_people_reach_their_servers(scene: Scene) -> None:
    browser = scene.portal.browser()
    browser.login(scene.ada)
    assert browser.get(scene.portal.user_url(scene.ada, "lab")).status_code == 200
    assert scene.portal.run(scene.bob, "print('by TLS')").strip() == "by TLS"
    for name in (scene.ada, scene.bob):
        assert scene.place(name).startswith("https://")


def test_a_server_answers_the_hubs_certificate(scene: Scene) -> None:
    """Else the refusals below would prove nothing; its own certificate names its node."""
    hub = scene.certificates / "hub-internal" / "hub-internal"
    context = scene.context(f"{hub}.crt", f"{hub}.key")
    context.check_hostname = True
    for name in (scene.ada, scene.bob):
        url = f"{scene.place(name)}/user/{name}/api"
        assert httpx.get(url, verify=context).status_code == 200


def foreign(scene: Scene, folder: Path) -> ssl.SSLContext:
    """An authority of the attacker's own, with the hub's name on the certificate."""
    store = Certipy(store_dir=str(folder))
    store.create_ca("hub-ca")
    store.create_signed_pair("hub-internal", "hub-ca", alt_names=["IP:127.0.0.1"])
    pair = folder / "hub-internal" / "hub-internal"
    return scene.context(f"{pair}.crt", f"{pair}.key")


def neighbours(scene: Scene, _: Path) -> ssl.SSLContext:
    """Bob's own, as his job has it."""
    env = scene.environ(scene.bob)
    return scene.context(env["JUPYTERHUB_SSL_CERTFILE"], env["JUPYTERHUB_SSL_KEYFILE"])


def none(scene: Scene, _: Path) -> ssl.SSLContext:
    return scene.context()


@pytest.mark.parametrize("whose", [none, foreign, neighbours], ids=lambda one: one.__name__)
def test_a_server_answers_no_other_certificate(
    scene: Scene, whose: Callable[[Scene, Path], ssl.SSLContext], tmp_path: Path
) -> None:
    context = whose(scene, tmp_path)
    for name in (scene.ada, scene.bob):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{scene.place(name)}/user/{name}/api", verify=context)


def test_nobody_is_answered_in_the_clear(scene: Scene) -> None:
    hub = f"https://{own_address()}:{scene.portal.hub_port}/hub/api"
    gate = f"https://{own_address()}:{scene.portal.gate_port}/services/testapp/told"
    places = [f"{scene.place(name)}/user/{name}/api" for name in (scene.ada, scene.bob)]
    for url in (*places, hub, gate):
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https:", "http:", 1))


def test_hub_and_gate_listen_on_one_address_besides_loopback(scene: Scene) -> None:
    pids = scene.portal.pids()
    for name, port in (("hub", scene.portal.hub_port), ("gate", scene.portal.gate_port)):
        found = psutil.Process(pids[name]).net_connections("tcp")
        heard = {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}
        assert heard == {(own_address(), port), ("127.0.0.1", port)}


def test_hub_and_gate_ask_nodes_for_a_certificate(scene: Scene, tmp_path: Path) -> None:
    for port, path in ((scene.portal.hub_port, "/hub/api"), (scene.portal.gate_port, "/services/")):
        url = f"https://{own_address()}:{port}{path}"
        assert httpx.get(url, verify=neighbours(scene, tmp_path)).status_code in (200, 404)
        for context in (none(scene, tmp_path), foreign(scene, tmp_path / str(port))):
            with pytest.raises(httpx.TransportError):
                httpx.get(url, verify=context)


def test_a_server_uses_an_app_by_its_certificate(scene: Scene) -> None:
    assert scene.portal.run(scene.bob, ASK_APP).strip() == scene.bob


def test_the_key_is_its_owners_alone(scene: Scene, tmp_path: Path) -> None:
    env = scene.environ(scene.bob)
    key = Path(env["JUPYTERHUB_SSL_KEYFILE"])
    owner = pwd.getpwnam(scene.bob).pw_uid
    for path, mode in ((key, 0o600), (key.parent, 0o700)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, owner)
    other = pwd.getpwnam(scene.ada)
    tried = subprocess.run(
        ["cat", key], user=other.pw_uid, group=other.pw_gid, capture_output=True, check=False
    )
    assert tried.returncode == 1
    assert b"denied" in tried.stderr
    assert "LABHUB_TLS" not in env
    # Nor does the portal's own folder let anybody in.
    assert stat.S_IMODE(scene.certificates.parent.stat().st_mode) == 0o700


def test_the_key_is_on_no_command_line_and_in_no_script(scene: Scene, tmp_path: Path) -> None:
    key = Path(scene.environ(scene.bob)["JUPYTERHUB_SSL_KEYFILE"]).read_text()
    secret = key.splitlines()[1]
    assert len(secret) > 50
    job = job_of(Paths(scene.portal.state, scene.portal.envs), scene.bob)
    scene.cluster.command("scontrol", "write", "batch_script", job, str(tmp_path / "script"))
    lines = [
        path.read_bytes().decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.access(path, os.R_OK)
    ]
    logs = [path.read_text(errors="replace") for path in (scene.portal.state / "log").glob("*.log")]
    shown = scene.cluster.command("scontrol", "show", "job", job)
    for text in (*lines, *logs, shown, (tmp_path / "script").read_text()):
        assert secret not in text
        assert "PRIVATE KEY" not in text


def test_a_restarted_hub_finds_the_servers_and_a_stopped_one_leaves_no_key(scene: Scene) -> None:
    folder = Path(scene.environ(scene.bob)["JUPYTERHUB_SSL_KEYFILE"]).parent
    scene.portal.labhub("restart", "hub")
    eventually(
        lambda: scene.portal.api("GET", f"/users/{scene.bob}").json()["servers"][""]["ready"]
    )
    assert scene.portal.run(scene.bob, "print('goes on')").strip() == "goes on"
    scene.portal.stop_server(scene.bob)
    eventually(lambda: not folder.exists())
    browser = scene.portal.browser()
    browser.login(scene.bob)  # his origin leads to the hub now, by TLS as well
    page = browser.get(scene.portal.user_url(scene.bob, "lab"))
    log = (scene.portal.state / "log" / "proxy.log").read_text()
    assert "certificate" not in log, log[-2000:]
    assert f"/hub/spawn/{scene.bob}" in page.text
