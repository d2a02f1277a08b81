"""The shared spawner: its three doors at a real hub, and how starts go wrong."""

from __future__ import annotations

import asyncio
import html
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from jupyterhub.spawner import Spawner
from tornado.iostream import IOStream

from hub.labfile.schema import Profile, Settings
from hub.spawners.base import LabSpawner, _answers
from hub.spawners.startup import StartError, Startup, ended, tail
from hub.state.paths import Paths
from tests.conftest import needs_root
from tests.support.portal import People, Portal

# -- three doors ----------------------------------------------------------------------

LAB = {
    "groups": {"imaging": []},
    "profiles": [
        {"name": "stub", "title": "Stub", "environment": "stub", "memory": "512M"},
        {"name": "gpu", "title": "GPU", "environment": "stub", "groups": ["imaging"]},
        {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
        {"name": "missing", "title": "Missing", "environment": "never-built"},
    ],
}
HOSTILE: list[tuple[dict[str, Any], int, str]] = [
    ({"profile": "gpu"}, 403, "You may not use the profile 'gpu'"),
    ({"profile": "none"}, 400, "There is no profile 'none'"),
    ({"profile": "stub", "env": "LD_PRELOAD=/tmp/x.so"}, 400, "not 'env'"),
    ({"cmd": "/bin/sh", "args": "--allow-root"}, 400, "not 'args', 'cmd'"),
    ({"profile": "stub; touch /tmp/pwned"}, 400, "There is no profile"),
    ({"profile": "x" * 4000}, 400, "There is no profile 'xxx"),
]
# What only JSON can say.
HOSTILE_JSON: list[tuple[Any, int, str]] = [
    ({"profile": ["stub"]}, 400, "must be one name"),
    ({"profile": {"$gt": ""}}, 400, "must be one name"),
    ({"profile": None}, 400, "must be one name"),
    ({"profile": "x" * 60_000}, 400, "There is no profile 'xxx"),
    ({"environment": {"PATH": "/tmp"}}, 400, "not 'environment'"),
    ({"user_options": {"profile": "stub", "mem_limit": None}}, 400, "not 'mem_limit'"),
    ({"user_options": ["stub"]}, 400, "must be an object"),
    (["stub"], 400, "must be a JSON object"),
]


@pytest.fixture(scope="module")
def doors() -> Iterator[Portal]:
    with Portal(LAB) as running:
        yield running


@pytest.fixture(scope="module")
def eve(people: People, doors: Portal) -> str:
    name = people.add("eve")
    doors.api("POST", f"/users/{name}")
    return name


@pytest.fixture(scope="module")
def page(doors: Portal, eve: str) -> Iterator[httpx.Client]:
    with doors.browser() as browser:
        browser.login(eve)
        assert browser.get("/hub/home").status_code == 200
        yield browser


def nothing_runs(portal: Portal, name: str) -> bool:
    return not portal.api("GET", f"/users/{name}").json()["servers"]


@needs_root
@pytest.mark.parametrize(("options", "status", "says"), HOSTILE)
class TestHostileOptions:
    def test_the_form_refuses(
        self, doors: Portal, page: Any, eve: str, options: Any, status: int, says: str
    ) -> None:
        answer = page.post("/hub/spawn", data={**options, "_xsrf": page.xsrf})
        self.is_refused(answer, status, says)
        assert 'id="spawn_form"' in answer.text  # and one can choose again at once
        assert nothing_runs(doors, eve)

    def test_the_query_refuses(
        self, doors: Portal, page: Any, eve: str, options: Any, status: int, says: str
    ) -> None:
        self.is_refused(page.get("/hub/spawn", params=options), status, says)
        prefixed = {f"opt-{key}": value for key, value in options.items()}
        self.is_refused(page.get("/hub/spawn", params=prefixed), status, says)
        assert nothing_runs(doors, eve)

    def test_the_api_refuses_and_stores_nothing(
        self, doors: Portal, eve: str, options: Any, status: int, says: str
    ) -> None:
        answer = doors.api("POST", f"/users/{eve}/server", json=options)
        assert answer.status_code == status
        assert says in answer.json()["message"]
        assert "You can choose: stub, dies, missing." in answer.json()["message"]
        assert nothing_runs(doors, eve)
        stored = doors.api("GET", f"/users/{eve}?include_stopped_servers").json()["servers"][""]
        assert set(stored["user_options"]) <= {"profile"}
        assert stored["user_options"].get("profile") in (None, "stub", "dies", "missing")

    @staticmethod
    def is_refused(answer: httpx.Response, status: int, says: str) -> None:
        text = html.unescape(answer.text)
        assert answer.status_code == status
        assert says in text
        assert "You can choose: stub, dies, missing." in text


@needs_root
@pytest.mark.parametrize(("body", "status", "says"), HOSTILE_JSON)
def test_the_api_refuses_wrong_types(
    doors: Portal, eve: str, body: Any, status: int, says: str
) -> None:
    answer = doors.api("POST", f"/users/{eve}/server", json=body)
    assert answer.status_code == status
    assert says in answer.json()["message"]
    assert nothing_runs(doors, eve)


@needs_root
def test_options_stored_behind_the_doors_back_are_judged_at_the_start(
    doors: Portal, people: People
) -> None:
    name = people.add("pat")
    doors.api("POST", f"/users/{name}")
    answer = doors.api("PATCH", f"/users/{name}/server", json={"user_options": {"cmd": "sh"}})
    assert answer.status_code == 200
    answer = doors.api("POST", f"/users/{name}/server")
    assert answer.status_code == 400
    assert "not 'cmd'" in answer.json()["message"]
    assert nothing_runs(doors, name)
    assert doors.api("POST", f"/users/{name}/server").status_code == 201  # they are gone
    doors.stop_server(name)


@needs_root
def test_a_member_of_the_group_may_use_its_profile(doors: Portal, people: People) -> None:
    name = people.add("img")
    doors.api("POST", f"/users/{name}")
    doors.api("POST", "/groups/imaging/users", json={"users": [name]})
    doors.spawn(name, "gpu")
    assert "gpu" in doors.run(name, "import os; print(os.environ['LABHUB_PROFILE'])")
    doors.stop_server(name)


@needs_root
def test_the_choice_is_remembered_and_a_vanished_one_falls_back(
    doors: Portal, people: People
) -> None:
    name = people.add("mem")
    doors.api("POST", f"/users/{name}")
    doors.api("POST", "/groups/imaging/users", json={"users": [name]})
    doors.spawn(name, "gpu")
    doors.stop_server(name)
    doors.api("DELETE", "/groups/imaging/users", json={"users": [name]})
    assert doors.api("POST", f"/users/{name}/server").status_code == 201
    assert "stub" in doors.run(name, "import os; print(os.environ['LABHUB_PROFILE'])")
    assert "Your last choice is not on offer: You may not use the profile" in doors.hub_log()
    doors.stop_server(name)


@needs_root
def test_the_server_gets_the_settled_environment(doors: Portal, eve: str) -> None:
    doors.spawn(eve)
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    env = json.loads(doors.run(eve, code))
    doors.stop_server(eve)
    assert env["LABHUB_LAB_NAME"] == "Test lab"
    assert env["LABHUB_CULL_IDLE_SECONDS"] == "7200"
    assert env["LABHUB_MEMORY_BYTES"] == str(512 << 20)
    assert env["LABHUB_PROFILE"] == "stub"
    assert env["JUPYTER_RUNTIME_DIR"] == "/tmp/jupyter-runtime"  # a full home locks nobody out
    assert env["LABHUB_ENVS"] == str(doors.envs)
    assert Path(env["LABHUB_TUTORIALS"]).name == "tutorials"
    assert env["OMP_NUM_THREADS"] == "1"  # the profile's cores, not the machine's
    assert "CONFIGPROXY_AUTH_TOKEN" not in env
    assert "TEST_ADMIN_TOKEN" not in env


@needs_root
def test_a_server_that_dies_says_why_soon_and_through_the_api(doors: Portal, eve: str) -> None:
    answer = doors.api("POST", f"/users/{eve}/server", json={"profile": "dies"})
    assert answer.status_code == 500  # JupyterHub alone: 202, after 10 s, then InvalidStateError
    assert "exit status 3" in answer.json()["message"]
    assert "the disk is on fire" in answer.json()["message"]
    assert "InvalidStateError" not in doors.hub_log()


@needs_root
def test_a_test_that_waits_in_vain_is_told_of_the_server_and_not_of_requests(
    doors: Portal, people: People
) -> None:
    name = people.add("late")
    with pytest.raises(RuntimeError, match="is not ready after 0 s") as caught:
        doors.spawn(name, timeout=0)
    start, server, hub = str(caught.value).split("--- ")[1:]
    assert start.startswith("its start\n{")
    assert f"/user/{name}/" in start
    assert server == "the server's log\nstub server starts\n\n"
    assert hub.startswith("the hub's log\n")
    assert " 200 GET " in doors.hub_log()
    assert " 200 GET " not in hub
    doors.stop_server(name)
    with pytest.raises(RuntimeError, match="the disk is on fire"):
        doors.spawn(name, "dies")


@needs_root
def test_no_token_outlives_its_server(doors: Portal, people: People) -> None:
    name = people.add("tok")

    def tokens() -> int:
        return len(doors.api("GET", f"/users/{name}/tokens").json()["api_tokens"])

    doors.spawn(name)
    assert tokens() == 1
    doors.stop_server(name)
    assert tokens() == 0
    assert doors.api("POST", f"/users/{name}/server", json={"profile": "dies"}).is_error
    assert tokens() == 0
    doors.spawn(name)
    with pytest.raises(ValueError):  # the proxy answers, and not in JSON
        doors.run(name, "import os; os._exit(1)")
    doors.stop_server(name)
    assert tokens() == 0
    doors.spawn(name)
    doors.restart_hub()
    assert tokens() == 1
    doors.stop_server(name)
    assert tokens() == 0


@needs_root
def test_an_environment_that_is_not_built_is_named(doors: Portal, eve: str) -> None:
    answer = doors.api("POST", f"/users/{eve}/server", json={"profile": "missing"})
    assert answer.status_code == 503
    assert "'never-built'" in answer.json()["message"]
    assert "labhub up" in answer.json()["message"]
    assert str(doors.envs) not in answer.json()["message"]


# -- starting, without a hub ----------------------------------------------------------


class Inner(Spawner):
    """Stands for a target's spawner."""

    address: Any = ("127.0.0.1", 1)
    status: int | None = None
    error: Exception | None = None

    async def start(self) -> Any:
        if self.error:
            raise self.error
        return self.address

    async def poll(self) -> int | None:
        return self.status

    async def stop(self, now: bool = False) -> None:
        pass


class Both(LabSpawner, Inner):
    server = SimpleNamespace(base_url="/user/ada/")


@pytest.fixture
def spawner(tmp_path: Path) -> Both:
    command = tmp_path / "envs" / "notebook" / "bin" / "jupyterhub-singleuser"
    command.parent.mkdir(parents=True)
    command.touch()
    both = Both(
        settings=Settings(profiles=(Profile(name="a", title="A"), Profile(name="b", title="B"))),
        paths=Paths(state=tmp_path / "state", envs=tmp_path / "envs"),
        user=SimpleNamespace(name="ada", admin=False, groups=[]),
        orm_spawner=SimpleNamespace(user_options={}, name="", server=None),
    )
    both.log_file.parent.mkdir(parents=True)
    both.apply({"profile": "a"})
    return both


@pytest.fixture
async def listening() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_start_ends_when_the_server_answers(spawner: Both, listening: int) -> None:
    spawner.address = ("127.0.0.1", listening)
    assert await spawner.start() == ("127.0.0.1", listening)
    spawner.address = f"http://127.0.0.1:{listening}"
    assert await spawner.start() == spawner.address
    assert [p.text for p in spawner.startup.phases][-1] == "The server is ready"  # type: ignore[union-attr]


async def test_a_death_is_seen_and_its_log_quoted(spawner: Both) -> None:
    spawner.log_file.write_text("Traceback\nOSError: <no space> left\n")
    spawner.status = -9
    with pytest.raises(StartError) as caught:
        await spawner.start()
    assert "SIGKILL" in caught.value.message
    assert "too much memory" in caught.value.message
    assert "OSError: <no space> left" in caught.value.jupyterhub_message
    assert "OSError: &lt;no space&gt; left" in caught.value.jupyterhub_html_message


async def test_what_a_target_raises_becomes_a_reason(spawner: Both) -> None:
    spawner.error = RuntimeError("nft: not found; install nftables")
    with pytest.raises(StartError, match="nft: not found; install nftables"):
        await spawner.start()
    spawner.error = StartError("not for you", status_code=403, reason="account")
    with pytest.raises(StartError) as caught:
        await spawner.start()
    assert (caught.value.status_code, caught.value.reason) == (403, "account")


async def test_who_hangs_up_before_tls_does_not_answer_yet(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server that is just starting may, or ending: the look is made again."""
    hung_up = []
    start_tls = IOStream.start_tls

    def after_the_other_end(stream: IOStream, *words: Any, **options: Any) -> Any:
        stream.close()
        hung_up.append(stream)
        return start_tls(stream, *words, **options)

    monkeypatch.setattr(IOStream, "start_tls", after_the_other_end)
    url = f"https://127.0.0.1:{listening}/"
    assert not await _answers("127.0.0.1", listening, url, ssl.create_default_context())
    assert hung_up


async def test_a_server_that_never_answers_is_given_up_with_a_reason(spawner: Both) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spawner.address = silent.getsockname()
        spawner.start_timeout = 2
        with pytest.raises(StartError, match="did not answer within 2 seconds"):
            await spawner.start()


def test_the_command_is_the_environments_and_nothing_of_the_options(spawner: Both) -> None:
    assert spawner.cmd == [str(spawner.paths.envs / "notebook/bin/jupyterhub-singleuser")]
    assert spawner.mem_limit == 2 << 30


def test_refused_options_leave_what_was_stored(spawner: Both) -> None:
    spawner.user_options = spawner.orm_spawner.user_options = {"cmd": "sh"}
    with pytest.raises(StartError):
        spawner.apply({"cmd": "sh"})
    assert spawner.orm_spawner.user_options == {"profile": "a"}
    assert spawner.profile is None


def test_log_names_cannot_leave_their_folder(spawner: Both) -> None:
    spawner.user.name = "../../etc/x"
    assert spawner.log_file.parent == spawner.paths.log / "servers"


# -- what is told meanwhile -----------------------------------------------------------


def test_a_tail_is_bounded_and_harmless(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\n\x1b[31mred\x1b[0m \x07bell \xff\n" + b"y" * 5000 + b"\n")
    shown = tail(log)
    assert "red bell" in shown
    assert "\x1b" not in shown
    assert all(len(line) <= 400 for line in shown.splitlines())
    log.write_text("".join(f"line {i}\n" for i in range(1000)))
    assert tail(log).splitlines()[0] == "line 975"
    assert tail(log).splitlines()[-1] == "line 999"


def test_a_tail_begins_with_this_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("an earlier run\n")
    start = log.stat().st_size
    with log.open("a") as stream:
        stream.write("this run\n")
    assert tail(log, start) == "this run"
    log.write_text("rotated\n")
    assert tail(log, start) == "rotated"


@pytest.mark.parametrize(
    ("status", "says"), [(0, "status 0"), (3, "status 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_an_end_in_words(status: int, says: str) -> None:
    assert says in ended(status)


async def test_a_late_watcher_hears_all_phases_then_the_new_ones(tmp_path: Path) -> None:
    startup = Startup(tmp_path / "log")
    startup.say("one")
    startup.say("two")
    events = startup.events()
    first = [await anext(events), await anext(events)]
    assert [e["message"] for e in first] == ["one", "two"]
    assert first[0]["progress"] < first[1]["progress"] < 100
    (tmp_path / "log").write_text("hello\n")
    startup.say("three")
    assert (await anext(events))["log"] == "hello"
    assert (await anext(events))["message"] == "three"
    waiting = asyncio.ensure_future(anext(events))
    (tmp_path / "log").write_text("hello\nagain\n")
    assert (await asyncio.wait_for(waiting, 3))["log"] == "hello\nagain"
    await events.aclose()


async def test_a_watcher_hears_that_the_hub_lives_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.spawners.startup.HEARTBEAT", 0.05)
    monkeypatch.setattr("hub.spawners.startup.LOG_INTERVAL", 0.02)
    events = Startup(tmp_path / "log").events()
    assert set(await asyncio.wait_for(anext(events), 2)) == {"elapsed"}
    await events.aclose()
