"""The apps behind the gate, each with its people and its connections; they come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labkit.relay.credentials import AppCookies
from services.gate.config import App, Config, Portal, load
from services.gate.identity import FRESH, HubAwayError, Identity, Person
from services.gate.upstream import Upstream

log = logging.getLogger("labhub.gate")

_TICK = 1.0  # seconds between two looks at the clock and at the apps' file
_AT_ONCE = 50  # people who are asked about at the same time


class Open(Protocol):
    """A request or WebSocket that is under way."""

    person: Person | None

    def revoke(self) -> None:
        """End it."""


@dataclass
class Door:
    """One app, as the gate sees it."""

    app: App
    identity: Identity
    upstream: Upstream
    cookies: AppCookies = field(default_factory=AppCookies)
    open: dict[Any, float] = field(default_factory=dict)

    def enter(self, request: Open) -> None:
        """Note a request that was let in."""
        self.open[request] = time.monotonic()

    def leave(self, request: Open) -> None:
        """Forget one that has ended."""
        self.open.pop(request, None)


class Doors:
    """All apps of a portal.

    Parameters
    ----------
    file : Path
        The apps, as the portal writes them; a changed file is taken up at once.
    key : str
        The gate's key.
    """

    def __init__(self, file: Path, key: str) -> None:
        self._file = file
        self._key = key
        self._doors: dict[str, Door] = {}
        self._stamp = self._stamp_of(file)
        config = load(file)
        self.portal: Portal = config.portal
        self._take(config)

    def get(self, name: str) -> Door | None:
        """Return the app of a name."""
        return self._doors.get(name)

    @staticmethod
    def _stamp_of(file: Path) -> tuple[int, int]:
        status = file.stat()
        return status.st_mtime_ns, status.st_ino

    def _take(self, config: Config) -> list[Door]:
        """Take up a new list of apps; returns those that are gone or were changed."""
        gone = [door for name, door in self._doors.items() if config.apps.get(name) != door.app]
        for door in gone:
            del self._doors[door.app.name]
        for app in config.apps.values():
            if app.name not in self._doors:
                self._doors[app.name] = Door(
                    app,
                    Identity(app, self.portal, self._key),
                    Upstream(app, self.portal, self._key),
                )
        return gone

    # -- what goes on by the clock ----------------------------------------------------

    async def watch(self) -> None:
        """Take up changes, end what nobody may any longer, stop what nobody uses."""
        asked = 0.0
        await asyncio.gather(*(door.upstream.look() for door in self._doors.values()))
        while True:
            await asyncio.sleep(_TICK)
            await _told(self._reload)
            await _told(self._stop_idle)
            if time.monotonic() - asked >= FRESH:
                asked = time.monotonic()
                await _told(self._ask_again)

    async def _reload(self) -> None:
        try:
            stamp = self._stamp_of(self._file)
            if stamp == self._stamp:
                return
            config = load(self._file)
        except (OSError, ValueError) as error:
            log.error("The apps' file cannot be read; those known go on: %s", error)
            return
        self._stamp = stamp
        gone = self._take(config)
        log.info("Apps: %s", ", ".join(self._doors) or "none")
        for door in gone:
            for request in list(door.open):
                request.revoke()
            await door.upstream.close()
        await asyncio.gather(*(door.upstream.look() for door in self._doors.values()))

    async def _ask_again(self) -> None:
        """Ask the hub about everybody who has had something open for a while."""
        then = time.monotonic() - FRESH
        waiting = [
            (door, request)
            for door in self._doors.values()
            for request, since in list(door.open.items())
            if since <= then
        ]
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*(_check(*one) for one in waiting[start : start + _AT_ONCE]))

    async def _stop_idle(self) -> None:
        for door in self._doors.values():
            idle, upstream = door.app.idle, door.upstream
            if idle is None or upstream.state != "ready" or upstream.active:
                continue
            if time.monotonic() - upstream.used > idle:
                log.info("%s: nobody has used it for %.0f s, it is stopped", door.app.name, idle)
                await upstream.stop()

    async def close(self) -> None:
        """Close all connections to apps."""
        for door in self._doors.values():
            await door.upstream.close()


async def _check(door: Door, request: Open) -> None:
    person = request.person
    # While the hub is away nobody can have been thrown out: it would have to say so.
    with contextlib.suppress(HubAwayError):
        if person is not None and await door.identity.still(person) is None:
            request.revoke()


async def _told(task: Callable[[], Any]) -> None:
    """Run one of the watch's tasks; an error is told, and is no end of the watch."""
    try:
        await task()
    except Exception:
        log.exception("The gate's watch met an error")
