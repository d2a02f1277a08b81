"""One element of a SLURM job array: runs its tasks, and asks SLURM for another attempt.

The job script starts it in the batch step::

    python3 -I -S -c '…' RUN STAGE --submission N --start S --each E … [-- apptainer exec …]

No daemon of ours has to live for retries. SLURM starts an element again after its node has failed
or it was preempted; after a lack of memory the element requeues itself, with more memory. It stays
the same job, so what depends on it goes on waiting.

Exit code 0: all tasks have succeeded; 1: records say why not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.jobs.worker import intent, reap, signals
from labkit.jobs.worker.commit import claim, claimed, records_of, succeeded
from labkit.jobs.worker.folder import Folder, mark, read_json, write_record
from labkit.jobs.worker.main import NOT_RECORDED, RECORDED_FAILURE, RECORDED_SUCCESS
from labkit.jobs.worker.retry import retry_memory

MB = 1024**2
_OPTIONS = ("--submission", "--start", "--each", "--most", "--margin", "--grace", "--time",
            "--limit", "--bin")  # fmt: skip
_RESTARTS = 20  # of one element: something is wrong with requeueing
_TIMEOUT = 600.0  # seconds that the controller may be away when a retry is asked for
_PAUSE = 5.0
_LOOK = 1.0
# A node refuses what SLURM starts again within the second of its requeue ("Job credential revoked",
# times are whole seconds), and SLURM then fails the job.
_SOON = "now+2"


class Element:
    """The tasks of one array element.

    Parameters
    ----------
    folder : Folder
        The run folder.
    stage : str
        Name of the stage.
    given : dict
        The options of the command line.
    prefix : list of str
        Command that the worker is run by, e.g. ``apptainer exec image``; may be empty.
    """

    def __init__(
        self, folder: Folder, stage: str, given: dict[str, str], prefix: list[str]
    ) -> None:
        self.folder = folder
        self.stage = stage
        self.submission = int(given["--submission"])
        asked = read_json(folder.submission(self.submission))
        if asked is None:
            raise FileNotFoundError(f"{folder.path} is no run folder (any more)")
        self.work: dict[str, Any] = next(w for w in asked["stages"] if w["name"] == stage)
        each = int(given["--each"])
        first = int(given["--start"]) + each * int(os.environ["SLURM_ARRAY_TASK_ID"])
        self.tasks = intent.numbers(self.work["tasks"])[first : first + each]
        self.asked = int(self.work["resources"]["memory"])
        self.margin = int(given["--margin"])
        granted = int(os.environ.get("SLURM_MEM_PER_NODE", "0")) * MB
        self.granted = max(0, granted - self.margin)  # 0: SLURM does not count memory here
        self.most = int(given["--most"])
        self.given = given
        self.prefix = prefix
        self.job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.ended = False
        self.began = time.monotonic()

    def run(self) -> bool:
        """Run what is left; True when all tasks have succeeded."""
        if not self._wanted():
            return False
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        reap.sweep_machine(self.folder)
        failed, more = 0, []
        for index in self.tasks:
            memory = self._next(index)
            while memory and not self._too_much(memory) and not self.ended:
                self._attempt(index, memory)
                memory = self._next(index)
                if not self._in_time():
                    break
            if memory:  # not here and now: SLURM gives it more memory, or its whole time again
                more.append(memory)
            elif memory is None:
                failed += 1
            if self.ended:
                return False
        if more:
            self._again(max(more))
        return not failed and not more

    def _wanted(self) -> bool:
        """Return whether this job is the one that was recorded, and nobody has cancelled it."""
        if self.folder.cancelled(self.submission).exists():
            print("labkit: the submission was cancelled")
            return False
        accepted = read_json(self.folder.accepted(self.submission))
        mine = os.environ["SLURM_ARRAY_JOB_ID"]
        if accepted and mine not in [str(job["id"]) for job in accepted["jobs"]]:
            print(f"labkit: job {mine} was submitted twice, and the other one counts")
            return False
        return True

    def _next(self, index: int) -> int | None:
        """Return the memory (bytes) of a task's next attempt: 0 after success, None for no more."""
        records = self._records(index)
        since = intent.success_since(self.work, self.submission, index)
        if any(succeeded(record, since) for record in records):
            return 0
        if other := intent.later(self.folder, self.stage, index, self.submission):
            print(f"labkit: task {index} belongs to submission {other} now", flush=True)
            return None
        mine = [
            record
            for record in records
            if record["submission"] == self.submission and record.get("began") is not False
        ]
        if not mine:
            return self.asked
        last = mine[-1]
        memory = last.get("memory", self.asked)
        return retry_memory(
            last.get("reason", ""), memory, len(mine), self.work["retries"], self.most
        )

    def _records(self, index: int) -> list[dict[str, Any]]:
        """Return the records of a task's attempts; what left none gets one."""
        number = 1
        while claimed(self.folder, self.stage, index, number):
            where = (self.stage, index, number)
            path = self.folder.running(*where)
            beat = read_json(path)
            # Its node is cut off from SLURM, or it was given up too early, and works on.
            while beat and read_json(self.folder.record(*where)) is None and reap.lives(beat, path):
                if self.ended:
                    return []
                time.sleep(_LOOK)
            if beat:
                self._reap(where, ("FAILED", "NODE_FAIL", "its node failed, or was lost to SLURM"))
            number += 1
        return records_of(self.folder, self.stage, index)

    def _too_much(self, memory: int) -> bool:
        return 0 < self.granted < memory

    def _in_time(self) -> bool:
        """Return whether another attempt can end before SLURM's time limit."""
        longest = self.work["resources"]["time"] or float(self.given.get("--time", "0"))
        spent = time.monotonic() - self.began
        return "--limit" not in self.given or spent + longest <= float(self.given["--limit"])

    def _attempt(self, index: int, memory: int) -> None:
        """Run the worker once; afterwards there is a record."""
        # Claimed before its process is there: whoever finds it dead knows which attempt it was.
        where = (self.stage, index, claim(self.folder, self.stage, index))
        command = [
            *self.prefix, "python3" if self.prefix else sys.executable, "-I", "-S",
            str(self.folder.path / "worker"), self.stage, str(index), "--attempt", str(where[2]),
            "--submission", str(self.submission), "--memory", str(memory),
            "--on-term", "SLURM", "--grace", self.given["--grace"],
        ]  # fmt: skip
        if "--time" in self.given:
            command += ["--time", self.given["--time"]]
        env = {**os.environ, "LABKIT_ATTEMPT": mark(self.folder.path, *where)}
        code = subprocess.call(command, stdin=subprocess.DEVNULL, env=env)
        if code not in (RECORDED_SUCCESS, RECORDED_FAILURE):
            self._unrecorded(where, code)
        with suppress(OSError):
            self.folder.attempt(*where).rmdir()  # it wrote nothing, or another one was first

    def _unrecorded(self, where: tuple[str, int, int], code: int) -> None:
        """Write the record of an attempt whose worker could not."""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        verdict = ("FAILED", "LOST", f"its worker {how} and left no record")
        ended = signals.slurm() if self.ended else None
        if ended:
            verdict = ("CANCELLED" if ended[0] == "CANCELLED" else "FAILED", *ended)
        elif code == NOT_RECORDED:
            disk = os.statvfs(self.folder.path)
            full = disk.f_bavail * disk.f_frsize < MB
            reason = "DISK_FULL" if full else "STORAGE"
            verdict = ("FAILED", reason, "its worker could not write into the run folder")
        elif code > 0:  # it did not even start, and will not the next time
            verdict = ("FAILED", "EXIT", f"its worker {how}: the job's output says why")
        self._reap(where, verdict)

    def _reap(self, where: tuple[str, int, int], verdict: tuple[str, str, str]) -> None:
        reap.clear(self.folder.path, *where)
        beat = read_json(self.folder.running(*where)) or {}
        if read_json(self.folder.record(*where)) is None and (
            reap.settled(self.folder, beat, *where) is None
        ):
            beat = beat or {"memory": self.granted or self.asked}
            submission = beat.get("submission", self.submission)
            record = reap.record(beat, where, submission, verdict, "slurm")
            if not write_record(self.folder.record(*where), record):
                return
        for path in (self.folder.reserved(*where), self.folder.running(*where)):
            path.unlink(missing_ok=True)

    def _terminated(self, *_: object) -> None:
        self.ended = True

    def _again(self, memory: int) -> None:
        """Put this element back into the queue; SLURM then ends us."""
        if self.restarts >= _RESTARTS:
            print(f"labkit: restarted {self.restarts} times already, that is enough")
            return
        changes = [f"JobId={self.job}", f"StartTime={_SOON}"]
        if self._too_much(memory):
            changes.append(f"MinMemoryNode={-(-(memory + self.margin) // MB)}")
        print(f"labkit: {self.job} asks for another attempt: {' '.join(changes)}", flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + _TIMEOUT
        while not self._scontrol("requeue", self.job):
            if time.monotonic() > deadline:
                print("labkit: SLURM does not take it back: job.retry() runs it again", flush=True)
                return
            time.sleep(_PAUSE)
        # Where this gets lost, SLURM starts the element two minutes later as it was, and it asks
        # again.
        self._scontrol("update", *changes)

    def _scontrol(self, *words: str) -> bool:
        program = shutil.which("scontrol") or f"{self.given['--bin']}/scontrol"
        try:
            return subprocess.call([program, *words], stdin=subprocess.DEVNULL) == 0
        except OSError as error:
            print(f"labkit: {program}: {error}", flush=True)
            return False


def main(argv: list[str]) -> int:
    """Run the element that the arguments and SLURM's variables name."""
    words, prefix = argv, []
    if "--" in argv:
        cut = argv.index("--")
        words, prefix = argv[:cut], argv[cut + 1 :]
    names = words[2::2]
    if len(words) < 2 or len(words) % 2 or any(name not in _OPTIONS for name in names):
        print(__doc__, file=sys.stderr)
        return 64
    given = {words[i]: words[i + 1] for i in range(2, len(words), 2)}
    try:
        element = Element(Folder(Path(words[0])), words[1], given, prefix)
        return RECORDED_SUCCESS if element.run() else RECORDED_FAILURE
    except OSError as error:
        print(f"labkit: {words[1]} could not be recorded: {error}", file=sys.stderr)
        return NOT_RECORDED
