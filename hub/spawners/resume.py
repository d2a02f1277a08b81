"""A start that outlives its hub: the next hub goes on with it, as if it had begun it.

JupyterHub takes back servers that were ready, by a look at each (`poll`) when it starts. A start
that still waits is made to look as one of its own: pending, with its progress, and its owner can
cancel it.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from datetime import UTC, datetime

from sqlalchemy.orm import object_session

from hub.spawners.base import LabSpawner
from hub.spawners.startup import StartError, Startup

_LEAST = 60.0  # seconds that a start has at least under its new hub
_ENDING = 10.0  # seconds for JupyterHub to clear up after a cancelled one


class ResumeStart(LabSpawner):
    """A spawner of jobs; `resume` and `give_up` are the target's part."""

    _resuming: asyncio.Task[None] | None = None

    async def resume(self) -> tuple[str, int]:
        """Wait until the job runs and has named its port, and return where its server is.

        Raises
        ------
        StartError
            It does not start.
        """
        raise StartError("This start cannot be resumed.")

    def give_up(self) -> None:
        """Cancel the job."""

    def has_token(self, token: str, number: int) -> bool:
        """Whether a token, and its number in the database, are this server's own.

        A new hub knows only the number.
        """
        known = self.api_token
        if known:
            return hmac.compare_digest(known.encode(), token.encode())
        return bool(self._token_id) and self._token_id == number

    def resume_start(self) -> None:
        """Go on with an earlier hub's start; call it where its state is loaded."""
        self.startup = Startup(self.log_file, self._gone())
        self.say("Going on after a restart of the portal")
        self._spawn_pending = True
        task = self._resuming = asyncio.ensure_future(self._resume_start())
        task.add_done_callback(self._start_resumed)
        self._spawn_future: asyncio.Task[None] | None = task

    async def _resume_start(self) -> None:
        limit = asyncio.timeout(self._time_left())
        try:
            async with limit:
                host, port = await self.resume()
                self.say("Waiting for the server to answer")
                await self._wait_until_it_answers((host, port))
        except StartError as error:
            self.give_up()
            raise self._start_error(error.message, error.status_code, error.reason) from None
        except TimeoutError:
            self.give_up()
            text = f"The server did not answer within {self.start_timeout} seconds."
            raise self._start_error(text, reason="timeout") from None
        self.server.proto = "https" if self.internal_ssl else "http"
        self.server.ip, self.server.port = host, port
        self.orm_spawner.state = self.get_state()
        if (db := object_session(self.orm_spawner)) is not None:
            db.commit()
        try:
            # JupyterHub makes routes when it has looked at all servers, which may take long.
            await self.user.settings["proxy"].add_user(self.user, self.name)
        except Exception:
            self.log.exception("%s has no route yet", self._log_name)
        self.say("The server is ready")

    def _gone(self) -> float:
        """Return the seconds since the start began."""
        began = self.orm_spawner.started
        now = datetime.now(UTC).replace(tzinfo=None)
        return float((now - began).total_seconds()) if began else 0.0

    def _time_left(self) -> float:
        return float(max(_LEAST, self.start_timeout - self._gone()))

    def _start_resumed(self, task: asyncio.Task[None]) -> None:
        """End the pending state, before anybody who waits for the task goes on."""
        failure = None if task.cancelled() else task.exception()
        if failure:
            self.log.error("%s was not resumed: %s", self._log_name, failure)
        else:
            self._spawn_future = None
        # JupyterHub's own look is over as well: whoever cancelled the start stops it next.
        self._spawn_pending = self._check_pending = False

    @property
    def undecided(self) -> bool:
        """Whether `poll` has to wait for a start that is resumed."""
        return self._resuming not in (None, asyncio.current_task())

    async def decided(self) -> int | None:
        """Return what `poll` says of a start that is resumed, when that is known."""
        task = self._resuming
        if task is None:
            return None
        stopping = self._stop_pending
        if stopping:
            task.cancel()
        await asyncio.wait([task])
        self._resuming = None
        if not task.cancelled():
            return 1 if task.exception() else None
        if stopping:
            return None
        # JupyterHub must not clear up twice: whoever has cancelled it is about to.
        end = time.monotonic() + _ENDING
        while self.server is not None and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return 0
