"""Programs joined by pipes, and threads between them: every member's end counts.

A program that dies leaves the ones after it with what looks like the end of their input: they
end well, with fewer reads. So the whole pipe fails when one member does, and the first to fail
is named; those that only lost their reader (SIGPIPE) are not to blame.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import causes

BLOCK = 1024 * 1024  # bytes that are moved at once
_PIPE_SIZE = 1024 * 1024  # what an unprivileged user may ask for
_F_SETPIPE_SZ = 1031
_BLAMED = 3  # members named in an error: one that fails may draw others along
_TOGETHER = 0.3  # seconds in which other members may tell that they failed first
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Failed(Exception):
    """Something went wrong; the text says what, with numbers.

    Parameters
    ----------
    reason : str
        A reason of labkit's: EXIT, CHECK, INPUT.
    """

    def __init__(self, text: str, reason: str = "EXIT") -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason


class Stopped(Exception):
    """Another member has failed: this one just ends."""


class Member:
    """A program or a thread of a pipe.

    Attributes
    ----------
    name : str
        For people, e.g. ``"bwa-mem2 of lane L1"``.
    done : Event
        Set when it has ended.
    failure : str
        Why it is no success, or empty.
    seconds, cpu_seconds : float
        What a program took, once it has ended; the second of itself and of all that it started.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes] | None,
        log: Path | None,
        log_start: int = 0,
    ) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.log_start = log_start
        self.done = threading.Event()
        self.failure = ""
        self.reason = "EXIT"
        self.innocent = False  # it only lost its reader
        self.whole = False  # its failure is a sentence of its own
        self.began = time.monotonic()
        self.ended = 0.0
        self.cpu_seconds = 0.0

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self.ended - self.began

    def judge(self, code: int) -> None:
        """Note how the program ended."""
        self.innocent = code == -signal.SIGPIPE
        if code < 0:
            self.failure = f"was ended by signal {-code} ({_signal_name(-code)})"
        elif code:
            self.failure = f"ended with code {code}"

    @property
    def told(self) -> str:
        """Why it failed: what it said, then how it ended. A signal is a cause itself."""
        text = self.failure if self.whole else f"{self.name} {self.failure}"
        if self.log is None or (self.process and (self.process.returncode or 0) < 0):
            return text
        return causes.told(text, self.log, self.log_start)


