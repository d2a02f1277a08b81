"""Attacks on the gate: from a member's server, from inside an app, on its tokens and socket.

What every app must refuse is in `tests/support/app_contract.py`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from aiohttp import ClientTimeout

from hub.apps.app_paths import KEY, AppPaths
from hub.state.paths import Paths
from labkit.relay.upstream import Upstreams
from services.gate import keys
from services.gate.__main__ import give_up_root
from services.gate.config import App
from services.gate.headers import passes, quoted
from services.gate.upstream import OwnSocket, WrongPeerError
from tests.conftest import needs_env, needs_root
from tests.support.gated_portal import HTML, AppPortal
from tests.support.portal import People

pytestmark = [needs_root, needs_env("proxy")]

APP = Path(__file__).resolve().parents[1] / "support" / "testapp"
CALL = """
import json, os, urllib.error, urllib.request
def call(path, method="GET", **headers):
    sent = {k.replace("_", "-"): v for k, v in headers.items()}
    request = urllib.request.Request(os.environ["LABHUB_SERVICES_URL"] + path, method=method,
                                     headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
token = "token " + os.environ["JUPYTERHUB_API_TOKEN"]
"""


@dataclass
class Scene:
    portal: AppPortal
    ada: str
    bob: str

    @property
    def key(self) -> str:
        return (self.portal.state / "secrets" / KEY).read_text().strip()

    def service_token(self, app: str) -> str:
        return keys.derived(self.key, keys.HUB_TOKEN, app)

    def inside(self, app: str, code: str, who: str = "") -> list[str]:
        """Run Python inside an app."""
        with self.portal.program(self.portal.token(who or self.ada)) as program:
            said = program.post(self.portal.app_url(app, "run"), content=code).json()
        return [str(line) for line in said]


@pytest.fixture(scope="module")
def scene(people: People, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ada, bob = people.add("ada"), people.add("bob")
    lab = {"groups": {"imaging": [ada], "other": [bob]}}
    second = tmp_path_factory.mktemp("apps") / "second"
    second.mkdir()
    for name in ("app.py", "service.yaml", "picture.svg"):
        (second / name).write_bytes((APP / name).read_bytes())
    with AppPortal(lab, [APP, second], {"second": ["other"]}) as portal:
        for name in (ada, bob):
            portal.spawn(name)
        yield Scene(portal, ada, bob)


# -- from a member's server -----------------------------------------------------------------


def test_a_notebook_reaches_the_apps_of_its_owner(scene: Scene) -> None:
    """Else the refusals below would prove nothing."""
    code = CALL + "print(json.dumps(call('/services/testapp/told', Authorization=token)))"
    status, text = json.loads(scene.portal.run(scene.ada, code))
    assert status == 200
    headers = dict(json.loads(text)["headers"])
    assert headers["x-labhub-user"] == scene.ada
    assert "authorization" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        "Authorization=token",
        "Authorization=token, X_Labhub_User='{ada}', X_Labhub_Groups='imaging'",
        "Authorization='token 0123'",
        "X_Labhub_User='{ada}'",
        "Cookie='service-testapp=x'",
    ],
)
def test_a_notebook_of_another_group_is_refused(scene: Scene, headers: str) -> None:
    sent = headers.replace("{ada}", scene.ada)
    for method in ("GET", "POST", "DELETE"):
        code = CALL + f"print(call('/services/testapp/told', {method!r}, {sent})[0])"
        assert scene.portal.run(scene.bob, code).strip() == "403"


def test_a_cookie_is_worth_nothing_at_the_gates_inner_door(scene: Scene) -> None:
    client = scene.portal.person(scene.ada)
    client.get(scene.portal.app_url("testapp", "told"), headers=HTML)
    cookie = scene.portal.cookies(client, "testapp")
    assert "service-testapp=" in cookie
    code = CALL + f"print(call('/services/testapp/told', Cookie={cookie!r})[0])"
    assert scene.portal.run(scene.bob, code).strip() == "403"


# -- from inside an app ---------------------------------------------------------------------


def test_an_app_sees_neither_the_portal_nor_other_apps(scene: Scene) -> None:
    state = scene.portal.state
    places = AppPaths(Paths(state, scene.portal.envs))
    with scene.portal.program(scene.portal.token(scene.bob)) as bob:
        assert bob.get(scene.portal.app_url("second", "told")).status_code == 200  # it runs
    looks = [
        state / "secrets" / KEY,
        state / "jupyterhub.sqlite",
        state / "run" / "supervisor.sock",
        places.gate_file,
        places.socket("second"),
        places.data("second"),
        places.own / "second" / "app.py",
        Path(f"/home/{scene.ada}"),
    ]
    code = f"import os\nfor path in {[str(path) for path in looks]!r}: say(os.path.exists(path))"
    assert scene.inside("testapp", code) == ["False"] * len(looks)
    own = "import os; say(str(sorted(os.listdir(os.environ['LABHUB_APP_FOLDER']))))"
    assert "app.py" in scene.inside("testapp", own)[0]
    write = "open(os.environ['LABHUB_APP_FOLDER'] + '/x', 'w')"
    assert "Error" in scene.inside("testapp", f"import os\n{write}")[0]


def test_an_app_may_read_labkit_and_services_and_write_neither(scene: Scene) -> None:
    """All of the portal's code that a lab's own app is given, and none of its settings."""
    attack = """
import importlib.util, os
from pathlib import Path
import labkit, services.appkit.app
library = Path(os.environ["PYTHONPATH"])
say(str(library))
say(" ".join(sorted(os.listdir(library))))
say(Path(labkit.__file__).parent == library / "labkit")
say(Path(services.appkit.app.__file__).parents[1] == library / "services")
for name in ("hub", "tests", "bench"):
    say(importlib.util.find_spec(name))
for place in (labkit.__file__, services.appkit.app.__file__, library / "labkit/new.py"):
    try:
        Path(place).open("a")
        say("written")
    except OSError as error:
        say(type(error).__name__)
"""
    said = scene.inside("testapp", attack)
    assert said[:4] == ["/labhub/lib", "labkit services", "True", "True"], said
    assert said[4:7] == ["None"] * 3, said
    assert len(said) == 10 and "written" not in said, said


def test_an_app_reaches_no_port_of_the_host(scene: Scene) -> None:
    portal = scene.portal
    gateway = f"10.{portal.lab['local']['subnet'].split('.')[1]}.0.1"
    ports = (portal.port, portal.api_port, portal.hub_port, portal.gate_port, 22)
    code = "import socket\n" + "".join(
        f"""
try:
    socket.create_connection(({host!r}, {port}), timeout=3)
    say("open {host}:{port}")
except OSError as error:
    say("no")
"""
        for host in ("127.0.0.1", gateway)
        for port in ports
    )
    assert set(scene.inside("testapp", code)) == {"no"}


def test_an_address_without_a_sandbox_leads_nowhere(scene: Scene) -> None:
    """An app or server that has just ended: what is sent to it must not go to the world."""
    first, second, *_ = scene.portal.lab["local"]["subnet"].split(".")
    with pytest.raises(OSError) as caught:
        socket.create_connection((f"{first}.{second}.201.7", 8000), timeout=5).close()
    assert not isinstance(caught.value, TimeoutError)
    left = scene.portal.state / "sockets"
    assert [p.name for p in left.glob("*.json")] == []


def test_an_app_cannot_pass_for_another(scene: Scene) -> None:
    """Its socket becomes a link to another one's: the gate looks who is at the other end."""
    portal = scene.portal
    places = AppPaths(Paths(portal.state, portal.envs))
    with portal.program(portal.token(scene.bob)) as bob:
        assert bob.get(portal.app_url("second", "told")).status_code == 200
    own, other = places.socket("testapp"), places.socket("second")
    with portal.program(portal.token(scene.ada)) as ada:
        assert ada.get(portal.app_url("testapp", "told")).status_code == 200
        scene.inside(
            "testapp",
            "import os\np = os.environ['LABHUB_APP_SOCKET']\n"
            f"os.unlink(p)\nos.symlink({str(other)!r}, p)\n",
        )
        assert own.is_symlink()
        # New connections: those that are open go on to the app itself.
        answers = _at_once(portal, scene.ada, 8)
        assert scene.bob not in " ".join(answers)
        assert "second" not in " ".join(answers)
        portal.stop_app("testapp")
        assert ada.get(portal.app_url("testapp", "told")).status_code == 200


def _at_once(portal: AppPortal, name: str, count: int) -> list[str]:
    token, found = portal.token(name), []

    def ask() -> None:
        with portal.program(token) as program:
            found.append(program.get(portal.app_url("testapp", "told")).text)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


async def test_another_account_on_the_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    brief = ClientTimeout(total=1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for uid, error in ((os.geteuid() + 1, WrongPeerError), (os.geteuid(), TimeoutError)):
            pool = Upstreams(lambda place, uid=uid, **kw: OwnSocket(place, uid, **kw))
            with pytest.raises(error):
                async with pool.session(str(path)).get("http://localhost/", timeout=brief):
                    pass
            await pool.close()


# -- tokens ---------------------------------------------------------------------------------


def test_an_apps_token_starts_and_stops_itself_alone(scene: Scene) -> None:
    portal = scene.portal
    hub = f"http://127.0.0.1:{portal.hub_port}/hub/api"
    own = scene.service_token("testapp")
    member = portal.token(scene.ada)
    run = "/labhub/services/{}/run"
    for token, path, method, wanted in (
        (own, run.format("testapp"), "GET", 200),
        (own, run.format("second"), "GET", 403),
        (own, run.format("second"), "DELETE", 403),
        (own, run.format("hub"), "DELETE", 403),
        (member, run.format("testapp"), "POST", 403),
        ("", run.format("testapp"), "POST", 403),
        (own, "/labhub/services", "POST", 403),
        (member, "/labhub/services", "POST", 403),
        (own, "/users", "GET", 403),
        (own, "/services", "GET", 403),
        (own, f"/users/{scene.ada}", "GET", 403),
        (own, "/shutdown", "POST", 403),
    ):
        headers = {"Authorization": f"token {token}"} if token else {}
        answer = httpx.request(method, f"{hub}{path}", headers=headers, timeout=20)
        assert answer.status_code == wanted, (path, method, answer.status_code, answer.text)


def test_an_apps_token_is_no_person(scene: Scene) -> None:
    for app in ("testapp", "second"):
        with scene.portal.program(scene.service_token(app)) as program:
            for asked in ("testapp", "second"):
                assert program.get(scene.portal.app_url(asked, "told")).status_code == 403


def test_a_token_made_for_one_app_opens_no_other(scene: Scene) -> None:
    portal = scene.portal
    portal.api("POST", "/groups/other/users", json={"users": [scene.ada]})
    try:
        one = portal.token(scene.ada, scopes=["access:services!service=testapp"])
        with portal.program(one) as program:
            assert program.get(portal.app_url("testapp", "told")).status_code == 200
            assert program.get(portal.app_url("second", "told")).status_code == 403
    finally:
        portal.api("DELETE", "/groups/other/users", json={"users": [scene.ada]})


def test_no_secret_is_in_a_file_a_log_or_a_command(scene: Scene) -> None:
    portal = scene.portal
    secret = keys.derived(scene.key, keys.APP_SECRET, "testapp")
    hidden = [scene.key, secret, scene.service_token("testapp")]
    places = AppPaths(Paths(portal.state, portal.envs))
    texts = {
        "gate file": places.gate_file.read_text(),
        "supervisor": (portal.state / "run" / "supervisord.conf").read_text(),
        "commands": subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout,
        **{log.name: log.read_text() for log in (portal.state / "log").glob("*.log")},
    }
    for place, text in texts.items():
        assert not [value for value in hidden if value in text], place


# -- the gate itself ------------------------------------------------------------------------


def test_the_gate_is_not_root(scene: Scene) -> None:
    pid = scene.portal.pids()["gate"]
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    uids, gids = fields["Uid"].split(), fields["Gid"].split()
    assert len(set(uids)) == len(set(gids)) == 1
    assert uids[0] != "0" and gids[0] != "0"
    assert "0" not in fields["Groups"].split()
    assert int(fields["CapEff"], 16) == 0
    with pytest.raises((OSError, KeyError)):
        give_up_root("root")


@pytest.mark.parametrize(
    ("host", "path", "wanted"),
    [
        ("testapp--service.localhost", "/services/testapp/../second/told", 400),
        ("testapp--service.localhost", "/services/testapp/%2e%2e/second/told", 400),
        ("testapp--service.localhost", "/services/second/told", 421),
        ("localhost", "/services/testapp/told", 421),
        ("evil.example", "/services/testapp/told", 421),
        ("testapp--service.localhost", "/services/none/told", 404),
        ("testapp--service.localhost", "/hub/api/users", 404),
        ("testapp--service.localhost", "/services/testapp/.labhub/static/..%2fkeys.py", 400),
        ("testapp--service.localhost", "/services/testapp/..%2fsecond/told", 400),
        ("testapp--service.localhost", "/services/testapp/x/%2e%2e%2Ftold", 400),
        ("testapp--service.localhost", "/services/testapp/..%5csecond", 400),
        ("testapp--service.localhost", "/services/testapp/x%2f..%2f..%2fsecond", 400),
    ],
)
def test_addresses_lead_to_no_other_app(scene: Scene, host: str, path: str, wanted: int) -> None:
    """Asked at the gate's own port, past the proxy."""
    portal = scene.portal
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{portal.port}\r\nConnection: close\r\n"
        f"Authorization: token {portal.token(scene.ada)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", portal.gate_port), timeout=20) as end:
        end.sendall(head.encode())
        answer = b"".join(iter(lambda: end.recv(65536), b""))
    assert int(answer.split()[1]) == wanted, answer[:300]


