"""A hostile member's app: what its code can reach, and what it cannot."""

from __future__ import annotations

import json
import pwd

from hub.apps.app_paths import AppPaths
from hub.labfile.read import read
from hub.sandbox.network import GATE_PORT, HUB_PORT
from hub.state.create import read_secret
from hub.state.paths import Paths
from services.gate import keys
from tests.conftest import needs_env, needs_root
from tests.services.member_apps.conftest import Scene
from tests.support.gated_portal import HTML, eventually

pytestmark = [needs_root, needs_env("proxy"), needs_env("dash")]


def places(scene: Scene) -> AppPaths:
    return AppPaths(Paths(scene.portal.state, scene.portal.envs))


def awake(scene: Scene, name: str) -> None:
    """Open an app until it is there."""
    with scene.portal.program(scene.portal.token(scene.ada)) as program:
        assert program.get(scene.portal.app_url(name), timeout=100).status_code == 200


def test_it_runs_as_nobody_elses_account(scene: Scene) -> None:
    awake(scene, "doses")
    uid = int(scene.attack("import os; print(os.getuid(), end='')"))
    assert pwd.getpwuid(uid).pw_name == places(scene).account("hostile")
    assert uid != pwd.getpwnam(places(scene).account("doses")).pw_uid
    code = """
import os
print([os.getresuid(), os.getgroups(), open('/proc/self/status').read().split('CapEff:')[1][:18]])
try:
    os.setuid(0)
except PermissionError:
    print('no')
"""
    told = scene.attack(code)
    assert "0000000000000000" in told and told.endswith("no\n")


def test_its_own_secret_is_out_of_its_reach(scene: Scene) -> None:
    """With it the code could pass for the gate at its own socket; the front keeps it."""
    key = read_secret(Paths(scene.portal.state, scene.portal.envs), "gate_key")
    secret = keys.derived(key, keys.APP_SECRET, "hostile")
    code = """
import os
print(dict(os.environ))
for pid in filter(str.isdigit, os.listdir('/proc')):
    for name in ('environ', 'mem', 'maps', 'fd'):
        try:
            place = f'/proc/{pid}/{name}'
            print(pid, name, os.listdir(place) if name == 'fd' else open(place, 'rb').read(99999))
        except OSError as error:
            print(pid, name, type(error).__name__)
"""
    told = scene.attack(code)
    assert "LABHUB_APP_PREFIX" in told
    assert secret not in told and "LABHUB_APP_SECRET" not in told
    assert "environ PermissionError" in told, "the front's own process was not even there"


def test_it_sees_its_own_files_alone(scene: Scene) -> None:
    state, home = scene.portal.state, scene.home(scene.ada)
    (home / "private.txt").write_text("private")
    awake(scene, "doses")
    folders = ("", "secrets", "log", "run", "webapps", "sockets", "sockets/doses", "appdata")
    looked = [*(f"{state}/{one}" for one in folders), str(home), "/root"]
    code = f"""
import os, json
def listed(place):
    try:
        return sorted(os.listdir(place))
    except OSError as error:
        return type(error).__name__
print(json.dumps({{place: listed(place) for place in {looked}}}))
"""
    told = json.loads(scene.attack(code))
    assert told[f"{state}/sockets"] == ["hostile"]
    assert told[f"{state}/appdata"] == ["hostile"]
    closed = ("secrets", "log", "run", "webapps", "sockets/doses")
    assert all(isinstance(told[f"{state}/{one}"], str) for one in closed), told
    assert isinstance(told[str(home)], str)
    assert told["/root"] in ("FileNotFoundError", "PermissionError")


def test_it_cannot_change_its_own_code(scene: Scene) -> None:
    code = """
import os
for place in ('app.py', 'new.py'):
    try:
        open(os.path.join(os.environ['LABHUB_APP_FOLDER'], place), 'a').write('x')
        print('written')
    except OSError as error:
        print(type(error).__name__)
"""
    assert "written" not in scene.attack(code)