class Pipe:
    """Programs and threads that must all end well.

    Parameters
    ----------
    env : dict
        Environment of the programs.
    cwd : Path
        Where they run.
    """

    def __init__(self, env: dict[str, str], cwd: Path) -> None:
        self.env = env
        self.cwd = cwd
        self.members: list[Member] = []
        self._ended: queue.Queue[Member] = queue.Queue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | Path | None = None,
        stderr: Path,
    ) -> Member:
        """Start a program.

        Parameters
        ----------
        stdin, stdout : int, Path or None
            Ends of pipes, which now belong to the program: they are closed here. A path is a file
            to write; None is nothing.
        stderr : Path
            What it says.

        Raises
        ------
        Stopped
            The pipe has failed already.
        Failed
            It cannot be started.
        """
        with contextlib.ExitStack() as stack:
            for end in (stdin, stdout):
                if isinstance(end, int):
                    stack.callback(os.close, end)
            out: Any = subprocess.DEVNULL
            if isinstance(stdout, Path):
                out = stack.enter_context(stdout.open("wb"))
            elif stdout is not None:
                out = stdout
            said = stack.enter_context(stderr.open("ab"))
            before = said.tell()
            with self._lock:
                if self._stopping.is_set():
                    raise Stopped
                try:
                    process = subprocess.Popen(
                        list(argv),
                        stdin=subprocess.DEVNULL if stdin is None else stdin,
                        stdout=out,
                        stderr=said,
                        env=self.env,
                        cwd=str(self.cwd),
                    )
                except OSError as error:
                    raise Failed(f"{argv[0]} cannot be started: {error.strerror}") from error
                member = Member(name, process, stderr, before)
                self.members.append(member)
        threading.Thread(target=self._await, args=(member, process), daemon=True).start()
        return member

    def thread(self, name: str, work: Callable[[], None], close: Sequence[int] = ()) -> Member:
        """Run a function beside the programs; it is a member like them.

        Parameters
        ----------
        close : sequence of int
            Ends of pipes that are closed when it has ended. That it failed is known before, so
            nobody takes it for the end of the data.
        """
        member = Member(name, None, None)
        with self._lock:
            self.members.append(member)
        threading.Thread(target=self._run, args=(member, work, close), daemon=True).start()
        return member

    @property
    def stopping(self) -> bool:
        """Whether a member has failed and the others are being ended."""
        return self._stopping.is_set()

    def wait(self, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until all members have ended, and those that they started meanwhile.

        Parameters
        ----------
        tick : callable
            Called about once a second.

        Raises
        ------
        Failed
            One of them failed; all others were ended.
        """
        left = 1
        while left:
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=1.0)
            tick()
            with self._lock:
                left = sum(not member.done.is_set() for member in self.members)
                failed = any(member.failure for member in self.members)
            if failed:
                self._stop()

    def abort(self) -> None:
        """End all members."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        end = time.monotonic() + _GRACE
        for member in self.members:
            if member.process and not member.done.wait(max(0.0, end - time.monotonic())):
                self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """Send a signal to all programs that run; the lock keeps their numbers from others."""
        with self._lock:
            for member in self.members:
                if member.process and member.process.returncode is None:
                    os.kill(member.process.pid, number)

    def _stop(self) -> NoReturn:
        """End the pipe and say who was the first to fail."""
        time.sleep(_TOGETHER)
        with self._lock:
            failed = [member for member in self.members if member.failure]
        self.abort()
        failed.sort(key=lambda member: (member.innocent, member.ended))
        guilty = [member for member in failed if not member.innocent] or failed[:1]
        if guilty[0].whole:  # a thread of ours knows the cause: others only follow
            del guilty[1:]
        raise Failed("; ".join(member.told for member in guilty[:_BLAMED]), guilty[0].reason)

    def _await(self, member: Member, process: subprocess.Popen[bytes]) -> None:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        member.cpu_seconds = used.ru_utime + used.ru_stime
        member.judge(process.returncode)
        self._end(member)

    def _run(self, member: Member, work: Callable[[], None], close: Sequence[int]) -> None:
        try:
            work()
        except Stopped:
            pass
        except BrokenPipeError:
            member.failure, member.innocent = "lost its reader", True
        except Failed as error:
            member.failure, member.reason, member.whole = error.text, error.reason, True
        except Exception as error:
            member.failure = f"failed: {type(error).__name__}: {error}"
        self._end(member)
        for end in close:
            with contextlib.suppress(OSError):
                os.close(end)

    def _end(self, member: Member) -> None:
        member.ended = time.monotonic()
        member.done.set()
        self._ended.put(member)


def joint() -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe, with a large buffer."""
    read, write = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write, _F_SETPIPE_SZ, _PIPE_SIZE)
    return read, write


def write_all(end: int, data: bytes | memoryview) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(end, view) :]


def open_fifo(path: Path, reader: Member, pipe: Pipe) -> int:
    """Open a FIFO to write, when its reader has opened it too.

    Raises
    ------
    Stopped
        The pipe has failed.
    BrokenPipeError
        Its reader has ended without a look at it.
    """
    while True:
        try:
            end = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            if pipe.stopping:
                raise Stopped from None
            if reader.done.wait(0.01):
                raise BrokenPipeError from None
            continue
        os.set_blocking(end, True)
        with contextlib.suppress(OSError):
            fcntl.fcntl(end, _F_SETPIPE_SZ, _PIPE_SIZE)
        return end


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
