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

from labkit.base.units import format_duration
from labkit.relay.credentials import AppCookies
from services.gate import messages
from services.gate.config import App, Config, Portal, load
from services.gate.identity import FRESH, HubAwayError, Identity, Person
from services.gate.messages import MessageFile
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
class AppRoute:
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


class AppRegistry:
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
        self._registry: dict[str, AppRoute] = {}
        self._stamp = self._stamp_of(file)
        config = load(file)
        self.portal: Portal = config.portal
        self.messages = MessageFile(file.with_name(messages.NAME))
        self._take(config)

    def get(self, name: str) -> AppRoute | None:
        """Return the app of a name; one that was declared since the last look is found, too."""
        return self._registry.get(name) or self._declared_since(name)

    def _declared_since(self, name: str) -> AppRoute | None:
        # The next look takes up the rest: what is gone, and what has changed.
        try:
            if self._stamp_of(self._file) == self._stamp:
                return None
            app = load(self._file).apps.get(name)
        except (OSError, ValueError):
            return None
        if app is not None:
            self._registry[name] = self._route(app)
        return self._registry.get(name)

    def _route(self, app: App) -> AppRoute:
        return AppRoute(
            app,
            Identity(app, self.portal, self._key),
            Upstream(app, self.portal, self._key),
        )

    @staticmethod
    def _stamp_of(file: Path) -> tuple[int, int]:
        status = file.stat()
        return status.st_mtime_ns, status.st_ino

    def _take(self, config: Config) -> list[AppRoute]:
        """Take up a new list of apps; returns those that are gone or were changed."""
        gone = [
            route for name, route in self._registry.items() if config.apps.get(name) != route.app
        ]
        for route in gone:
            del self._registry[route.app.name]
        for app in config.apps.values():
            if app.name not in self._registry:
                self._registry[app.name] = self._route(app)
        return gone

    # -- what goes on by the clock ----------------------------------------------------

    async def watch(self) -> None:
        """Take up changes, end what nobody may any longer, stop what nobody uses."""
        asked = 0.0
        await asyncio.gather(*(route.upstream.look() for route in self._registry.values()))
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
        log.info("Apps: %s", ", ".join(self._registry) or "none")
        for route in gone:
            for request in list(route.open):
                request.revoke()
            await route.upstream.close()
        await asyncio.gather(*(route.upstream.look() for route in self._registry.values()))

    async def _ask_again(self) -> None:
        """Ask the hub about everybody who has had something open for a while."""
        then = time.monotonic() - FRESH
        waiting = [
            (route, request)
            for route in self._registry.values()
            for request, since in list(route.open.items())
            if since <= then
        ]
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*(_check(*one) for one in waiting[start : start + _AT_ONCE]))

    async def _stop_idle(self) -> None:
        for route in self._registry.values():
            idle, upstream = route.app.idle, route.upstream
            if idle is None or upstream.state != "ready" or upstream.active:
                continue
            if time.monotonic() - upstream.used > idle:
                log.info(
                    "%s: nobody has used it for %s, it is stopped",
                    route.app.name,
                    format_duration(idle),
                )
                await upstream.stop()

    async def close(self) -> None:
        """Close all connections to apps."""
        for route in self._registry.values():
            await route.upstream.close()


async def _check(route: AppRoute, request: Open) -> None:
    person = request.person
    # While the hub is away nobody can have been thrown out: it would have to say so.
    with contextlib.suppress(HubAwayError):
        if person is not None and await route.identity.still(person) is None:
            request.revoke()


async def _told(task: Callable[[], Any]) -> None:
    """Run one of the watch's tasks; an error is told, and is no end of the watch."""
    try:
        await task()
    except Exception:
        log.exception("The gate's watch met an error")
