"""The administrators' messages: written by the command line and the page, read by hub and gate."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import lru_cache

from hub.state.paths import Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import parse_duration
from services.gate import messages
from services.gate.messages import Message, MessageFile

LONGEST = 500  # characters
MOST = 20  # messages at a time
_LOCK_TIMEOUT = 20.0  # seconds
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_FORMATS = ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


class MessageBoard:
    """The messages of one portal.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        # Beside what else the gate is told: it shows them while the hub is away, too.
        self._file = MessageFile(paths.state / "gate" / messages.NAME)

    def current(self) -> tuple[Message, ...]:
        """Return the messages that have not ended, the oldest first."""
        return self._file.current(time.time())

    def shown(self, groups: Collection[str]) -> list[dict[str, object]]:
        """Return what is shown to somebody in these groups, the newest first."""
        return self._file.shown(groups, time.time())

    def add(
        self,
        text: str,
        author: str,
        *,
        until: float | None = None,
        groups: Sequence[str] = (),
        begins: float | None = None,
    ) -> Message:
        """Show a message.

        Parameters
        ----------
        text : str
            What people read: plain text, at most `LONGEST` characters.
        author : str
            Who writes it.
        until : float, optional
            When it goes by itself, in seconds since 1970.
        groups : sequence of str
            For whom; empty: for everybody.
        begins : float, optional
            Maintenance begins then.

        Raises
        ------
        ProblemsError
            The text is empty, too long or no text, it would end before it begins, or there are
            too many.
        """
        now = time.time()
        text = " ".join(text.split())
        wrong = []
        if not text:
            wrong.append(Problem("message", "is empty", "write what people should know"))
        if len(text) > LONGEST:
            wrong.append(
                Problem("message", f"has {len(text)} characters", f"{LONGEST} are shown at most")
            )
        if _CONTROL.search(text):
            wrong.append(Problem("message", "has control characters", "write plain text"))
        if until is not None and until <= max(now, begins or 0.0):
            wrong.append(Problem("until", "would end before it begins", "name a later time"))
        if begins is not None and groups:
            text_of_groups = "maintenance is for everybody: nobody's new server starts"
            wrong.append(Problem("groups", text_of_groups, "leave the groups out"))
        if wrong:
            raise ProblemsError(wrong)
        one = Message(
            secrets.token_hex(4), text, author, now, until, tuple(dict.fromkeys(groups)), begins
        )
        with self._locked():
            known = self.current()
            if len(known) >= MOST:
                hint = "take one back: labhub message --list, labhub message --remove ID"
                raise ProblemsError([Problem("message", f"there are {MOST} already", hint)])
            self._write([*known, one])
        return one

    def remove(self, identity: str) -> bool:
        """Take a message back; False: there is none of this id."""
        with self._locked():
            known = self.current()
            kept = [one for one in known if one.id != identity]
            self._write(kept)
        return len(kept) < len(known)

    def maintenance(self) -> Message | None:
        """Return the message of the maintenance that goes on now, if any."""
        now = time.time()
        begun = [one for one in self.current() if one.begins is not None and one.begins <= now]
        return begun[0] if begun else None

    def _locked(self) -> AbstractContextManager[None]:
        self._file.path.parent.mkdir(mode=0o700, exist_ok=True)
        return files.locked(
            self._paths.state / "messages.lock", _LOCK_TIMEOUT, "the portal's messages"
        )

    def _write(self, kept: Collection[Message]) -> None:
        path = self._file.path
        files.write_atomic(path, messages.dump(kept), mode=0o640, sync=True)
        if os.geteuid() == 0:  # the gate reads it
            os.chown(path, 0, path.parent.stat().st_gid)


@lru_cache(maxsize=16)
def board(paths: Paths) -> MessageBoard:
    """Return the board of a portal: one for the process, which remembers what it has read."""
    return MessageBoard(paths)


def refusal(paths: Paths, *, admin: bool) -> str:
    """Return why no server may start now; empty: it may.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    admin : bool
        Its owner is an administrator: they try the portal before the others come back.
    """
    message = None if admin else board(paths).maintenance()
    if message is None:
        return ""
    until = f" until {clock_time(message.until)}" if message.until else ""
    return f"The portal is under maintenance: no new servers start{until}. {message.text}"


def parse_moment(text: str, now: float) -> float:
    """Return the time that somebody names, in seconds since 1970.

    Parameters
    ----------
    text : str
        ``18:00`` (the next time the clock of this machine says so), ``2026-05-01 18:00``,
        ``2026-05-01``, or a span of time from now: ``2h``.
    now : float
        Seconds since 1970.

    Raises
    ------
    ValueError
        It is none of these.
    """
    text = text.strip()
    if match := _CLOCK.fullmatch(text):
        today = datetime.fromtimestamp(now).astimezone()
        moment = today.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        if moment.timestamp() <= now:
            moment = (moment.replace(tzinfo=None) + timedelta(days=1)).astimezone()
        return moment.timestamp()
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).astimezone().timestamp()
        except ValueError:
            continue
    try:
        if ":" in text:  # 25:00 is no span of time here
            raise ValueError
        return now + parse_duration(text).total_seconds()
    except ValueError:
        example = "write it like 18:00, 2026-05-01 18:00 or 2h"
        raise ValueError(f"{text!r} is no time; {example}") from None


def clock_time(moment: float) -> str:
    """Write a time as this machine's clock has it: ``18:00 CET``, with the day if not today."""
    time_then = datetime.fromtimestamp(moment).astimezone()
    today = datetime.now().astimezone().date()
    day = "" if time_then.date() == today else time_then.strftime("%-d %b, ")
    return f"{day}{time_then:%H:%M %Z}"
