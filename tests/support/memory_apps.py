"""A runtime of apps that keeps them in memory: what `hub.apps.runtime` asks for, and no process."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hub.apps.catalogue import App
from hub.apps.runtime import LOG_BYTES, AppAddress, AppRuntime, AppRuntimeError, AppStatus


class MemoryApps(AppRuntime):
    """Apps that do what is written in `behaviour`: ``waits``, ``fails`` or ``ends``."""

    def __init__(self) -> None:
        self.up = True
        self.behaviour: dict[str, str] = {}
        self._known: dict[str, AppStatus] = {}
        self._logs: dict[str, list[str]] = {}

    def prepare(self) -> None:
        """Need nothing."""

    def follow(self) -> bool:
        self.prepare()
        if self.up:
            self._known = {
                name: self._known.get(name, AppStatus()) for name in sorted(self.behaviour)
            }
        return self.up

    def supervised(self) -> Mapping[str, Mapping[str, str]]:
        return {}

    def start(self, name: str) -> None:
        self._find(name)
        if self._known[name].state == "running":
            return
        self._logs.setdefault(name, []).append(f"hello from {name}")
        states = {
            "waits": AppStatus("running", None, time.time()),
            "fails": AppStatus("failed"),
            "ends": AppStatus("stopped"),
        }
        self._known[name] = states[self.behaviour[name]]

    def stop(self, name: str) -> None:
        self._find(name)
        self._known[name] = AppStatus()

    def statuses(self) -> dict[str, AppStatus]:
        return dict(self._known) if self.up else {}

    def address(self, app: App) -> AppAddress:
        return AppAddress(socket=f"/nowhere/{app.name}.sock")

    def log(self, name: str, lines: int, most: int = LOG_BYTES) -> str:
        return "\n".join(self._logs.get(name, [])[-lines:])[-most:]

    def delete_log(self, name: str) -> None:
        self._logs.pop(name, None)

    def _find(self, name: str) -> None:
        if not self.up or name not in self._known:
            raise AppRuntimeError(f"there is no app {name}")
