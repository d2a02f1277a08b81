"""What lies over srun, salloc and sattach in a server's own network: it has them run outside of it.

A program of its own, started with the broker's socket (`hub.slurm.job.broker`), the command's
name, the server's SLURM_CONF and the command's arguments: standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import sys
import termios
import tty

FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH),
)
BLOCK = 1 << 16


def main(place: str, name: str, conf: str, arguments: list[str]) -> int:
    """Run a command outside, with this process' files, and return its exit status."""
    if _own_cluster(conf):
        folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - short
        os.execv(f"{folder}/{name}", [name, *arguments])  # noqa: S606 - no shell
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in FORWARDED:
        signal.signal(number, lambda *_: None)
    broker = socket.socket(socket.AF_UNIX)
    try:
        broker.connect(place)
    except OSError as error:
        print(
            f"{name}: nodes cannot connect to this server's own network, and what starts {name}"
            f" outside of it does not answer ({error.strerror}). Restart your server, or put"
            f" {name} into a script for sbatch.",
            file=sys.stderr,
        )
        return 1
    with broker, contextlib.ExitStack() as stack:
        files, terminal = _files(stack)
        body = json.dumps(
            {
                "argv": [name, *arguments],
                "env": dict(os.environ),
                "folder": os.getcwd(),  # noqa: PTH109 - short
                "umask": _umask(),
            }
        ).encode()
        status = None
        with contextlib.suppress(OSError):  # the broker is gone, or the terminal
            socket.send_fds(broker, [b"%010d" % len(body)], files)
            broker.sendall(body)
            status = _attend(broker, waking, terminal)
    if status is None:
        print(f"{name}: what runs it outside of this server's network ended", file=sys.stderr)
        return 1
    return status


def _own_cluster(conf: str) -> bool:
    """Whether another cluster is meant than the server's: one started in this network, for tests.

    Its owner has written its configuration; a login shell may name the cluster's in other words.
    """
    named = os.environ.get("SLURM_CONF", "")
    with contextlib.suppress(OSError):
        return named not in ("", conf) and os.stat(named).st_uid == os.getuid()  # noqa: PTH116
    return False


def _files(stack: contextlib.ExitStack) -> tuple[list[int], int]:
    """Return the command's first three files, and the terminal between it and ours; -1: none.

    Job control needs a terminal that belongs to the command's own session, which ours does not.
    """
    files = [0, 1, 2]
    if not os.isatty(0):
        return files, -1
    try:
        foreground = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        foreground = False  # not the terminal of this session
    if not foreground or not os.isatty(1):
        if not foreground:
            # In the background it must not take what is typed.
            files[0] = os.open(os.devnull, os.O_RDONLY)
        return files, -1
    terminal, inner = pty.openpty()
    before = termios.tcgetattr(0)
    termios.tcsetattr(inner, termios.TCSANOW, before)
    os.set_blocking(terminal, False)
    _same_size(terminal)
    stack.callback(termios.tcsetattr, 0, termios.TCSADRAIN, before)
    tty.setraw(0, termios.TCSADRAIN)  # what is typed already counts
    return [inner, inner, inner if os.isatty(2) else 2], terminal


def _same_size(terminal: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _attend(broker: socket.socket, waking: int, terminal: int) -> int | None:
    """Hand on signals and what goes through the terminal until the command has ended."""
    watched: list[int] = [broker.fileno(), waking, *([0, terminal] if terminal >= 0 else [])]
    typed = b""
    while True:
        # Nothing more is read from the keyboard before the command has taken what was typed.
        reading = [file for file in watched if file or not typed]
        readable, writable, _ = select.select(reading, [terminal] if typed else [], [])
        if waking in readable:
            for number in os.read(waking, BLOCK):
                if number == signal.SIGWINCH and terminal >= 0:
                    _same_size(terminal)  # the kernel tells the command
                else:
                    broker.sendall(bytes([number]))
        if terminal in readable:
            _show(terminal)
        if writable:
            typed = typed[os.write(terminal, typed) :]
        if 0 in readable:
            typed = os.read(0, BLOCK)
            if not typed:
                watched.remove(0)
        if broker.fileno() in readable:
            said = broker.recv(BLOCK)
            while terminal >= 0 and select.select([terminal], [], [], 0)[0]:
                _show(terminal)
            return int(said) if said else None


def _show(terminal: int) -> None:
    """Show what the command has written."""
    shown = os.read(terminal, BLOCK)
    while shown:
        shown = shown[os.write(1, shown) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
