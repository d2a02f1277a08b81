"""labkit.publish_app from a person's own server: versions, logs, and who is refused."""

from __future__ import annotations

import io
import json
import pwd
import shutil
import zipfile
from pathlib import Path

import httpx
import pytest

from hub.apps.app_paths import AppPaths
from hub.state.paths import Paths
from tests.conftest import needs_env, needs_root
from tests.services.member_apps.conftest import Scene
from tests.support.gated_portal import HTML, eventually
from tests.support.portal import secrets_in

pytestmark = [needs_root, needs_env("proxy"), needs_env("dash")]

APP = """
import os
from dash import Dash, html
print("version {n} begins", flush=True)
app = Dash(__name__)
app.layout = html.P("hello")
kept = os.path.join(os.environ["LABHUB_APP_DATA"], "keep")
os.makedirs(kept, exist_ok=True)
open(os.path.join(kept, "seen"), "a").write("x")

@app.server.get(os.environ["LABHUB_APP_PREFIX"] + "number")
def number():
    return "{n}"
"""
PUBLISH = "app = labkit.publish_app({source!r}, {name!r}, progress=print, {more})\nprint(repr(app))"


def put(scene: Scene, who: str, folder: str, **files: str) -> Path:
    """Write an app into somebody's home; double underscores are dots."""
    place = scene.home(who) / folder
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    for path in (place, *place.iterdir()):
        shutil.chown(path, who, who)
    return place


def publish(scene: Scene, who: str, source: Path | str, name: str, **more: object) -> str:
    words = ", ".join(f"{key}={value!r}" for key, value in more.items())
    return scene.notebook(who, PUBLISH.format(source=str(source), name=name, more=words))


def refusal(scene: Scene, who: str, source: Path | str, name: str, **more: object) -> str:
    with pytest.raises(RuntimeError) as caught:
        publish(scene, who, source, name, **more)
    return str(caught.value)


def number(scene: Scene, who: str, name: str) -> str:
    with scene.portal.program(scene.portal.token(who)) as program:
        answer = program.get(scene.portal.app_url(name, "number"), timeout=100)
    return answer.text if answer.status_code == 200 else str(answer.status_code)


def gone(scene: Scene, name: str) -> bool:
    """Whether nothing of an app answers any more, but the hub in its place."""
    return number(scene, scene.ada, name) in ("302", "404")


def remove(scene: Scene, name: str) -> None:
    scene.notebook(scene.ada, f"labkit.published_apps()[{name!r}].unpublish(delete=True)")


def ask(scene: Scene, method: str, path: str, token: str, **more: object) -> httpx.Response:
    with scene.portal.program(token) as program:
        url = f"{scene.portal.url}/hub/api/labhub/webapps{path}"
        return program.request(method, url, **more)  # type: ignore[arg-type]


def test_an_app_from_publication_to_its_end(scene: Scene) -> None:
    ada, portal = scene.ada, scene.portal
    folder = put(scene, ada, "first", app__py=APP.replace("{n}", "1"), __env="PASSWORD=1")
    said = publish(scene, ada, folder, "first", groups=["screening"], title="My first")
    assert "Left out: .env" in said
    assert f"Published: {portal.app_url('first')}" in said
    assert "Dash, version 1, running" in said
    assert number(scene, ada, "first") == "1"
    assert number(scene, scene.carl, "first") == "1"
    assert number(scene, scene.bob, "first") == "403"
    home = portal.person(scene.carl).get("/hub/home", headers=HTML)
    assert "My first" in home.text
    # The same again is no new version; other files are.
    assert "nothing is sent" in publish(scene, ada, folder, "first")
    put(scene, ada, "first", app__py=APP.replace("{n}", "2"))
    assert "version 2" in publish(scene, ada, folder, "first")
    assert number(scene, ada, "first") == "2"
    log = scene.notebook(ada, "print(labkit.app_logs('first'))")
    assert "version 1 begins" in log and "version 2 begins" in log
    # Back to the first, and restart.
    scene.notebook(ada, "print(labkit.published_apps()['first'].roll_back(1))")
    eventually(lambda: number(scene, ada, "first") == "1", 30)
    again = "print(labkit.published_apps()['first'].restart().state)"
    assert scene.notebook(ada, again) == "running\n"
    assert number(scene, ada, "first") == "1"
    # Its groups may change while it runs.
    change = "labkit.published_apps()['first'].update(groups=['screening'], title='Renamed')"
    assert "Renamed" in scene.notebook(ada, f"print({change})")
    # Away, back, and away for good.
    scene.notebook(ada, "labkit.published_apps()['first'].unpublish()")
    eventually(lambda: gone(scene, "first"), 20)
    assert "Renamed" not in portal.person(scene.carl).get("/hub/home", headers=HTML).text
    scene.notebook(ada, "labkit.published_apps()['first'].republish()")
    eventually(lambda: number(scene, ada, "first") == "1", 30)
    places = AppPaths(Paths(portal.state, portal.envs))
    assert (places.data("first") / "keep" / "seen").exists()
    remove(scene, "first")
    eventually(lambda: gone(scene, "first"), 20)
    assert not (portal.state / "webapps" / "first").exists()
    assert not places.data("first").exists()
    assert not (portal.state / "log" / "app-first.log").exists()
    with pytest.raises(KeyError):
        pwd.getpwnam(places.account("first"))


