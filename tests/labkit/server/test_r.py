"""R in a real Jupyter server: the kernel draws, and Shiny apps run behind it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import psutil
import pytest

from labkit.server import previews
from tests.labkit.server.conftest import BASE, FOREIGN, TOKEN, Server, kernel_run, knock, wait_for

HAS_R = shutil.which("Rscript") and Path("/usr/lib/R/site-library/shiny").is_dir()
needs_r = pytest.mark.skipif(
    not HAS_R, reason="needs R and Shiny: apt-get install -y $(cat images/r/apt.txt)"
)
FOLDER = 'it\'s my "first" app'
APP = """
library(shiny)
writeLines(c(Sys.getpid(), names(Sys.getenv())), "told.txt")
ui <- fluidPage(
  h1("Cells"),
  sliderInput("n", "Number", 1, 100, 10),
  textOutput("doubled")
)
server <- function(input, output) output$doubled <- renderText(paste("twice:", 2 * input$n))
shinyApp(ui, server)
"""


def write_app(home: Path) -> Path:
    """Write the app into a home; return its folder."""
    folder = home / FOLDER
    folder.mkdir()
    (folder / "app.R").write_text(APP)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    write_app(running.home)
    for name, text in {
        "broken/app.R": "stop('no such column: dose')",
        "lacking/app.R": "library(notThere)",
        "single.R": "shiny::shinyApp(shiny::h1('Alone'), function(input, output) {})",
        "renv/library/x/app.R": "",
        "R/x86_64-pc-linux-gnu-library/4.2/shiny/app.R": "",
        ".hidden/app.R": "",
    }.items():
        (running.home / name).parent.mkdir(parents=True, exist_ok=True)
        (running.home / name).write_text(text)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def begin(client: httpx.Client, path: str) -> dict[str, str]:
    """Begin a preview and wait until it runs or has failed."""
    answer = client.post("labkit/api/shiny/open", json={"path": path})
    assert answer.status_code == 202, answer.text
    name = answer.json()["id"]

    def settled() -> dict[str, str] | None:
        shown = client.get(f"labkit/api/shiny/open/{name}").json()
        return None if shown["state"] == "starting" else dict(shown)

    return dict(wait_for(settled, timeout=60))


@pytest.fixture(scope="module")
def running(server: Server) -> str:
    """The address of a running preview."""
    with server.client() as client:
        shown = begin(client, FOLDER)
    assert shown["state"] == "running", shown
    return f"labkit/shiny/{shown['id']}/"


@needs_r
def test_the_r_kernel_draws(server: Server) -> None:
    with server.client() as client:
        assert client.get("api/kernelspecs").json()["kernelspecs"]["ir"]["spec"]["language"] == "R"
        kernel = client.post("api/kernels", json={"name": "ir"}).json()["id"]
        channel = kernel_run(server, kernel, "plot(1:10); cat(6 * 7)")
        seen = []
        idle = replied = False  # in either order: they come by two ways
        try:
            while not (idle and replied):
                message = json.loads(channel.recv())
                if message["parent_header"].get("msg_type") != "execute_request":
                    continue
                seen.append(message)
                if message["msg_type"] == "execute_reply":
                    assert message["content"]["status"] == "ok", message
                    replied = True
                idle = idle or message["content"].get("execution_state") == "idle"
        finally:
            channel.close()
            client.delete(f"api/kernels/{kernel}")
    pictures = [one["content"]["data"] for one in seen if one["msg_type"] == "display_data"]
    assert base64.b64decode(pictures[0]["image/png"]).startswith(b"\x89PNG")
    assert any(one["content"].get("text") == "42" for one in seen)


@needs_r
def test_apps_of_the_home_are_found(server: Server) -> None:
    with server.client() as client:
        answer = client.get("labkit/api/shiny/apps").json()
    assert {one["path"] for one in answer["apps"]} == {
        f"{FOLDER}/app.R",
        "broken/app.R",
        "lacking/app.R",
    }


@needs_r
def test_an_app_runs_behind_the_server(server: Server, running: str) -> None:
    with server.client() as client:
        page = client.get(running)
        assert "Cells" in page.text
        assert client.get(f"{running}shared/shiny.min.js").status_code == 200
        assert client.get(running.rstrip("/")).headers["Location"] == BASE + running
        listed = client.get("labkit/api/shiny/apps").json()["previews"]
        assert [one["path"] for one in listed] == [FOLDER]
        again = client.post("labkit/api/shiny/open", json={"path": f"{FOLDER}/app.R"}).json()
        assert again["id"] in running


@needs_r
async def test_it_answers_on_its_websocket(server: Server, running: str) -> None:
    headers = {"Authorization": f"token {TOKEN}"}
    place = f"{server.base}{running}websocket/"
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(headers=headers) as browser,
        browser.ws_connect(place) as ws,
    ):
        data = {"n": 21, ".clientdata_output_doubled_hidden": False}
        await ws.send_str(json.dumps({"method": "init", "data": data}))
        while "twice: 42" not in await ws.receive_str():
            pass


@needs_r
def test_it_listens_for_its_owner_alone(server: Server, running: str) -> None:
    pid, *names = (server.home / FOLDER / "told.txt").read_text().split()
    app = psutil.Process(int(pid))
    assert app.net_connections("inet") == []
    place = next(Path(word) for word in app.cmdline() if "labkit-shiny-" in word)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert place.stat().st_mode & 0o077 == 0
    if os.geteuid() == 0:
        assert knock(place) == "PermissionError"
        assert knock(place, "root") == "open"
    assert "HOME" in names
    assert not [name for name in names if name.startswith(("JUPYTER", "JPY_"))]


@needs_r
async def test_strangers_do_not_reach_it(server: Server, running: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = httpx.request(method, server.base + running)
        assert answer.status_code in (302, 403)
        assert "Cells" not in answer.text
    async with aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(f"{server.base}{running}websocket/")
        assert refused.value.status == 403
    for method, path in (
        ("GET", "labkit/shiny/"),
        ("GET", "labkit/api/shiny/apps"),
        ("POST", "labkit/api/shiny/open"),
        ("GET", f"labkit/api/shiny/open/{'0' * 16}"),
        ("DELETE", f"labkit/api/shiny/open/{'0' * 16}"),
    ):
        assert httpx.request(method, server.base + path, json={}).status_code in (302, 403)


@needs_r
@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_foreign_page_cannot_act_in_a_preview(
    server: Server, running: str, headers: dict[str, str]
) -> None:
    with server.cookie_client() as victim:
        answer = victim.post(f"{running}upload", content=b"x=1", headers=headers)
        assert answer.status_code == 403
        assert "another page" in answer.text
        cookies = "; ".join(f"{name}={value}" for name, value in victim.cookies.items())
    url = f"{server.base}{running}websocket/".replace("http://", "ws://")
    given = {name: value for name, value in headers.items() if name == "Origin"}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url, headers={**given, "Cookie": cookies})
    assert refusal.value.status == 403


@needs_r
def test_one_file_runs_alone_and_is_stopped(server: Server) -> None:
    with server.client() as client:
        shown = begin(client, "single.R")
        place = f"labkit/shiny/{shown['id']}/"
        assert "Alone" in client.get(place).text
        assert client.delete(f"labkit/api/shiny/open/{shown['id']}").status_code == 204
        wait_for(lambda: client.get(place).status_code == 404)
        assert client.delete(f"labkit/api/shiny/open/{shown['id']}").status_code == 204


@needs_r
@pytest.mark.parametrize(
    ("path", "log", "advice"),
    [
        ("broken", "no such column: dose", "Mend what R complains of"),
        ("lacking", "notThere", 'install.packages("notThere")'),
    ],
)
def test_what_does_not_start_says_why(server: Server, path: str, log: str, advice: str) -> None:
    with server.client() as client:
        shown = begin(client, path)
    assert shown["state"] == "failed"
    assert log in shown["log"]
    assert advice in shown["advice"]


@needs_r
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nowhere/app.R", 404),
        ("R", 400),
        (f"{FOLDER}/told.txt", 400),
        ("", 400),
        ("a\0b", 400),
        ("x" * 5000, 400),
        ("x" * 300, 400),
        ("~nobody-of-this-name/app.R", 400),
        (7, 400),
        (None, 400),
    ],
)
def test_what_is_no_app_is_refused(server: Server, running: str, path: object, status: int) -> None:
    with server.client() as client:
        answer = client.post("labkit/api/shiny/open", json={"path": path})
    assert answer.status_code == status
    assert answer.json()["message"]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for R: listens as an app does, with a child, and cannot be asked to end."""
    program = tmp_path / "Rscript"
    program.write_text(
        "#!/usr/bin/python3\n"
        "import signal, socket, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print('child', child.pid, flush=True)\n"
        "door = socket.socket(socket.AF_UNIX)\n"
        "door.bind(sys.argv[3])\n"
        "door.listen()\n"
        "signal.pause()\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(previews, "program", lambda: str(program))
    monkeypatch.setattr(previews, "_TIMEOUT", 0.3)
    return tmp_path


async def until(preview: previews.Preview, state: str) -> None:
    async with asyncio.timeout(20):
        while preview.state != state:
            await asyncio.sleep(0.02)


async def test_previews_are_few_and_end_with_the_server(stub: Path) -> None:
    running = previews.Previews()
    started = [running.begin(stub / str(number)) for number in range(4)]
    assert running.begin(stub / "0") is started[0]
    with pytest.raises(previews.TooManyError, match="stop one of them"):
        running.begin(stub / "4")
    for preview in started:
        await until(preview, "running")
    child = psutil.Process(int(started[0].log.split()[1]))
    await running.stop(started[0])  # TERM is not enough for it
    await until(started[0], "ended")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not started[0].socket.parent.exists()
    fifth = running.begin(stub / "4")
    await running.close()
    assert {one.state for one in running.all()} <= {"ended", "failed"}
    assert not fifth.socket.parent.exists()


async def test_only_the_last_ones_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "program", lambda: "/nonexistent")
    running = previews.Previews()
    for number in range(30):
        preview = running.begin(tmp_path / str(number))
        await until(preview, "failed")
        assert "nonexistent" in preview.log
    assert len(running.all()) == 20
    assert running.all()[-1] is preview


def test_a_socket_finds_room_below_a_long_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = previews._folder()
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(folder / "s"))
    finally:
        shutil.rmtree(folder)


@needs_r
def test_apps_end_with_their_server(server: Server, running: str) -> None:
    with server.client() as client:
        assert client.get(running).status_code == 200
    app = psutil.Process(int((server.home / FOLDER / "told.txt").read_text().split()[0]))
    server.stop()  # the last test of this file
    wait_for(lambda: not app.is_running())
