"""The supervisor's client, with a real supervisord."""

from __future__ import annotations

import contextlib
import tempfile
import xmlrpc.client
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest

from hub.state.paths import Paths
from hub.supervisor.client import Supervisor
from hub.supervisor.programs import SECTION, dump

CHANGED = "stopped; it starts anew when it is opened"


def program(seconds: int, **more: str) -> dict[str, str]:
    return {"command": f"sleep {seconds}", "startsecs": "0", **more}


@contextlib.contextmanager
def running() -> Iterator[Supervisor]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        paths = Paths(Path(folder), Path(folder))
        paths.run.mkdir()
        paths.log.mkdir()
        one = Supervisor(paths)
        config = RawConfigParser()
        config["unix_http_server"] = {"file": str(one.socket), "chmod": "0700"}
        config["supervisord"] = {
            "logfile": str(paths.log / "supervisor.log"),
            "pidfile": str(paths.run / "supervisord.pid"),
            "childlogdir": str(paths.log),
        }
        factory = "supervisor.rpcinterface:make_main_rpcinterface"
        config["rpcinterface:supervisor"] = {"supervisor.rpcinterface_factory": factory}
        config[f"{SECTION}hub"] = program(600)
        config[f"{SECTION}app-plates"] = program(600)
        config[f"{SECTION}app-doses"] = program(600)
        one.write(dump(config))
        one.launch()
        try:
            yield one
        finally:
            one.shutdown()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with running() as one:
        yield one


def test_no_program_inherits_the_databases_password(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "nobody-else-knows"
    monkeypatch.setenv("LABHUB_DATABASE_PASSWORD", secret)
    with running() as one:
        pids = [one.pid(), *(program.pid for program in one.info().values())]
        assert len(pids) == 4
        for pid in pids:
            variables = Path("/proc", str(pid), "environ").read_bytes()
            assert b"PATH=" in variables
            assert secret.encode() not in variables


def written(supervisor: Supervisor) -> dict[str, dict[str, str]]:
    config = RawConfigParser()
    config.read_string(supervisor.config.read_text())
    return {name: dict(config[name]) for name in config.sections()}


def test_changes_of_apps_are_taken_up_and_the_portals_programs_left_alone(
    supervisor: Supervisor,
) -> None:
    before = supervisor.info()
    # A lab file that `up` has not taken up yet: nobody's server may suffer from an app's change.
    text = supervisor.config.read_text()
    supervisor.write(
        text.replace("program:hub]\ncommand = sleep 600", "program:hub]\ncommand = sleep 9")
    )
    assert written(supervisor)["program:hub"]["command"] == "sleep 9"
    apps = {
        "app-plates": program(500, autostart="false"),
        "app-doses": program(600),
        "app-new": program(600, autostart="false"),
    }
    assert supervisor.follow_apps(apps) == {"app-plates": CHANGED}
    after = supervisor.info()
    assert {name: one.state for name, one in after.items()} == {
        "hub": "RUNNING",
        "app-plates": "STOPPED",
        "app-doses": "RUNNING",
        "app-new": "STOPPED",
    }
    assert (after["hub"].pid, after["app-doses"].pid) == (
        before["hub"].pid,
        before["app-doses"].pid,
    )
    assert written(supervisor)["program:hub"]["command"] == "sleep 9"  # for the next `up`
    assert written(supervisor)["program:app-plates"] == apps["app-plates"]


def test_apps_that_are_gone_leave_the_configuration_as_it_would_be_without_them(
    supervisor: Supervisor,
) -> None:
    config = RawConfigParser()
    config.read_string(supervisor.config.read_text())
    for name in ("app-plates", "app-doses"):
        config.remove_section(f"{SECTION}{name}")
    assert supervisor.follow_apps({}) == {}
    assert supervisor.config.read_text() == dump(config)
    assert set(supervisor.info()) == {"hub"}


def test_a_configuration_that_is_gone_is_not_replaced_by_one_of_the_apps_alone(
    supervisor: Supervisor,
) -> None:
    text = supervisor.config.read_text()
    supervisor.config.unlink()
    with pytest.raises(FileNotFoundError):
        supervisor.follow_apps({})
    assert set(supervisor.info()) == {"hub", "app-plates", "app-doses"}
    supervisor.write(text)


def test_a_program_that_has_ended_before_the_answer_was_started(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor calls it an error of the start; that it failed is its state's to say."""

    def call(_: Supervisor, name: str, *words: object) -> None:
        raise xmlrpc.client.Fault(50 if words[0] == "quick" else 10, f"{answers[words[0]]}: {name}")

    answers: dict[object, str] = {"quick": "SPAWN_ERROR", "unknown": "BAD_NAME"}
    monkeypatch.setattr(Supervisor, "_call", call)
    supervisor.start(["quick"])
    with pytest.raises(xmlrpc.client.Fault, match="BAD_NAME"):
        supervisor.start(["unknown"])
