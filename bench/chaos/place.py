"""A home of its own for each round: runs, state, traces, and the processes that belong to it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.chaos import hook
from labkit.base import process_tree
from labkit.jobs.backends import local_queue
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.runs import worker_copy
from labkit.jobs.runs.store import Run

_HOOK = Path(hook.__file__).read_text()


class Place:
    """Where one round happens.

    Parameters
    ----------
    path : Path
        A folder that SLURM's nodes see, too.

    Attributes
    ----------
    runs, trace, orders : Path
        The run folders; a file per task, with a line for each start and end; who is to die where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        self.runs, self.trace, self.tmp = path / "runs", path / "trace", path / "tmp"
        self.orders, self.log = path / "orders", path / "log"
        for folder in (self.runs, self.trace, self.tmp, self.orders, path / "state"):
            folder.mkdir(parents=True)
        os.environ.update(
            HOME=str(path),
            XDG_STATE_HOME=str(path / "state"),
            LABKIT_RUNS=str(self.runs),
            TMPDIR=str(self.tmp),
            LABHUB_CHAOS=str(path),
        )
        _hook_workers(self.orders)

    def run(self) -> Run | None:
        """Return the run, once there is one."""
        found = self.run_folders()
        return Run(found[0]) if found else None

    def run_folders(self) -> list[Path]:
        """Return all run folders: there must not be more than one."""
        return [path.parent for path in self.runs.glob("[!.]*/manifest.json")]

    def processes(self) -> dict[int, str]:
        """Return the processes of the round's tasks: ``worker``, ``program``, ``element``."""
        needle, found = str(self.runs).encode() + b"/", {}
        for name in os.listdir("/proc"):  # noqa: PTH208 -- names are enough
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                variables = Path(f"/proc/{name}/environ").read_bytes()
                ours = [word for word in words if word.startswith(needle)]
                if any(word.endswith(b"/worker") for word in ours):
                    found[int(name)] = "worker"
                elif b"LABKIT_ATTEMPT=" + needle in variables:
                    found[int(name)] = "program"
                elif ours and b"-c" in words:
                    found[int(name)] = "element"
        return found

    def of(self, kind: str) -> list[int]:
        """Return the processes of a kind."""
        return [pid for pid, is_a in self.processes().items() if is_a == kind]

    def scheduler(self) -> int | None:
        """Return the local scheduler, if one lives."""
        with suppress(OSError, ValueError):
            return LocalQueue().scheduler_pid()
        return None

    def order(self, role: str, text: str) -> None:
        """Let the next process of a role die, or stall, at one of its file operations."""
        aside = self.orders / f".{role}"
        aside.write_text(text)
        aside.rename(self.orders / f"crash.{role}")

    def note(self, text: str) -> None:
        """Add a line to the round's log."""
        with self.log.open("a") as file:
            file.write(text.replace("\n", " | ") + "\n")

    def notes(self) -> list[str]:
        """Return the lines of the round's log."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def end(self) -> None:
        """End the scheduler, and whatever is left of the round's tasks."""
        if pid := self.scheduler():
            kill(pid)
        process_tree.kill(list(self.processes()))


def _hook_workers(orders: Path) -> None:
    """Let workers, SLURM's elements and local schedulers look for their orders."""
    worker_copy.write = _with_hook(_ORIGINAL_COPY, orders)
    armed = f"{_HOOK}\narm({str(orders)!r}, 'scheduler')\nraise SystemExit"
    local_queue._START = _ORIGINAL_START.replace("raise SystemExit", armed).replace(
        "from __future__ import annotations\n", ""
    )


def _with_hook(copy: Callable[[Path], None], orders: Path) -> Callable[[Path], None]:
    def copy_with_hook(folder: Path) -> None:
        copy(folder)
        package = folder / "labkit/jobs/worker/__init__.py"
        package.write_text(f"{_HOOK}\narm({str(orders)!r})\n")

    return copy_with_hook


_ORIGINAL_COPY = worker_copy.write
_ORIGINAL_START = local_queue._START


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Signal a process; False where it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def fork(function: Callable[..., None], *words: object) -> int:
    """Run a function in a process of its own."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.closerange(3, 4096)  # SLURM's keepers end when nobody holds their pipes any more
        function(*words)
        code = 0
    except BaseException:
        sys.setprofile(None)
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int | None:
    """Return how a forked process has ended, None while it lives."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


def wait_for(true: Callable[[], object], seconds: float) -> bool:
    """Wait until something is true, at most so long."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