def test_no_door_of_the_portal_or_of_another_app_opens(scene: Scene) -> None:
    settings = read(scene.portal.state / "lab.yaml")
    gateway = str(settings.local.subnet[1])
    awake(scene, "doses")
    portal = scene.portal
    own = [portal.port, portal.hub_port, portal.api_port, portal.gate_port]
    code = f"""
import json, socket
def meet(address, family=socket.AF_INET):
    with socket.socket(family) as end:
        end.settimeout(2)
        try:
            end.connect(address)
            return 'open'
        except OSError as error:
            return type(error).__name__
found = {{str(p): meet(('127.0.0.1', p)) for p in {own}}}
found |= {{f'gateway {{p}}': meet(({gateway!r}, p)) for p in {own}}}
found['metadata'] = meet(('169.254.169.254', 80))
found['socket'] = meet({str(places(scene).socket("doses"))!r}, socket.AF_UNIX)
found['supervisor'] = meet({str(portal.state / "run" / "supervisor.sock")!r}, socket.AF_UNIX)
print(json.dumps(found))
"""
    told = json.loads(scene.attack(code))
    assert "open" not in told.values(), told


def test_the_hubs_api_and_the_gate_know_it_not(scene: Scene) -> None:
    """It may knock where people's servers knock: without a token nobody answers it."""
    gateway = str(read(scene.portal.state / "lab.yaml").local.subnet[1])
    code = f"""
import json, urllib.error, urllib.request
found = {{}}
for method, url in (
    ('GET', 'http://{gateway}:{HUB_PORT}/hub/api/users'),
    ('GET', 'http://{gateway}:{HUB_PORT}/hub/api/labhub/webapps'),
    ('POST', 'http://{gateway}:{HUB_PORT}/hub/api/labhub/services'),
    ('POST', 'http://{gateway}:{HUB_PORT}/hub/api/labhub/services/doses/run'),
    ('PUT', 'http://{gateway}:{HUB_PORT}/hub/api/labhub/webapps/doses/package'),
    ('GET', 'http://{gateway}:{GATE_PORT}/services/doses/'),
):
    headers = {{'X-Labhub-User': {scene.ada!r}, 'X-Labhub-Admin': 'true'}}
    try:
        body = b'x' if method == 'PUT' else None
        request = urllib.request.Request(url, body, headers, method=method)
        found[f'{{method}} {{url}}'] = urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        found[f'{{method}} {{url}}'] = error.code
    except OSError as error:
        found[f'{{method}} {{url}}'] = type(error).__name__
print(json.dumps(found))
"""
    told = json.loads(scene.attack(code))
    assert len(told) == 6
    assert all(answer in (401, 403, "URLError", "TimeoutError") for answer in told.values()), told


def test_a_fork_bomb_stops_at_its_limit(scene: Scene) -> None:
    code = """
import subprocess
started = []
try:
    for _ in range(400):
        started.append(subprocess.Popen(['sleep', '60']))
except OSError as error:
    print(type(error).__name__)
print(len(started))
for one in started:
    one.kill()
"""
    told = scene.attack(code).split()
    assert told[0] == "BlockingIOError"
    assert 5 < int(told[1]) < 96
    awake(scene, "doses")
    assert scene.attack("print('well')") == "well\n"


def test_a_memory_hog_ends_alone_and_comes_back(scene: Scene) -> None:
    awake(scene, "doses")
    url = scene.portal.app_url("hostile", "run")
    with scene.portal.program(scene.portal.token(scene.ada)) as program:
        answer = program.post(url, content="kept = b'x' * (3 << 30)")
        assert answer.status_code in (502, 503), answer.text[:200]
        assert scene.portal.app_state("doses") == "running"
        assert program.get(scene.portal.app_url("doses")).status_code == 200
        told = scene.portal.labhub("app", "status", "hostile").stdout
        assert "out of memory" in told
        back = scene.portal.app_url("hostile")
        eventually(lambda: program.get(back, headers=HTML).status_code == 200, 60)
