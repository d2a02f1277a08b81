"""Label Studio behind the gate: the contract, whom it knows, and what labkit does with it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import labkit
from labkit.base.problems import RefusedError
from labkit.portal.annotating.client import AnnotationError, Client
from labkit.portal.annotating.project import Project, find, make
from labkit.workflows.cellprofiler import example
from tests.browser.test_apps import log_in
from tests.conftest import CHROMIUM, needs_chromium, needs_env, needs_root
from tests.labkit.workflows.conftest import lab_home
from tests.notebooks.test_notebooks import Tutor, tutor
from tests.support.app_contract import AppCase, AppContract
from tests.support.gated_portal import AppPortal, eventually
from tests.support.portal import People

__all__ = ["lab_home", "tutor"]

pytestmark = [needs_root, needs_env("proxy"), needs_env("label-studio")]
NAME = "label-studio"
# Names below localhost are this machine (RFC 6761), as in a browser.
LOCALHOST = """
import socket
of_old = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    here = str(host).endswith(".localhost")
    return of_old("127.0.0.1" if here else host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="module")
def admin(people: People) -> str:
    return people.add("carl")


@pytest.fixture(scope="module")
def app(people: People, admin: str) -> Iterator[AppCase]:
    ada, bob = people.add("ada"), people.add("bob")
    lab = {"groups": {"imaging": [ada, admin]}, "admins": [admin]}
    with AppPortal(lab, [NAME], {NAME: ["imaging"]}) as portal:
        with portal.program(portal.token(ada)) as program:  # its first start takes a while
            answer = program.get(portal.app_url(NAME, "health"), timeout=300)
            assert answer.status_code == 200, portal.labhub("logs", f"app-{NAME}").stdout
        yield AppCase(
            portal,
            NAME,
            member=ada,
            outsider=bob,
            group="imaging",
            page="projects/",
            says="APP_SETTINGS",
            assets=("static/icons/logo.svg",),
            sets_cookie="projects/",
            whoami="api/current-user/whoami",
        )


class TestLabelStudio(AppContract):
    pass


