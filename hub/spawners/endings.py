"""How a server ended by itself, kept for its owner until the next start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Ending:
    """The end of a server that nobody had asked for.

    Attributes
    ----------
    why : str
        What is known of it: a sentence without its full stop, whose "it" is the server.
    at : float
        When the hub noticed, in seconds since 1970.
    """

    why: str
    at: float

    @property
    def time(self) -> datetime:
        """When the hub noticed."""
        return datetime.fromtimestamp(self.at, UTC)


class Endings:
    """A mixin before JupyterHub's spawner: remembers how its server ended, over a restart too."""

    server: Any
    log: Any
    _log_name: str
    _stop_pending: bool
    _spawn_pending: bool

    ended: Ending | None = None

    def ending(self, status: int) -> str:
        """Say in words how the server ended."""
        return f"it ended with the status {status}"

    async def poll(self) -> int | None:
        """Return None while the server runs, else its exit status."""
        status: int | None = await super().poll()  # type: ignore[misc]
        return status

    def note_end(self, status: int) -> None:
        """Remember how the server ended, unless somebody asked for it or it never was ready."""
        expected = self._stop_pending or self._spawn_pending
        if not expected and self.server is not None and self.ended is None:
            self.ended = Ending(self.ending(status), datetime.now(UTC).timestamp())
            self.log.warning("%s has ended: %s", self._log_name, self.ended.why)

    async def poll_and_notify(self) -> Any:
        """Look whether the server has ended; if it has, remember why before all is cleared up."""
        status = await self.poll()
        if status is not None:
            self.note_end(status)
        return await super().poll_and_notify()  # type: ignore[misc]

    def get_state(self) -> dict[str, Any]:
        """Return what a new hub needs to know."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]
        if self.ended:
            state["ended"] = asdict(self.ended)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier hub knew."""
        super().load_state(state)  # type: ignore[misc]
        ended = state.get("ended")
        self.ended = Ending(str(ended["why"]), float(ended["at"])) if ended else None
