"""The administrators' messages to people: a file that the portal writes, hub and gate read."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "messages.json"


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    id : str
        By which it is taken back.
    text : str
        What people read.
    author : str
        Who wrote it.
    created : float
        When, in seconds since 1970.
    until : float or None
        When it goes by itself, in seconds since 1970; None: it is taken back by hand.
    groups : tuple of str
        For whom; empty: for everybody, also on the login page.
    begins : float or None
        It announces maintenance, which begins then: no new servers until the message has gone.
    """

    id: str
    text: str
    author: str
    created: float
    until: float | None = None
    groups: tuple[str, ...] = ()
    begins: float | None = None

    def is_for(self, groups: Collection[str]) -> bool:
        """Return whether somebody in these groups is meant."""
        return not self.groups or bool(set(self.groups) & set(groups))

    def as_shown(self) -> dict[str, Any]:
        """Return what those whom it is for may know of it."""
        return {"id": self.id, "text": self.text, "until": self.until, "begins": self.begins}


def load(text: str) -> tuple[Message, ...]:
    """Read a file of messages.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        return tuple(Message(**{**one, "groups": tuple(one["groups"])}) for one in json.loads(text))
    except (TypeError, KeyError) as error:
        raise ValueError(f"no file of messages: {error}") from None


def dump(messages: Collection[Message]) -> str:
    """Return messages as `load` reads them."""
    return json.dumps([asdict(message) for message in messages], indent=1) + "\n"


class MessageFile:
    """Reads the file anew when it has changed; one that cannot be read has no messages.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._messages: tuple[Message, ...] = ()

    def current(self, now: float) -> tuple[Message, ...]:
        """Return the messages that have not ended.

        Parameters
        ----------
        now : float
            Seconds since 1970.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._messages = load(self.path.read_text(encoding="utf-8"))
                self._stamp = stamp
        except (OSError, ValueError):
            self._stamp, self._messages = None, ()
        return tuple(one for one in self._messages if one.until is None or one.until > now)

    def shown(self, groups: Collection[str], now: float) -> list[dict[str, Any]]:
        """Return what is shown to somebody in these groups, the newest first."""
        messages = sorted(self.current(now), key=lambda one: one.created, reverse=True)
        return [one.as_shown() for one in messages if one.is_for(groups)]