def person(app: AppCase, name: str) -> Client:
    """Return labkit's client of somebody, as their notebook has it."""

    class Straight(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.create_connection(("127.0.0.1", app.portal.port), 60)

    class Here(Client):
        def _connect(self) -> http.client.HTTPConnection:
            return Straight(f"{NAME}--service.localhost", app.portal.port, timeout=90)

    return Here(app.portal.app_origin(NAME), app.portal.token(name))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three grey pictures of 16 bit, as microscopes make them."""
    folder = tmp_path / "plate"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for number in range(3):
        values = rng.integers(0, 4000, (40, 60)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"site{number}.tif")
    return folder


def started(client: Client, folder: Path, name: str, tool: str = "rectangles") -> Project:
    return make(
        client,
        folder,
        ["round", "long"],
        name=name,
        tool=tool,
        several=False,
        say=lambda _: None,
    )


def test_the_hubs_administrators_are_its_staff_and_nobody_else(app: AppCase, admin: str) -> None:
    for name, staff in ((app.member, False), (admin, True)):
        with app.portal.program(app.portal.token(name)) as program:
            app_page = program.get(app.url("admin/"), follow_redirects=False)
            assert (app_page.status_code == 200) is staff, (name, app_page.status_code)


def test_another_persons_session_is_not_believed(app: AppCase, admin: str) -> None:
    """Its cookie of one person, sent with the login of another, opens nothing of the first."""
    with app.portal.program(app.portal.token(admin)) as program:
        page = program.get(app.url("projects/"))
        stolen = page.cookies.get("label_studio_session") or ""
        assert stolen
    with app.portal.program(app.portal.token(app.member)) as program:
        cookie = {"Cookie": f"label_studio_session={stolen}"}
        who = program.get(app.url("api/current-user/whoami"), headers=cookie).json()
        assert who["username"] == app.member
        assert program.get(app.url("admin/"), headers=cookie).status_code != 200


def test_its_own_doors_are_closed(app: AppCase) -> None:
    """No sign-up, no password, no token of its own: the hub alone says who somebody is."""
    with app.portal.program(app.portal.token(app.member)) as program:
        own = program.post(app.url("api/token/refresh/"), json={"refresh": "x"})
        assert own.status_code in (400, 401, 403)
        key = program.get(app.url("api/current-user/token")).json().get("token", "0" * 40)
    with app.portal.program() as nobody:
        for headers in ({"Authorization": f"Token {key}"}, {"X-Api-Key": key}):
            answer = nobody.get(app.url("api/projects/"), headers=headers)
            assert answer.status_code == 403
        for path in ("user/signup/", "user/login/"):
            answer = nobody.post(app.url(path), data={"email": "a@b.c", "password": "x" * 12})
            assert answer.status_code == 403


def test_pictures_become_a_project_and_answers_a_table(
    app: AppCase, pictures: Path, admin: str
) -> None:
    client = person(app, app.member)
    project = started(client, pictures, "Shapes")
    assert (project.pictures, project.annotated) == (3, 0)
    again = started(client, pictures, "Shapes")
    assert again.number == project.number
    assert again.pictures == 3, "the same pictures came in twice"
    task = next(client.tasks(project.number))
    with app.portal.program(app.portal.token(app.member)) as program:
        shown = program.get(app.portal.app_origin(NAME) + task["data"]["image"])
        assert shown.headers["Content-Type"] == "image/png"
    answer = {
        "result": [
            {
                "from_name": "label",
                "to_name": "image",
                "type": "rectanglelabels",
                "original_width": 60,
                "original_height": 40,
                "value": {
                    **{"x": 10.0, "y": 25.0, "width": 50.0, "height": 50.0, "rotation": 0},
                    "rectanglelabels": ["long"],
                },
            }
        ]
    }
    other = person(app, admin)
    other.ask("POST", f"tasks/{task['id']}/annotations/", answer)
    table = find(client, "Shapes").annotations()
    (row,) = table.to_dict("records")
    assert (row["label"], row["kind"], row["annotator"]) == ("long", "rectangles", admin)
    assert (row["x"], row["y"], row["width"], row["height"]) == (6, 10, 30, 20)
    assert Path(row["file"]).parent == pictures
    assert project.refresh().annotated == 1
    assert "1 of 3" in project._repr_html_()


def test_a_painted_mask_comes_back_as_it_was(app: AppCase, pictures: Path) -> None:
    client = person(app, app.member)
    project = started(client, pictures, "Painted", "brush")
    task = next(client.tasks(project.number))
    truth = np.zeros((40, 60), bool)
    truth[10:20, 30:50] = True
    packed = app.portal.envs / NAME / "bin" / "python"
    code = (
        "import json, numpy, sys\n"
        "from label_studio_sdk.converter.brush import encode_rle\n"
        "mask = numpy.zeros((40, 60, 4), 'uint8'); mask[10:20, 30:50] = 255\n"
        "print(json.dumps([int(v) for v in encode_rle(mask.flatten())]))"
    )
    done = subprocess.run([packed, "-c", code], capture_output=True, text=True, check=True)
    answer = {
        "result": [
            {
                "from_name": "label",
                "to_name": "image",
                "type": "brushlabels",
                "original_width": 60,
                "original_height": 40,
                "value": {
                    "format": "rle",
                    "rle": json.loads(done.stdout.splitlines()[-1]),
                    "brushlabels": ["round"],
                },
            }
        ]
    }
    client.ask("POST", f"tasks/{task['id']}/annotations/", answer)
    ((place, mask),) = project.masks()
    assert (place["label"], place["task"]) == ("round", task["id"])
    assert Path(place["file"]).parent == pictures
    np.testing.assert_array_equal(mask, truth)


def test_what_does_not_fit_is_refused_before_anything_is_made(app: AppCase, pictures: Path) -> None:
    client = person(app, app.member)
    calls: list[Callable[[], object]] = [
        lambda: started(client, pictures / "nowhere", "Missing"),
        lambda: started(client, pictures, "x", "lasso"),
    ]
    for call in calls:
        with pytest.raises(RefusedError):
            call()
    assert not {"Missing", "x"} & {project["title"] for project in client.projects()}
    with pytest.raises(AnnotationError, match="there is no such project"):
        find(client, "Missing")


def test_its_own_sdk_works_with_a_hub_token(app: AppCase, tmp_path: Path) -> None:
    token = app.portal.token(app.member)
    code = (
        "import sys, httpx\n"
        "from label_studio_sdk import LabelStudio\n"
        "port, token = sys.argv[1], sys.stdin.read()\n"
        "class Here(httpx.HTTPTransport):\n"
        "    def handle_request(self, request):\n"
        "        host = request.headers['Host']\n"
        "        request.url = request.url.copy_with(host='127.0.0.1')\n"
        "        request.headers['Host'] = host\n"
        "        return super().handle_request(request)\n"
        f"base = 'http://{NAME}--service.localhost:' + port + '/services/{NAME}'\n"
        "http = httpx.Client(transport=Here(), headers={'Authorization': 'token ' + token})\n"
        "studio = LabelStudio(base_url=base, api_key=token, httpx_client=http)\n"
        "print(studio.users.whoami().username)\n"
    )
    done = subprocess.run(
        [app.portal.envs / NAME / "bin" / "python", "-c", code, str(app.portal.port)],
        input=token,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == app.member, done.stderr


def test_it_tells_its_makers_nothing(app: AppCase) -> None:
    with app.portal.program(app.portal.token(app.member)) as program:
        page = program.get(app.url("projects/")).text
    for word in ("googletagmanager", "ingest.sentry.io", "heidi", "collect_analytics: true"):
        assert word not in page, word


@needs_chromium
def test_two_people_in_a_browser(app: AppCase, pictures: Path, artifacts: Path) -> None:
    """Who is in the group labels pictures from the notebook; who is not does not get in."""
    project = started(person(app, app.member), pictures, "Looked at", "choices")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = log_in(chromium, app.portal, app.member)
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(request.url))
        expect(page.locator("a.card", has_text="Label Studio")).to_be_visible()
        page.goto(app.url(f"projects/{project.number}/data"))
        expect(page.locator("img[src*='/data/upload/']")).to_have_count(3)
        page.screenshot(path=artifacts / "label-studio-tasks.png")
        page.get_by_text("Label All Tasks").first.click()
        page.get_by_text("long").first.click(timeout=60_000)
        page.screenshot(path=artifacts / "label-studio-labelling.png")
        page.get_by_test_id("bottombar-submit-button").click()
        eventually(lambda: project.refresh().annotated == 1, say="the label did not arrive")
        # At its own origin nothing is asked for outside of the app.
        own = [urlsplit(url).path for url in asked if url.startswith(f"http://{NAME}--service.")]
        outside = {path for path in own if not path.startswith(f"/services/{NAME}/")}
        assert outside == set()
        # Of nobody else's: neither telemetry nor tips nor fonts.
        hosts = {urlsplit(url).hostname for url in asked if url.startswith("http")}
        assert {host for host in hosts if not str(host).endswith("localhost")} == set()
        other = log_in(chromium, app.portal, app.outsider)
        assert other.locator("a.card", has_text="Label Studio").count() == 0
        other.goto(app.url(f"projects/{project.number}/data"))
        expect(other.get_by_role("heading", name="You may not open this")).to_be_visible()
        chromium.close()
    (row,) = project.annotations().to_dict("records")
    assert (row["label"], row["annotator"]) == ("long", app.member)


@needs_env("cellprofiler")
@needs_env("notebook")
def test_pictures_of_a_cellprofiler_job_come_with_their_wells(
    app: AppCase, lab_home: Path, tmp_path: Path
) -> None:
    """A real job on a small plate: its outlines are annotated, and the wells come back."""
    images, _ = example.make_plate(tmp_path / "plate", 2, 1)
    job: Any = labkit.CellProfiler(example.ANALYSIS, images).submit(output=str(tmp_path / "runs"))
    job.wait(170)
    client = person(app, app.member)
    project = make(
        client,
        job,
        ["good", "bad"],
        name="Outlines",
        tool="choices",
        several=False,
        say=lambda _: None,
    )
    assert project.pictures == 2
    for task in client.tasks(project.number):
        value = {"choices": ["good" if task["data"]["well"] == "A01" else "bad"]}
        said = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        client.ask("POST", f"tasks/{task['id']}/annotations/", {"result": [said]})
    table = project.annotations().set_index("well").sort_index()
    assert list(table["label"]) == ["good", "bad"]
    assert set(table["plate"]) == {"Plate1"}
    saved = job.images().set_index("well")["path"]
    assert table["file"].to_dict() == saved.to_dict()


@needs_env("notebook")
@pytest.mark.slow
def test_the_tutorial_learns_what_people_say(app: AppCase, tutor: Tutor) -> None:
    (tutor.home / "library" / "sitecustomize.py").write_text(LOCALHOST)
    (tutor.home / "library" / "sitecustomize.py").chmod(0o644)
    checks = "seen = {'scores': scores.mean(), 'right': right, 'labels': len(said)}"
    environment = {
        "LABHUB_SERVICES_URL": app.portal.app_origin(NAME),
        "JUPYTERHUB_API_TOKEN": app.portal.token(app.member),
    }
    seen = tutor.execute("05-annotate.ipynb", checks, environment)
    assert seen["labels"] == 20
    assert seen["scores"] >= 0.9
    assert seen["right"] >= 0.9
    project = find(person(app, app.member), "Round or long")
    assert (project.pictures, project.annotated) == (25, 20)
    assert set(project.annotations()["annotator"]) == {app.member}


def test_annotations_come_back_from_a_backup(app: AppCase, pictures: Path, tmp_path: Path) -> None:
    """Saved while it runs; put back, the project, its picture and who said what are there."""
    client = person(app, app.member)
    project = started(client, pictures, "Kept", "choices")
    tasks = list(client.tasks(project.number))
    value = {"choices": ["round"]}
    said = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
    client.ask("POST", f"tasks/{tasks[0]['id']}/annotations/", {"result": [said]})
    file = tmp_path / "backup.tar.gz"
    app.portal.labhub("backup", str(file))
    client.ask("DELETE", f"projects/{project.number}/")
    app.portal.labhub("down", "--yes")
    app.portal.labhub("restore", "--yes", str(file))
    app.portal.labhub("up")
    with app.portal.program(app.portal.token(app.member)) as program:
        program.get(app.url("health"), timeout=300).raise_for_status()
        shown = program.get(app.portal.app_origin(NAME) + tasks[0]["data"]["image"])
        assert shown.headers["Content-Type"] == "image/png"
    again = find(person(app, app.member), "Kept")
    (row,) = again.annotations().to_dict("records")
    assert (row["label"], row["annotator"]) == ("round", app.member)
