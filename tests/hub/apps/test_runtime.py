"""What every runtime of apps does, whatever runs them: the supervisor's, and one in memory."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest

from hub.apps import catalogue
from hub.apps.app_paths import AppPaths
from hub.apps.catalogue import App, Choice
from hub.apps.runtime import AppRuntime, AppRuntimeError, AppStatus
from hub.apps.supervised import SupervisedApps
from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from hub.supervisor.client import Supervisor
from hub.supervisor.programs import SECTION, dump
from tests.support.memory_apps import MemoryApps

DOES = {"waits": "exec sleep 600", "fails": "exit 3", "ends": "exit 0"}


class Scene(ABC):
    """A portal with a runtime, whose apps do what the tests say."""

    def __init__(self, runtime: AppRuntime) -> None:
        self.runtime = runtime

    @abstractmethod
    def declare(self, name: str, behaviour: str) -> None:
        """Let the portal have an app of a behaviour."""

    @abstractmethod
    def withdraw(self, name: str) -> None:
        """Take an app away."""

    @abstractmethod
    def switch(self, *, on: bool) -> None:
        """Bring the portal down, or up again."""


class InMemory(Scene):
    runtime: MemoryApps

    def declare(self, name: str, behaviour: str) -> None:
        self.runtime.behaviour[name] = behaviour

    def withdraw(self, name: str) -> None:
        del self.runtime.behaviour[name]

    def switch(self, *, on: bool) -> None:
        self.runtime.up = on


class ShellApps(SupervisedApps):
    """The supervisor's, with a shell's words instead of a sandbox."""

    def supervised(self) -> dict[str, dict[str, str]]:
        programs = super().supervised()
        for name, section in programs.items():
            app = name.removeprefix("app-")
            does = (AppPaths(self.paths).own / app / "does").read_text()
            words = ["sh", "-c", f"echo hello from {app}; {does}"]
            section["command"] = shlex.join(words)
        return programs


class BySupervisor(Scene):
    def __init__(self, paths: Paths) -> None:
        settings = Settings()
        super().__init__(ShellApps(settings, paths, PortalAddresses.of_one_host(settings)))
        self.paths = paths
        self.supervisor = Supervisor(paths)
        config = RawConfigParser()
        config["unix_http_server"] = {"file": str(self.supervisor.socket), "chmod": "0700"}
        config["supervisord"] = {
            "logfile": str(paths.log / "supervisor.log"),
            "pidfile": str(paths.run / "supervisord.pid"),
            "childlogdir": str(paths.log),
        }
        factory = "supervisor.rpcinterface:make_main_rpcinterface"
        config["rpcinterface:supervisor"] = {"supervisor.rpcinterface_factory": factory}
        config[f"{SECTION}hub"] = {"command": "sleep 600"}
        self.supervisor.write(dump(config))

    def declare(self, name: str, behaviour: str) -> None:
        folder = AppPaths(self.paths).own / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "service.yaml").write_text("title: A\ncommand: [a]\n")
        (folder / "does").write_text(DOES[behaviour])

    def withdraw(self, name: str) -> None:
        (AppPaths(self.paths).own / name / "service.yaml").unlink()

    def switch(self, *, on: bool) -> None:
        if on:
            self.supervisor.launch()
        else:
            self.supervisor.shutdown()


@contextlib.contextmanager
def by_supervisor() -> Iterator[Scene]:
    with (
        tempfile.TemporaryDirectory() as folder,  # a socket's path must be short
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(AppPaths, "make", lambda _: None)  # no accounts
        patch.setattr(AppPaths, "make_app", lambda *_: None)
        patch.setattr(AppPaths, "account", lambda *_: "nobody")
        paths = Paths(Path(folder), Path(folder))
        for place in (paths.run, paths.log, AppPaths(paths).gate_file.parent):
            place.mkdir()
        for name in catalogue.shipped():
            catalogue.choose(paths, name, Choice(on=False))
        scene = BySupervisor(paths)
        scene.switch(on=True)
        try:
            yield scene
        finally:
            scene.switch(on=False)


@contextlib.contextmanager
def in_memory() -> Iterator[Scene]:
    yield InMemory(MemoryApps())


@pytest.fixture(scope="module", params=[in_memory, by_supervisor])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    make: Any = request.param
    with make() as made:
        made.declare("waits", "waits")
        made.declare("fails", "fails")
        made.declare("ends", "ends")
        assert made.runtime.follow()
        yield made


def reaches(state: str, ask: Callable[[], AppStatus]) -> AppStatus:
    end = time.monotonic() + 60
    while (status := ask()).state != state:
        assert time.monotonic() < end, status
        time.sleep(0.02)
    return status


def prints(text: str, ask: Callable[[], str]) -> None:
    end = time.monotonic() + 60
    while text not in ask():
        assert time.monotonic() < end, ask()
        time.sleep(0.02)


def test_an_app_is_started_and_stopped_as_often_as_it_is_asked_for(scene: Scene) -> None:
    runtime = scene.runtime
    assert runtime.status("waits") == runtime.statuses()["waits"] == AppStatus("stopped")
    before = time.time() - 2  # the supervisor counts whole seconds
    for _ in range(2):
        runtime.start("waits")
        status = reaches("running", lambda: runtime.status("waits"))
    assert status.since and before <= status.since <= time.time()
    for _ in range(2):
        runtime.stop("waits")
        assert runtime.status("waits") == AppStatus("stopped")


@pytest.mark.parametrize(("name", "state"), [("fails", "failed"), ("ends", "stopped")])
def test_an_app_that_ended_by_itself_says_how_and_may_be_started_again(
    scene: Scene, name: str, state: str
) -> None:
    for _ in range(2):
        scene.runtime.start(name)
        assert reaches(state, lambda: scene.runtime.status(name)) == AppStatus(state)  # type: ignore[arg-type]


def test_what_an_app_prints_is_kept_until_it_is_deleted(scene: Scene) -> None:
    runtime = scene.runtime
    scene.declare("talks", "waits")
    assert runtime.follow()
    assert runtime.log("talks", 5) == ""
    runtime.start("talks")
    prints("hello from talks", lambda: runtime.log("talks", 5))
    assert "talks" not in runtime.log("fails", 100)
    runtime.stop("talks")
    runtime.start("talks")
    prints("hello from talks\nhello from talks", lambda: runtime.log("talks", 5))
    assert runtime.log("talks", 1).strip() == "hello from talks"
    scene.withdraw("talks")
    assert runtime.follow()
    assert runtime.log("talks", 5)
    runtime.delete_log("talks")
    assert runtime.log("talks", 5) == ""


def test_each_app_has_one_address_of_its_own(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("title: A\ncommand: [a]\n")
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "service.yaml").write_text("title: A\ncommand: [a]\nlisten: port\n")
    one = catalogue.load("one", tmp_path, Settings(), own=True)
    two = App("two", tmp_path, one.service, (), own=True)
    other = catalogue.load("other", tmp_path / "port", Settings(), own=True)
    addresses = [scene.runtime.address(app) for app in (one, two, other)]
    for address in addresses:
        assert bool(address.socket) != bool(address.address_file)
    assert len({(address.socket, address.address_file) for address in addresses}) == 3


def test_what_is_declared_and_withdrawn_is_followed(scene: Scene) -> None:
    runtime = scene.runtime
    scene.declare("later", "waits")
    with pytest.raises(AppRuntimeError):
        runtime.start("later")
    assert runtime.follow()
    runtime.start("later")
    reaches("running", lambda: runtime.status("later"))
    scene.withdraw("later")
    assert runtime.follow()
    assert "later" not in runtime.statuses()
    for ask in (runtime.start, runtime.stop):
        with pytest.raises(AppRuntimeError, match="later"):
            ask("later")


def test_a_portal_that_is_down_is_no_crash(scene: Scene) -> None:
    runtime = scene.runtime
    scene.switch(on=False)
    assert runtime.follow() is False
    assert runtime.statuses() == {}
    assert runtime.status("waits") == AppStatus("stopped")
    for ask in (runtime.start, runtime.stop):
        with pytest.raises(AppRuntimeError, match="waits"):
            ask("waits")
    scene.switch(on=True)
    assert runtime.follow()
    runtime.start("waits")
    reaches("running", lambda: runtime.status("waits"))