@pytest.mark.parametrize(
    "name",
    [
        *("X-Labhub-User", "x-labhub-anything", "X_Labhub_User", "X_FORWARDED_USER", "Remote-User"),
        *("Rstudio-Connect-Credentials", "X-Authentik-Username", "Tailscale-User-Login", "From"),
        *("X-Forwarded-User", "Forwarded", "X-Goog-Authenticated-User-Email", "Cf-Access-Jwt"),
        *("X-The-Next-Products-User", "Proxy-Authorization", "X-HTTP-Method-Override"),
    ],
)
def test_names_that_no_client_may_send(name: str) -> None:
    app = App("plates", "Plates", "/services/plates/", "http://plates.localhost", headers=("hx-x",))
    assert not passes(name, app)
    for common in ("X-Requested-With", "X-CSRFToken", "Sec-Fetch-Site", "Range", "HX-X"):
        assert passes(common, app)


def test_an_unknown_header_reaches_no_app(scene: Scene) -> None:
    """The next product's name for a person, sent to a real app."""
    sent = {"Tailscale-User-Login": "root", "X-Whoever": "root", "X-Requested-With": "page"}
    with scene.portal.program(scene.portal.token(scene.ada)) as program:
        answer = program.get(scene.portal.app_url("testapp", "told"), headers=sent)
    told = dict(answer.json()["headers"])
    assert told["x-requested-with"] == "page"
    assert "root" not in told.values()


