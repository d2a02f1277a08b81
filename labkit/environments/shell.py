"""The shell of a terminal: a login shell's files first, then the environment's programs.

A login shell sets PATH anew (``/etc/profile``), so that what the server has put there is lost.
"""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

from labkit.base import files

_NAME = "terminal.bash"
_TEXT = """\
# Written by the portal at each start of your server. Your own settings belong into ~/.bashrc.
[ -r /etc/profile ] && . /etc/profile
for own in ~/.bash_profile ~/.bash_login ~/.profile; do
    [ -r "$own" ] && {{ . "$own"; break; }}
done
# Twice is harmless; most read it from there.
[ -r ~/.bashrc ] && . ~/.bashrc
unset own
PATH={path}:$PATH
hash -r
"""


def command(path: str, folder: Path) -> list[str]:
    """Return the command of a terminal.

    Parameters
    ----------
    path : str
        What comes first in PATH.
    folder : Path
        Where the shell's settings are written.

    Returns
    -------
    list of str
        Bash with settings of ours; another shell of the person's as it is, with the PATH that
        the server has.
    """
    shell = os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    if Path(shell).name != "bash":
        return [shell]
    settings = folder / _NAME
    files.write_atomic(settings, _TEXT.format(path=shlex.quote(path)))
    return [shell, "--rcfile", str(settings), "-i"]
