"""What the programs of a user server's job share: its log, its end, what is left of the node.

This text is part of the job script and runs on a compute node as the server's owner: standard
library only, Python 3.9 or newer, nothing else of Labhub at hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Mapping

KEYCTL = {"x86_64": 250, "aarch64": 219}  # asm/unistd.h
JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
OOM = "/proc/self/oom_score_adj"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Options of SLURM's commands by variable, and what is said of the job itself.
OF_SLURM = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_")


class LaunchError(Exception):
    """The server cannot be started; the text says why."""


def die_with_parent() -> None:
    """Let the kernel end this process when its parent is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_node() -> None:
    """Leave behind what a job takes over from the node's slurmd, whose other jobs do, too.

    A session keyring of its own; signals, umask and protection from the OOM killer set anew.
    The limits are the node's own (``--propagate=NONE``), its files are closed by subprocess.
    """
    number = KEYCTL.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if number is None or libc.syscall(number, JOIN_SESSION_KEYRING, None) < 0:
        code = ctypes.get_errno()
        if number is None or code != errno.ENOSYS:  # a kernel without keyrings shares none
            say("this node gives no session keyring: other jobs may read keys that are put there")
    # Python itself ignores these two, and gives them back to the server.
    kept = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
    for one in signal.valid_signals() - kept:
        with contextlib.suppress(OSError):  # the C library's own
            signal.signal(one, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    with contextlib.suppress(OSError, ValueError), open(OOM, "r+") as stream:  # noqa: PTH123
        if int(stream.read()) < 0:
            stream.seek(0)
            stream.write("0")


def say(text: str) -> None:
    """Write a line into the job's log, where others can read it now."""
    print(f"labhub: {text}", file=sys.stderr, flush=True)
    # A shared disk shows it on other machines only when it is written for good.
    with contextlib.suppress(OSError, ValueError):
        os.fsync(sys.stderr.fileno())


def without_slurm(env: Mapping[str, str]) -> dict[str, str]:
    """Return variables without those of the job, which would be options of the person's own jobs.

    The server's memory, say, is in SLURM_MEM_PER_NODE, and contradicts ``--mem-per-cpu``.
    """
    return {
        name: value
        for name, value in env.items()
        if name == "SLURM_CONF" or not name.startswith(OF_SLURM)
    }