def test_all_that_is_wrong_is_told_before_anything_is_sent(scene: Scene) -> None:
    folder = put(scene, scene.ada, "wrong", app__py="def f(:\n", more__py="x = (\n")
    (folder / "secret").symlink_to("/etc/shadow")
    told = refusal(scene, scene.ada, folder, "Wrong_Name", groups=["imaging"], title="x" * 99)
    for text in ("no name of an app", "app.py, line 1", "more.py, line 1", "is a link, to"):
        assert text in told
    assert "you are not in: imaging" in told and "at most 60 characters" in told
    assert "Sending" not in told
    empty = put(scene, scene.ada, "empty", notes__txt="x")
    assert "neither app.R" in refusal(scene, scene.ada, empty, "empty", groups=["screening"])
    assert not (scene.portal.state / "webapps" / "empty").exists()


def test_who_may_not_publish_may_not(scene: Scene) -> None:
    folder = put(scene, scene.bob, "bobs", app__py=APP.replace("{n}", "1"))
    told = refusal(scene, scene.bob, folder, "bobs", groups=["imaging"])
    assert "you may not publish" in told and "screening" in told
    token = scene.portal.token(scene.bob)
    answer = ask(scene, "PUT", "/bobs/package", token, content=b'{"groups":["imaging"]}\nx')
    assert answer.status_code == 403
    for method, path in (
        ("PATCH", "/doses"),
        ("DELETE", "/doses"),
        ("GET", "/doses/log"),
        ("POST", "/doses/restart"),
        ("GET", "/doses"),
    ):
        answer = ask(scene, method, path, token, json={} if method == "PATCH" else None)
        assert answer.status_code == 404, (method, answer.text)  # he may not even know of it
    # Carl may open it, and yet it is not his.
    answer = ask(scene, "GET", "/doses/log", scene.portal.token(scene.carl))
    assert answer.status_code == 403
    answer = ask(scene, "POST", "/doses/check", scene.portal.token(scene.carl), json={})
    assert answer.status_code == 422 and "somebody else's" in answer.json()["message"]


def test_a_token_for_something_else_publishes_nothing(scene: Scene) -> None:
    portal, ada = scene.portal, scene.ada
    narrow = portal.token(ada, scopes=["access:services!service=doses"])
    assert ask(scene, "GET", "", narrow).status_code == 403
    assert ask(scene, "GET", "", "0" * 32).status_code == 403
    assert ask(scene, "GET", "", "").status_code == 403
    # A browser's cookie, from a page that is not the hub's.
    browser = portal.person(ada)
    for headers in ({}, {"Origin": portal.app_origin("hostile")}):
        answer = browser.delete("/hub/api/labhub/webapps/doses", headers=headers)
        assert answer.status_code == 403, answer.text


def test_hostile_packages_are_refused_and_leave_nothing(scene: Scene) -> None:
    token = scene.portal.token(scene.ada)
    before = sorted((scene.portal.state / "webapps").iterdir())
    head = json.dumps({"groups": ["screening"]}).encode() + b"\n"

    def zipped(**files: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name.replace("__", "/"), text)
        return out.getvalue()

    def send(content: bytes, name: str = "evil") -> httpx.Response:
        return ask(scene, "PUT", f"/{name}/package", token, content=content)

    for content in (
        head + zipped(**{"app.py": "", "../up.py": ""}),
        head + zipped(**{"app.py": "", "/etc/cron.d/x": ""}),
        head + zipped(**{"app.py": "", ".bashrc": ""}),
        head + zipped(**{"app.py": "x" * (60 << 20)}),
        head + zipped(**{"notes.txt": ""}),
        head + b"no archive at all",
        json.dumps({"groups": ["admins"]}).encode() + b"\n" + zipped(**{"app.py": ""}),
        json.dumps({"groups": []}).encode() + b"\n" + zipped(**{"app.py": ""}),
        json.dumps({"owner": "root"}).encode() + b"\n" + zipped(**{"app.py": ""}),
    ):
        assert send(content).status_code == 422, content[:60]
    good = head + zipped(**{"app.py": ""})
    for name in ("gate", "hub", "cellxgene", "test-admin", "labhub-control"):
        assert send(good, name).status_code == 422, name
    assert send(good, "doses").status_code == 422  # the lab's
    assert send(b"x" * 10).status_code == 400
    assert send(b"").status_code == 413
    assert sorted((scene.portal.state / "webapps").iterdir()) == before


