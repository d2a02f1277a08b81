"""What a process takes over from the one that starts it and no namespace covers: set anew.

The hub may have been started from an administrator's login, by nohup, or by systemd with
limits and protections of its own: none of that is a user's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
from collections.abc import Callable, Sequence

from hub.sandbox.seccomp import CALLS

_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_SYS_RESOURCE = 24  # linux/capability.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_OPEN_FILES = (1024, 1 << 19)  # what systemd gives to every program
_UNLIMITED = resource.RLIM_INFINITY
_LIMITS = {
    resource.RLIMIT_CORE: (0, _UNLIMITED),
    resource.RLIMIT_NOFILE: _OPEN_FILES,
    resource.RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
    resource.RLIMIT_MSGQUEUE: (819_200, 819_200),
    resource.RLIMIT_NICE: (0, 0),  # nobody gets before others
    resource.RLIMIT_RTPRIO: (0, 0),
    resource.RLIMIT_STACK: (8 << 20, _UNLIMITED),
    # The cgroup limits these, per server instead of per person.
    resource.RLIMIT_AS: (_UNLIMITED, _UNLIMITED),
    resource.RLIMIT_CPU: (_UNLIMITED, _UNLIMITED),
    resource.RLIMIT_DATA: (_UNLIMITED, _UNLIMITED),
    resource.RLIMIT_FSIZE: (_UNLIMITED, _UNLIMITED),
    resource.RLIMIT_NPROC: (_UNLIMITED, _UNLIMITED),
}


def renew(join_files: Sequence[str], umask: int) -> Callable[[], None]:
    """Return what a new process does first, as root, in front of a sandbox's command.

    It comes under the sandbox's limits and leaves behind: the session keyring, signals that are
    ignored or blocked, resource limits, umask, priority, scheduling, the protection from the
    kernel's OOM killer, the persona. Its session (and with it the terminal) is left by
    `subprocess` and bubblewrap, open files by `subprocess`, capabilities and groups by `setpriv`.

    Parameters
    ----------
    join_files : sequence of str
        A process writes ``0`` into each to come under the limits.
    umask : int
        Of the new process.
    """
    keyctl = CALLS[platform.machine()]["keyctl"]

    def run() -> None:
        for file in join_files:
            _write(file, b"0")
        if _LIBC.syscall(keyctl, _JOIN_SESSION_KEYRING, None) < 0:
            code = ctypes.get_errno()
            # A kernel without keyrings has none to share.
            if code != errno.ENOSYS:
                raise OSError(code, "no session keyring of its own")
        for limit, (soft, hard) in _LIMITS.items():
            resource.setrlimit(limit, _within(soft, hard, resource.getrlimit(limit)[1]))
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):  # the C library's own
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(umask)
        # Root in a container may not lift all: what puts the process behind others may stay.
        for more in (_schedule, _expose):
            with contextlib.suppress(PermissionError):
                more()
        _LIBC.personality(0)

    return run


def _within(soft: int, hard: int, most: int) -> tuple[int, int]:
    """Return a limit, no higher than the portal's own: only some kinds of root may raise it."""
    if may_raise():
        return soft, hard
    lower = [value for value in (hard, most) if value != _UNLIMITED]
    hard = min(lower, default=_UNLIMITED)
    if hard != _UNLIMITED and (soft == _UNLIMITED or soft > hard):
        soft = hard
    return soft, hard


def may_raise() -> bool:
    """Whether this process may raise limits (not root in every container)."""
    with open("/proc/self/status") as stream:  # noqa: PTH123
        effective = next(int(line.split()[1], 16) for line in stream if line.startswith("CapEff"))
    return bool(effective >> _SYS_RESOURCE & 1)


def _schedule() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def _expose() -> None:
    _write("/proc/self/oom_score_adj", b"0")


def _write(file: str, text: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
