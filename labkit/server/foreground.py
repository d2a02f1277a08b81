"""Commands that run in the foreground of a terminal: the server is in use while they do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from labkit.server.activity import Reason

# They wait for their user, who may be away: open for days, they would keep the server for ever.
_WAITING = frozenset(
    {"btop", "emacs", "htop", "info", "less", "man", "mc", "more", "most", "nano", "nvim", "pico"}
    | {"screen", "tmux", "top", "vi", "view", "vim"}
)
# They wait as well where they are given nothing to run.
_PROMPTS = frozenset(
    {"R", "bash", "dash", "fish", "ipython", "node", "python", "python3", "sh", "sqlite3", "zsh"}
)
_SHOWN = 60


def reasons(settings: Mapping[str, Any]) -> list[Reason]:
    """Return what runs in the foreground of each terminal.

    Parameters
    ----------
    settings : mapping
        The web application's.
    """
    return [
        Reason("terminal", _title(process.cmdline), process.since) for process in _running(settings)
    ]


class _Foreground:
    """The program in front of a terminal."""

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        with process.oneshot():
            self.cmdline: Sequence[str] = process.cmdline()
            self.since = process.create_time()


def waits(cmdline: Sequence[str]) -> bool:
    """Return whether a program does nothing but wait for its user.

    Parameters
    ----------
    cmdline : sequence of str
        The words that it was started with.
    """
    name = Path(cmdline[0]).name.lstrip("-") if cmdline else ""
    given = [word for word in cmdline[1:] if not word.startswith("-")]
    return name in _WAITING or (name in _PROMPTS and not given)


def _running(settings: Mapping[str, Any]) -> Iterator[_Foreground]:
    manager = settings.get("terminal_manager")
    for terminal in list(getattr(manager, "terminals", {}).values()):
        shell = terminal.ptyproc
        try:
            group = os.tcgetpgrp(shell.fd)
            if group in (shell.pid, 0):
                continue
            process = _Foreground(group)
        except (OSError, ValueError, psutil.Error):  # it has ended meanwhile
            continue
        if not waits(process.cmdline):
            yield process


def _title(cmdline: Sequence[str]) -> str:
    text = " ".join((Path(cmdline[0]).name, *cmdline[1:])) if cmdline else "a command"
    return f"{text[:_SHOWN]}…" if len(text) > _SHOWN else text
