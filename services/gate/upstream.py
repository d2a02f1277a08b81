"""One app as the gate knows it: its connections, whether it answers, when it was last used."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from labkit.base.units import format_duration
from labkit.relay.upstream import Upstreams
from services.gate import keys
from services.gate.config import App, Portal

log = logging.getLogger("labhub.gate")

_PROBE = 5.0  # seconds for one look whether it is ready
_PAUSE = (0.05, 0.5)  # seconds between two looks: at first, at most
_DOWN = 3.0  # seconds for which a failed start is not tried again
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)


class WrongPeerError(aiohttp.ClientConnectionError):
    """Another account than the app's listens on its socket."""


class OwnSocket(aiohttp.UnixConnector):
    """Connections to a Unix socket at whose other end only one account may be."""

    def __init__(self, path: str, uid: int, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self._uid = uid

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        protocol = await super()._create_connection(*args, **kwargs)
        transport = protocol.transport
        end = transport.get_extra_info("socket") if transport else None
        if transport is not None and end is not None:
            answer = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(answer)[1] == self._uid:
                return protocol
            transport.abort()
        raise WrongPeerError("another account listens on the app's socket")


class Upstream:
    """One app: starts it when it is needed, stops it when nobody uses it.

    Parameters
    ----------
    app : App
        Which app.
    portal : Portal
        Where the hub is.
    key : str
        The gate's key.
    """

    def __init__(self, app: App, portal: Portal, key: str) -> None:
        self.app = app
        self.secret = keys.derived(key, keys.APP_SECRET, app.name)
        self.state = "unknown"  # starting, ready, down
        self.reason = ""
        self.active = 0  # requests under way
        self.used = time.monotonic()
        self._run_url = f"{portal.hub_url}/api/labhub/services/{app.name}/run"
        self._token = keys.derived(key, keys.HUB_TOKEN, app.name)
        self._connections = Upstreams(self._own_socket if app.uid is not None else None)
        self._starting: asyncio.Task[None] | None = None
        self._failed = -_DOWN

    def _own_socket(self, path: str, **kwargs: Any) -> aiohttp.BaseConnector:
        return OwnSocket(path, self.app.uid or 0, **kwargs)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections to the app."""
        return self._connections.session(self.app.socket or None)

    def url(self, path: str) -> str:
        """Return where a path of the app is asked for; it begins with a slash.

        Raises
        ------
        OSError
            The app was not started yet: nobody knows its port.
        """
        if self.app.socket:
            return f"http://localhost{path}"
        place = json.loads(Path(self.app.address_file).read_text(encoding="utf-8"))
        return f"http://{place['host']}:{int(place['port'])}{path}"

    def use(self) -> None:
        """Note that somebody uses it."""
        self.used = time.monotonic()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request that is under way: the app is not idle meanwhile."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self.use()

    # -- is it there? -----------------------------------------------------------------

    async def ready(self, patience: float) -> bool:
        """Return whether the app answers, starting it where it does not.

        Parameters
        ----------
        patience : float
            Seconds to wait for it; the start goes on after that.
        """
        self.use()
        if self.state == "ready":
            return True
        if self._starting is None or self._starting.done():
            if self.state == "down" and time.monotonic() - self._failed < _DOWN:
                return False
            self.state = "starting"
            self._starting = asyncio.ensure_future(self._start())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._starting), patience)
        return self._is_ready()

    def _is_ready(self) -> bool:
        return self.state == "ready"

    def lost(self) -> None:
        """Note that it did not answer."""
        if self.state == "ready":
            self.state = "unknown"

    async def answers(self) -> bool:
        """Return whether the app answers now."""
        app = self.app
        path = f"/{app.health}" if app.strip_prefix else f"{app.prefix}{app.health}"
        headers = {
            "Host": app.host,
            "Accept-Encoding": "gzip",
            "X-Labhub-App-Secret": self.secret,
            "X-Forwarded-Prefix": app.prefix.rstrip("/"),
            "X-Forwarded-Proto": app.scheme,
            "X-Forwarded-Host": app.host,
        }
        try:
            async with self.session.get(
                self.url(path),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_PROBE),
            ) as answer:
                return answer.status < 500
        except WrongPeerError as error:
            log.error("%s: %s", app.name, error)
            return False
        except (OSError, ValueError, KeyError, TimeoutError, aiohttp.ClientError):
            return False

    async def look(self) -> None:
        """Find out whether it runs already; it is not started."""
        if self.state == "unknown" and await self.answers():
            self.state = "ready"
            self.use()

    async def _start(self) -> None:
        try:
            await self._until_ready()
        except Exception as error:
            log.exception("%s cannot be started", self.app.name)
            self._fail(f"the gate could not start it: {type(error).__name__}")

    async def _until_ready(self) -> None:
        if await self.answers():
            self._succeed()
            return
        end = time.monotonic() + self.app.start_timeout
        pause, asked, starts = _PAUSE[0], time.monotonic(), 1
        await self._run("POST")
        while time.monotonic() < end:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _PAUSE[1])
            if await self.answers():
                self._succeed()
                return
            if time.monotonic() - asked > 1:
                asked = time.monotonic()
                state = await self._run("GET")
                if state not in ("failed", "stopped"):
                    continue
                if starts == 2:
                    self._fail("it ended as soon as it was started")
                    return
                starts += 1  # the first may have met the end of an earlier run
                await self._run("POST")
        self._fail(f"it did not answer within {format_duration(self.app.start_timeout)}")

    def _succeed(self) -> None:
        self.state, self.reason = "ready", ""
        self.use()

    def _fail(self, reason: str) -> None:
        self.state, self.reason, self._failed = "down", reason, time.monotonic()

    async def stop(self) -> None:
        """Have the app stopped; it starts again when it is asked for."""
        self.state = "unknown"
        await self._run("DELETE")

    async def _run(self, method: str) -> str:
        """Ask the hub to start or stop the app, or how it is; returns its state or nothing."""
        try:
            async with self._connections.session().request(
                method,
                self._run_url,
                headers={"Authorization": f"token {self._token}"},
                timeout=aiohttp.ClientTimeout(total=40),
            ) as answer:
                if answer.status != 200:
                    log.error("%s: the hub answered %s to %s", self.app.name, answer.status, method)
                    return ""
                return str((await answer.json()).get("state", ""))
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            log.warning("%s: the hub does not answer: %s", self.app.name, type(error).__name__)
            return ""

    async def close(self) -> None:
        """Close all connections."""
        if self._starting is not None:
            self._starting.cancel()
        await self._connections.close()
