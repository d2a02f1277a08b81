"""The processes of one attempt: how much they use, and how they are ended."""

# Read four times a second in every task: a Path for each file would cost more than the answer.
# ruff: noqa: PTH110, PTH115, PTH123, PTH208
from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_AGAIN = 0.5  # seconds
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36

# Not on other systems than Linux: orphans are then found less surely.
_prctl: Callable[..., int] | None = getattr(ctypes.CDLL(None), "prctl", None)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends."""
    if _prctl is not None:
        _prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends; for use after fork."""
    if _prctl is not None:
        _prctl(_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where there is none.

    Together with the pid it names a process for good: pids are used again. A zombie is gone.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def boot_id() -> str:
    """Return what changes with each start of the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def place() -> str:
    """Return what a pid means something in: this start of the machine, this process namespace."""
    try:
        return f"{boot_id()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return boot_id()


def descendants(root: int) -> list[int]:
    """Return all processes below one, that one not included."""
    found: list[int] = []
    todo = [root]
    while todo:
        pid = todo.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    children = [int(text) for text in file.read().split()]
            except FileNotFoundError:
                if os.path.exists(f"/proc/{pid}/task/{thread}"):  # a kernel without this file
                    return _scan(root)
                continue
            except OSError:
                continue
            found += children
            todo += children
    return found


def _scan(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            parents.setdefault(int(fields[1]), []).append(int(name))
    numbers: list[int] = []
    todo = [root]
    while todo:
        children = parents.get(todo.pop(), [])
        numbers += children
        todo += children
    return numbers


def marked(variable: str, value: str) -> list[int]:
    """Return all processes of ours with this environment variable, wherever they hang."""
    needle = b"\0" + f"{variable}={value}".encode() + b"\0"
    numbers = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if needle in b"\0" + file.read() + b"\0":
                    numbers.append(int(name))
        except OSError:
            continue
    return numbers


def resident(pids: list[int]) -> int:
    """Return the memory that processes hold, in bytes; shared pages count for each."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError):
            continue
    return total


def proportional(pids: list[int]) -> int:
    """Return the memory that processes hold, in bytes; a page that n share counts 1/n each."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                pss = next(line for line in file if line.startswith("Pss:"))
            total += int(pss.split()[1]) * 1024
        except (OSError, StopIteration):
            total += resident([pid])
    return total


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of processes and of their children that were waited for."""
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / _TICKS


def end(root: int, grace: float) -> None:
    """End all processes below one: SIGTERM, after ``grace`` seconds SIGKILL."""
    begun = time.monotonic()
    signalled: dict[int, float] = {}
    while alive := _alive(descendants(root)):
        now = time.monotonic()
        if now > begun + grace:
            break
        for pid in alive:
            # Twice: a signal between fork and exec is lost.
            if pid not in signalled or (
                signalled[pid] < begun + _AGAIN and now > signalled[pid] + _AGAIN
            ):
                _signal([pid], signal.SIGTERM)
                signalled[pid] = now
        time.sleep(0.02)
    for _ in range(500):  # a fork bomb needs more than one round
        alive = _alive(descendants(root))
        if not alive:
            return
        _signal(alive, signal.SIGKILL)
        time.sleep(0.01)


def kill(pids: list[int]) -> None:
    """Kill processes at once."""
    _signal(pids, signal.SIGKILL)


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if start_time(pid) is not None]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat after the name, which may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None
