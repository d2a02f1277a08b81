"""Nothing of whoever started the portal comes along into a sandbox."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.sandbox.inherited import may_raise, renew
from hub.sandbox.sandboxes import Sandboxes
from hub.sandbox.seccomp import CALLS
from tests.conftest import needs_root
from tests.security.bare_sandbox import PYTHON, bare_sandboxes, run_inside
from tests.security.neighbours import sandboxes_behind
from tests.support.portal import Portal

pytestmark = needs_root
LIBC = ctypes.CDLL(None, use_errno=True)
KEYCTL = CALLS[platform.machine()]["keyctl"]
ADD_KEY = CALLS[platform.machine()]["add_key"]
JOIN, READ, SEARCH, SESSION = 1, 11, 10, -3  # linux/keyctl.h

# No more than the portal's own, where root may not raise it.
OPEN_FILES = 1 << 19 if may_raise() else min(1 << 19, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
PROCESSES = resource.getrlimit(resource.RLIMIT_NPROC)[1]

LOOK = r"""
import json, os, pathlib, resource, signal
status = dict(
    line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
)
keys = pathlib.Path("/proc/keys")
def terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as error:
        return error.strerror
    return "open"
print(json.dumps({
    "keys": keys.read_text() if keys.exists() else "",
    "status": {k: v.split() for k, v in status.items()},
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "limits": {
        name: resource.getrlimit(getattr(resource, name))
        for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_FSIZE",
                     "RLIMIT_MEMLOCK", "RLIMIT_NPROC", "RLIMIT_CPU")
    },
    "umask": oct(os.umask(0)),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "policy": os.sched_getscheduler(0),
    "oom": pathlib.Path("/proc/self/oom_score_adj").read_text().strip(),
    "persona": pathlib.Path("/proc/self/personality").read_text().strip(),
    "session": os.getsid(0),
    "tty": terminal(),
    "groups": os.getgroups(),
    "cwd": os.getcwd(),
}))
"""


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandboxes]:
    with bare_sandboxes(tmp_path_factory.mktemp("state"), "10.240.21.0/24") as those:
        yield those


def spoiled() -> None:
    """Be a process from which as much as possible is inherited."""
    LIBC.syscall(KEYCTL, JOIN, b"of-the-hub")
    LIBC.syscall(ADD_KEY, b"user", b"labhub-secret", b"of another person", 17, SESSION)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if may_raise():  # not root in every container
        resource.setrlimit(resource.RLIMIT_NICE, (40, 40))
        resource.setrlimit(resource.RLIMIT_RTPRIO, (99, 99))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))
    os.umask(0)
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    Path("/proc/self/oom_score_adj").write_text("-900" if may_raise() else "300")
    LIBC.personality(0x0040000)  # ADDR_NO_RANDOMIZE


def test_a_sandbox_takes_nothing_over(sandboxes: Sandboxes, ada: str) -> None:
    done = run_inside(sandboxes, ada, [PYTHON, "-c", LOOK], before=spoiled)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "labhub-secret" not in found["keys"]
    assert "of-the-hub" not in found["keys"]
    # Python itself ignores these two, and catches SIGINT.
    python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(found["status"]["SigIgn"][0], 16) & ~python == 0
    assert int(found["status"]["SigBlk"][0], 16) == 0
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found["status"][capabilities][0], 16) == 0
    assert found["status"]["NoNewPrivs"] == ["1"]
    assert found["status"]["Seccomp"] == ["2"]
    # The fourth is the one by which the folder itself is listed.
    assert found["descriptors"] == ["0", "1", "2", "3"]
    assert found["limits"] == {
        "RLIMIT_CORE": [0, -1],
        "RLIMIT_NOFILE": [1024, OPEN_FILES],
        "RLIMIT_NICE": [0, 0],
        "RLIMIT_RTPRIO": [0, 0],
        "RLIMIT_FSIZE": [-1, -1],
        "RLIMIT_MEMLOCK": [8 << 20, 8 << 20],
        "RLIMIT_NPROC": [-1, -1] if may_raise() else [PROCESSES, PROCESSES],
        "RLIMIT_CPU": [-1, -1],
    }
    assert found["umask"] == "0o77"
    assert (found["nice"], found["policy"], found["oom"]) == (0, os.SCHED_OTHER, "0")
    assert int(found["persona"], 16) == 0
    assert found["tty"] == os.strerror(6)  # no such device: there is no terminal
    assert found["session"] > 0  # one that began inside
    assert 0 not in found["groups"]


def test_a_sandbox_cannot_be_protected_again(sandboxes: Sandboxes, ada: str) -> None:
    """What was given up stays given up: the OOM killer, the nice value, the hard limits."""
    code = """
import os, pathlib, resource
def refused(call):
    try:
        call()
    except (OSError, ValueError) as error:
        return isinstance(error, (PermissionError, ValueError))
    return False
print(refused(lambda: pathlib.Path("/proc/self/oom_score_adj").write_text("-1")),
      refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, -1)),
      refused(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
      refused(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1 << 20))))
"""
    done = run_inside(sandboxes, ada, [PYTHON, "-c", code], before=spoiled)
    assert done.stdout.split() == ["True"] * 4, done.stderr


def session_keyring() -> int:
    """Return the serial number of this process' session keyring."""
    return int(LIBC.syscall(KEYCTL, 0, SESSION, 0))


def in_a_child(work: object) -> int:
    """Return what a call gives in a process that is then thrown away."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, str(work()).encode())  # type: ignore[operator]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    text = os.read(reading, 100).decode()
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return int(text)


def test_two_sandboxes_share_no_session_keyring() -> None:
    """With the filter off: the keyring itself is new, not only out of reach."""

    def anew() -> int:
        renew([], umask=0o077)()
        return session_keyring()

    before = session_keyring()
    first, second = in_a_child(anew), in_a_child(anew)
    assert min(first, second) > 0
    assert len({before, first, second}) == 3
    assert session_keyring() == before  # the portal's own stays


def test_a_server_of_the_hubs_takes_nothing_over(portal: Portal, ada: str) -> None:
    portal.spawn(ada)
    found = json.loads(portal.run(ada, LOOK))
    key = portal.api("GET", f"/users/{ada}").json()["servers"][""]["state"]["box"]
    assert sandboxes_behind(portal).serving(key)
    assert found["status"]["Seccomp"] == ["2"]
    assert found["umask"] == "0o77"
    assert found["limits"]["RLIMIT_NOFILE"] == [1024, OPEN_FILES]
    assert found["tty"] == os.strerror(6)
    assert int(found["status"]["SigBlk"][0], 16) == 0
    # Its socket and the connection that asks are the server's own.
    links = portal.run(
        ada,
        "import os\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink('/proc/self/fd/' + name))\n"
        "    except OSError: pass",
    ).split()
    assert {link.split(":")[0] for link in links} <= {"/dev/null", "pipe", "socket"} | {
        link for link in links if link.startswith("/proc/")
    }
