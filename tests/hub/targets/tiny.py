"""A third target, as small as one can be: plain processes, named by a lab file of target eks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jupyterhub.spawner import LocalProcessSpawner
from traitlets.config import Config

from hub.apps.runtime import AppRuntime
from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Profile
from hub.spawners.base import LabSpawner
from hub.targets import Finding, Target
from labkit.base.problems import Problem
from tests.support.memory_apps import MemoryApps

APPS = MemoryApps()


class TinySpawner(LabSpawner, LocalProcessSpawner):
    """A process of the person's account, with partitions of its own."""

    def partitions(self, profile: Profile) -> tuple[str, ...]:
        return ("left", "right") if profile.environment == "stub" else ()


class TinyTarget(Target):
    """It answers everything otherwise than one machine does."""

    spawner_class = TinySpawner
    on_this_machine = False
    as_one_account = True
    app_runtime: AppRuntime = APPS

    def configure(self, c: Config) -> None:
        c.TinySpawner.term_timeout = 7

    @property
    def addresses(self) -> PortalAddresses:
        plain = PortalAddresses.of_one_host(self.settings)
        return replace(plain, hub_connect="http://tiny-hub:9", gate_for_servers="tiny-gate:9")

    def proxy_words(self) -> list[str]:
        return ["--tiny"]

    def brings_environment(self, name: str) -> bool:
        return name == "elsewhere"

    def problems(self) -> list[Problem]:
        return [Problem("eks", "is tiny", "look again", warning=True)]

    def findings(self) -> list[Finding]:
        return [Finding("tiny", "all two nodes are well")]

    def rendered(self) -> dict[str, Callable[[], str]]:
        return {"tiny": lambda: f"nodes of {self.settings.lab.name}: 2\n"}
