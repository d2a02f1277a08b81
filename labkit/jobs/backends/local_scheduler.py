"""The local scheduler, started by :class:`labkit.jobs.backends.local_queue.LocalQueue`.

One per user and machine. It detaches at once, outlives the kernel that started it, and ends when
it has had nothing to do for a while. All it knows is in the run folders and the queue: when it is
killed, the next one takes over its running workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labkit.base import process_tree
from labkit.base.problems import LabkitError
from labkit.base.units import format_size
from labkit.jobs.backends.capacity import capacity, free_memory
from labkit.jobs.backends.local_job import Job, TakenOverError
from labkit.jobs.backends.local_queue import LocalQueue, clean_environment
from labkit.jobs.backends.local_stage import Live, StageLeft
from labkit.jobs.runs.index import Index
from labkit.jobs.runs.store import Run
from labkit.jobs.worker.folder import mark

log = logging.getLogger("labkit.scheduler")

_IDLE = 60.0  # seconds without work before it ends
_LOOK = 1.0  # seconds between two looks where nothing wakes it
_ADOPTED_LOOK = 0.25  # workers of an earlier scheduler send no signal when they end
_STARVED = 30.0  # seconds a job waits before others may no longer pass it
_BURST = 32  # workers started before the ended ones are looked at again
_GONE = 600.0  # seconds a run folder may be away (an unmounted disk) before its job is dropped
_TRIES = 20
_MARGIN = 64 * 1024**2  # bytes of memory left to the machine


class Scheduler:
    """Runs what is in the queue, within the capacity of the machine or the cgroup around it.

    Parameters
    ----------
    queue : LocalQueue
        The queue.
    """

    def __init__(self, queue: LocalQueue) -> None:
        self._queue = queue
        self._jobs: dict[str, Job] = {}
        self._missing: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._said: dict[str, tuple[float, object]] = {}
        self._capacity = capacity()
        self._busy_until = time.monotonic() + _IDLE
        self._pipe = _open_pipe(queue.pipe)
        self._signals, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self._signals, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Work until there has been nothing to do for a while."""
        with ExitStack() as awake:
            held = False
            while True:
                self._look()
                self._queue.lock.touch()  # a sign of life for machines that share the home
                if self._jobs:
                    self._busy_until = time.monotonic() + _IDLE
                    if not held:
                        held = True
                        awake.enter_context(_keep_server_awake())
                else:
                    held = False
                    awake.close()
                    if time.monotonic() > self._busy_until:
                        return
                self._sleep()

    def _look(self) -> None:
        self._take_queue()
        self._attend()
        while self._start_some():
            self._attend()
        for name, job in list(self._jobs.items()):
            if job.over:
                job.sweep()
                self._forget(name)
                log.info("%s is over", name)
            elif self._vanished(job):
                self._abandon(name, job)
            else:
                self._tell(name, job)

    def _vanished(self, job: Job) -> bool:
        """Return whether a run folder is gone; not where its disk only gives errors."""
        try:
            return not job.run.folder.manifest.exists()
        except OSError as error:
            job.waits_for = f"its run folder cannot be read: {error.strerror or error}"
            return False

    def _attend(self) -> None:
        for name, job in list(self._jobs.items()):
            try:
                job.attend()
            except TakenOverError:
                self._surrender(name, job)
            except OSError as error:  # one job's disk must not end the others
                log.warning("%s: %s", name, error)

    def _surrender(self, name: str, job: Job) -> None:
        """Let go of a job that another machine has taken over while this one was frozen."""
        log.warning("%s was taken over by another machine", name)
        job.surrender()
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._queue.remove(name)
        self._said.pop(name, None)
        self._jobs.pop(name, None)

    def _take_queue(self) -> None:
        new = {
            name: self._queue.read(name) for name in self._queue.names() if name not in self._jobs
        }
        for name, entry in sorted(new.items(), key=lambda item: (item[1] or {}).get("queued", 0)):
            try:
                self._take(name, entry or self._repaired(name))
            except (LabkitError, LookupError, OSError, ValueError) as error:
                self._refuse(name, f"cannot be read: {error}")

    def _take(self, name: str, entry: dict[str, Any]) -> None:
        run = Run(Path(entry["run"]))
        if not run.folder.manifest.exists():
            since = self._missing.setdefault(name, time.monotonic())
            if time.monotonic() - since > _GONE:
                self._queue.remove(name)
            return
        self._missing.pop(name, None)
        submission = next((s for s in run.submissions() if s.number == entry["number"]), None)
        if submission is None:
            raise LookupError(f"{run.path} has no submission {entry['number']}")
        theirs = self._queue.elsewhere(submission, run)
        if theirs is not None and theirs.is_fresh():
            log.info("%s is in the hands of %s", name, theirs.host)
            self._queue.remove(name)
            return
        self._jobs[name] = Job(run, submission, self._capacity.memory, self._queue.path)
        self._refused.pop(name, None)
        log.info("%s is taken", name)

    def _refuse(self, name: str, text: str) -> None:
        """Say why a job is not taken; it is tried again with each look."""
        if self._refused.get(name) == text:
            return
        log.warning("%s %s", name, text)
        self._refused[name] = text
        with contextlib.suppress(OSError):
            self._queue.write_status(name, {"text": text})

    def _repaired(self, name: str) -> dict[str, Any]:
        """Write anew an entry that a power cut has left empty: its run folder is the truth."""
        if name not in self._refused:
            for run in Index().runs():
                if not name.startswith(f"labkit-{run.path.name}-"):
                    continue
                for submission in run.submissions():
                    if submission.name == name:
                        self._queue.add(name, run.path, submission.number)
                        log.info("%s: its entry in the queue was empty and is written anew", name)
                        return self._queue.read(name) or {}
        raise LookupError("its entry in the queue is empty. Open the job: that writes it anew")

    def _abandon(self, name: str, job: Job) -> None:
        """End what writes into a run folder that is gone; it is taken again when it is back."""
        log.warning("%s: the run folder %s is gone", name, job.run.path)
        for live in job.live:
            process_tree.end(live.pid, 0)
            process_tree.kill([live.pid])
        self._missing.setdefault(name, time.monotonic())
        del self._jobs[name]

    def _start_some(self) -> bool:
        """Start what fits; True where there may be more to start."""
        started = 0
        first = ""  # who has waited so long that nobody may pass any more
        for name, job in sorted(self._jobs.items(), key=_running_cores):
            if job.cancelled:
                continue
            left = job.next_stage_tasks()
            if left is None:
                continue
            wait = f"waits for {first}, whose turn it is" if first else self._wait_for(job, left)
            if wait:
                job.waits_for = wait
                job.waits_since = job.waits_since or time.monotonic()
                starved = time.monotonic() - job.waits_since > _STARVED
                # Where no task runs, it is not tasks that are in its way.
                if starved and not first and any(j.live for j in self._jobs.values()):
                    first = job.run.path.name
                continue
            try:
                attempt = job.claim(left, left.todo[0])
            except TakenOverError:
                self._surrender(name, job)
                continue
            except OSError as error:
                job.waits_for = f"its run folder cannot be written: {error.strerror or error}"
                continue
            job.waits_for, job.waits_since = "", None
            if not self._start(job, left, attempt):
                break
            started += 1
            if started >= _BURST:
                break
        return started > 0

    def _wait_for(self, job: Job, left: StageLeft) -> str:
        """Return what the next task has to wait for; empty where it can start."""
        cpu, memory = job.asked(left, left.todo[0])
        lives = [live for other in self._jobs.values() for live in other.live]
        own_cpu = job.submission.options.get("cpu")
        if own_cpu and lives and sum(live.cpu for live in job.live) + cpu > own_cpu + 1e-9:
            return f"local_cpu={own_cpu:g} are in use"
        if lives and sum(live.cpu for live in lives) + cpu > self._capacity.cpu + 1e-9:
            return f"all {self._capacity.cpu:g} cores are in use"
        if sum(live.memory for live in lives) + memory > self._capacity.memory:
            return f"waits for {format_size(memory)} of memory: other tasks have it"
        free = free_memory() - _MARGIN
        if free - sum(live.memory for live in lives) >= memory:
            return ""
        # Tight: what running tasks asked for and do not use yet must stay theirs.
        for live in lives:
            used = process_tree.resident([live.pid, *process_tree.descendants(live.pid)])
            free -= max(0, live.memory - used)
        if free >= memory:
            return ""
        return (
            f"waits for {format_size(memory)} of memory, {format_size(max(0, free))} are free: "
            "close notebooks that hold data, or cancel and submit with less (memory=)"
        )

    def _start(self, job: Job, left: StageLeft, attempt: int) -> bool:
        index = left.todo.popleft()
        cpu, memory = job.asked(left, index)
        command = [
            sys.executable, "-I", "-S", str(job.run.path / "worker"), left.work.name, str(index),
            "--attempt", str(attempt), "--submission", str(job.submission.number),
            "--memory", str(memory), "--on-term", "LOST",
        ]  # fmt: skip
        environment = {**clean_environment(), "PATH": job.path}
        if job.envs:
            environment["LABHUB_ENVS"] = job.envs
        where = (left.work.name, index, attempt)
        environment["LABKIT_ATTEMPT"] = mark(job.run.path, *where)
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # no more processes: others must end first
            log.warning("%s %s cannot be started: %s", left.work.name, index, error)
            job.unclaim(left, index)
            left.todo.appendleft(index)
            return False
        start = process_tree.start_time(process.pid) or 0
        left.live[index] = Live(*where, process.pid, start, cpu, memory, process)
        return True

    def _tell(self, name: str, job: Job) -> None:
        at, said = self._said.get(name, (-_LOOK, None))
        if time.monotonic() - at < _LOOK:
            return
        status = job.status()
        try:
            if status != said:
                self._queue.write_status(name, status)
            self._said[name] = (time.monotonic(), status)
        except OSError as error:
            log.warning("the status of %s cannot be written: %s", name, error)

    def _sleep(self) -> None:
        adopted = any(live.process is None for job in self._jobs.values() for live in job.live)
        wait = _ADOPTED_LOOK if adopted else _LOOK
        ready, _, _ = select.select([self._pipe, self._signals], [], [], wait)
        for descriptor in ready:
            try:
                os.read(descriptor, 4096)
            except BlockingIOError:
                continue


def _running_cores(item: tuple[str, Job]) -> float:
    return sum(live.cpu for live in item[1].live)


def _open_pipe(path: Path) -> int:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # Held for reading and writing: it never says "end of file".
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


def _keep_server_awake() -> ExitStack:
    """Tell the hub's idle culling that jobs run."""
    stack = ExitStack()
    try:
        from labkit.base import activity
    except ImportError:
        return stack
    stack.enter_context(activity.hold("labkit jobs run on this machine"))
    return stack


def main() -> int:
    """Serve the queue that the first argument names, if nobody does."""
    queue = LocalQueue(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for _ in range(_TRIES):  # whoever looks whether a scheduler lives holds the lock for a moment
        with queue.held() as free:
            if free:
                queue.lock.write_text(str(os.getpid()))
                log.info("scheduler %s starts: %s", os.getpid(), capacity())
                Scheduler(queue).serve()
                log.info("scheduler %s ends: nothing to do", os.getpid())
        if free and not queue.names():  # nothing came in while it ended
            return 0
        time.sleep(0.05)
    return 0