def test_an_upgrade_to_something_else_is_none(scene: Scene) -> None:
    """The proxy hangs up at once; the gate answers as if nothing had been asked."""
    portal = scene.portal
    head = (
        f"GET /services/testapp/told HTTP/1.1\r\nHost: testapp--service.localhost:{portal.port}\r\n"
        f"Authorization: token {portal.token(scene.ada)}\r\n"
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    )
    answers = []
    for port in (portal.port, portal.gate_port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as end:
            end.sendall(head.encode())
            answers.append(end.recv(65536))
    assert answers[0] == b""
    assert answers[1].startswith(b"HTTP/1.1 200"), answers[1][:300]
    assert b"HTTP2-Settings" not in answers[1]
    assert b"101" not in answers[1].split(b"\r\n")[0]


def test_names_cannot_break_out_of_a_header() -> None:
    assert quoted("a,b\r\nX: y") == "a%2Cb%0D%0AX: y"
    assert quoted("group one/two") == "group one/two"
    assert quoted("50%") == "50%25"


def test_pictures_are_for_those_who_may_open_the_app(scene: Scene) -> None:
    portal = scene.portal
    address = f"{portal.url}/hub/app-picture/testapp"
    allowed = portal.person(scene.ada).get(address)
    assert allowed.status_code == 200
    assert "sandbox" in allowed.headers["Content-Security-Policy"]
    assert portal.person(scene.bob).get(address).status_code == 404
    assert "svg" not in portal.browser().get(address).headers["Content-Type"]


def test_it_is_not_imported_with_root_left() -> None:
    """The program names itself and needs its key: it does not serve by accident."""
    command = [sys.executable, "-m", "services.gate", "/nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/usr/bin"}, cwd=APP.parents[2]
    )
    assert done.returncode == 1
    assert "LABHUB_GATE_KEY" in done.stderr