def test_an_app_that_does_not_start_says_why(scene: Scene) -> None:
    folder = put(scene, scene.ada, "broken", app__py="import nonexistent_library\n")
    told = refusal(scene, scene.ada, folder, "broken", groups=["screening"])
    assert "was published and does not start" in told
    assert "No module named 'nonexistent_library'" in told
    key = (scene.portal.state / "secrets" / "gate_key").read_text()
    assert not secrets_in(told, [key, scene.portal.admin_token])
    remove(scene, "broken")


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with shiny")
def test_one_file_of_shiny(scene: Scene) -> None:
    text = (
        'library(shiny)\nmessage("waves begin")\nshinyApp(fluidPage("sea"), function(...) NULL)\n'
    )
    place = put(scene, scene.ada, "sea", app__R=text, notes__txt="not taken")
    said = publish(scene, scene.ada, place / "app.R", "sea", groups=["screening"])
    assert "1 file(s)" in said and "Shiny, version 1, running" in said
    with scene.portal.program(scene.portal.token(scene.carl)) as program:
        assert "sea" in program.get(scene.portal.app_url("sea")).text
    assert "waves begin" in scene.notebook(scene.ada, "print(labkit.app_logs('sea'))")
    remove(scene, "sea")


def test_an_app_from_a_git_repository(scene: Scene) -> None:
    place = put(scene, scene.ada, "repository", README__md="x")
    code = f"""
import os, subprocess
os.chdir({str(place)!r})
os.mkdir('app')
open('app/app.py', 'w').write({APP.replace("{n}", "7")!r})
git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c']
for words in ('init -q -b main .', 'add .', 'commit -q -m first', 'tag v1'):
    subprocess.run([*git, *words.split()], check=True)
open('app/app.py', 'w').write('not committed')
"""
    scene.notebook(scene.ada, code)
    address = f"file://{place}"
    said = publish(
        scene, scene.ada, address, "from-git", groups=["screening"], folder="app", ref="v1"
    )
    assert "Published" in said
    assert number(scene, scene.ada, "from-git") == "7"
    told = ask(scene, "GET", "/from-git", scene.portal.token(scene.ada)).json()
    assert told["versions"][0]["source"].startswith(f"{address}@")
    assert "no folder" in refusal(
        scene, scene.ada, address, "x", folder="../..", groups=["screening"]
    )
    assert "cannot be fetched" in refusal(scene, scene.ada, address, "x", ref="nonesuch")
    assert "no branch" in refusal(scene, scene.ada, address, "x", ref="--upload-pack=x")
    remove(scene, "from-git")


def test_each_person_has_so_many_apps_and_no_more(scene: Scene) -> None:
    token = scene.portal.token(scene.ada)
    mine = [one for one in ask(scene, "GET", "", token).json()["apps"] if one["owner"] == scene.ada]
    names = ["one", "two", "three"][len(mine) :]
    body = {"groups": ["screening"], "size": 1, "files": 1}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("app.py", "x")
    for name in names:
        content = b'{"groups": ["screening"]}\n' + out.getvalue()
        assert ask(scene, "PUT", f"/{name}/package", token, content=content).status_code == 200
    answer = ask(scene, "POST", "/four/check", token, json=body)
    assert answer.status_code == 422 and "the lab allows 3" in answer.json()["message"]
    for name in names:
        assert ask(scene, "DELETE", f"/{name}", token).status_code == 204
    assert ask(scene, "POST", "/four/check", token, json=body).status_code == 200


def test_the_administrator_takes_an_app_away(scene: Scene) -> None:
    portal, ada = scene.portal, scene.ada
    folder = put(scene, ada, "taken", app__py=APP.replace("{n}", "3"))
    publish(scene, ada, folder, "taken", groups=["screening"])
    assert number(scene, ada, "taken") == "3"
    portal.labhub("app", "remove", "taken", "--yes")
    eventually(lambda: gone(scene, "taken"), 20)
    remove(scene, "taken")
    assert not (portal.state / "webapps" / "taken").exists()