def test_the_hubs_look_each_minute_is_answered_with_nothing(scene: Scene) -> None:
    """By the gate's own address: empty, and not worth a line in the log; nothing else passes."""
    portal = scene.portal
    own, log = f"127.0.0.1:{portal.gate_port}", portal.state / "log" / "gate.log"
    token = f"Authorization: token {portal.token(scene.ada)}\r\n"
    portal.stop_app("testapp")

    def ask(method: str, path: str, host: str = own, more: str = "") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
        with socket.create_connection(("127.0.0.1", portal.gate_port), timeout=20) as end:
            end.sendall(head.encode())
            answer = b"".join(iter(lambda: end.recv(65536), b""))
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]

    before = log.read_text().count(" 421")
    assert ask("GET", "/services/testapp/") == (204, b"")
    assert log.read_text().count(" 421") == before
    assert "Traceback" not in log.read_text()
    for method, path, more in (
        ("GET", "/services/testapp/", token),
        ("GET", "/services/testapp/", "Cookie: service-testapp=x\r\n"),
        ("GET", "/services/testapp/told", ""),
        ("GET", "/services/testapp/?x", token),
        ("POST", "/services/testapp/", ""),
        ("HEAD", "/services/testapp/", ""),
    ):
        assert ask(method, path, more=more)[0] == 421, (method, path, more)
    upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    assert ask("GET", "/services/testapp/", more=upgrade)[0] == 421
    assert ask("GET", "/services/none/")[0] == 404
    assert portal.app_state("testapp") == "stopped", "a look has started it"
