"""One task in a pod of an Indexed Job, on a volume that it shares with the one who asked.

The pod's command starts it::

    python3 -I -S -c '…' RUN STAGE --submission N --start S

Exit code 0: the task has succeeded; 1: a record says why not, and nothing is to be tried again; 75:
it may be tried again, which Kubernetes does as often as the job allows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from labkit.jobs.worker import intent, reap
from labkit.jobs.worker.commit import claim, claimed, records_of, succeeded
from labkit.jobs.worker.folder import Folder, mark, read_json, write_record
from labkit.jobs.worker.main import NOT_RECORDED, RECORDED_FAILURE, RECORDED_SUCCESS
from labkit.jobs.worker.retry import retry_memory

AGAIN = 75  # EX_TEMPFAIL
_OPTIONS = ("--submission", "--start")
_LOOK = 1.0


class Pod:
    """One task's pod.

    Parameters
    ----------
    folder : Folder
        The run folder.
    stage : str
        Name of the stage.
    given : dict
        The options of the command line.
    """

    def __init__(self, folder: Folder, stage: str, given: dict[str, str]) -> None:
        self._folder, self._stage = folder, stage
        self._submission = int(given["--submission"])
        asked = read_json(folder.submission(self._submission))
        if asked is None:
            raise FileNotFoundError(f"{folder.path} is no run folder (any more)")
        self._work: dict[str, Any] = next(w for w in asked["stages"] if w["name"] == stage)
        place = int(given["--start"]) + int(os.environ["JOB_COMPLETION_INDEX"])
        self._index = intent.numbers(self._work["tasks"])[place]
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    def run(self) -> int:
        """Run the task unless it has ended; return the exit code."""
        signal.signal(signal.SIGTERM, self._terminated)
        if self._folder.cancelled(self._submission).exists():
            print("labkit: the submission was cancelled")
            return RECORDED_FAILURE
        before = self._verdict()
        if before != AGAIN:
            return before
        if self._ended:
            return AGAIN
        where = (self._stage, self._index, claim(self._folder, self._stage, self._index))
        command = [
            sys.executable, "-I", "-S", str(self._folder.path / "worker"), self._stage,
            str(self._index), "--attempt", str(where[2]), "--submission", str(self._submission),
            "--on-term", "PREEMPTED", "--grace", "10",
        ]  # fmt: skip
        env = {**os.environ, "LABKIT_ATTEMPT": mark(self._folder.path, *where)}
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env)
        if self._ended:
            self._child.send_signal(signal.SIGTERM)
        code = self._child.wait()
        if read_json(self._folder.record(*where)) is None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            self._reap(where, ("FAILED", "LOST", f"its worker {how} and left no record"))
        return self._verdict()

    def _verdict(self) -> int:
        """Return how the task stands: succeeded, failed for good, or to be tried (again)."""
        records = self._records()
        since = intent.success_since(self._work, self._submission, self._index)
        if any(succeeded(record, since) for record in records):
            return RECORDED_SUCCESS
        mine = [
            record
            for record in records
            if record["submission"] == self._submission and record.get("began") is not False
        ]
        if not mine:
            return AGAIN
        # Here memory cannot grow: a pod has what it has.
        last, memory = mine[-1], int(self._work["resources"]["memory"])
        reason = last.get("reason", "")
        again = retry_memory(reason, memory, len(mine), self._work["retries"], memory)
        return RECORDED_FAILURE if again is None else AGAIN

    def _records(self) -> list[dict[str, Any]]:
        """Return the records of the task's attempts; what left none gets one."""
        number = 1
        while claimed(self._folder, self._stage, self._index, number):
            where = (self._stage, self._index, number)
            path = self._folder.running(*where)
            beat = read_json(path)
            # Its node is cut off from the cluster, and works on.
            while (
                beat and read_json(self._folder.record(*where)) is None and reap.lives(beat, path)
            ):
                if self._ended:
                    return []
                time.sleep(_LOOK)
                beat = read_json(path)
            if beat:
                text = "its pod was killed, or its node was lost"
                self._reap(where, ("FAILED", "NODE_FAIL", text))
            number += 1
        return records_of(self._folder, self._stage, self._index)

    def _reap(self, where: tuple[str, int, int], verdict: tuple[str, str, str]) -> None:
        beat = read_json(self._folder.running(*where)) or {}
        if read_json(self._folder.record(*where)) is None and (
            reap.settled(self._folder, beat, *where) is None
        ):
            submission = beat.get("submission", self._submission)
            record = reap.record(beat, where, submission, verdict, "kubernetes")
            write_record(self._folder.record(*where), record)
        for path in (self._folder.reserved(*where), self._folder.running(*where)):
            path.unlink(missing_ok=True)

    def _terminated(self, *_: object) -> None:
        self._ended = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)


def main(argv: list[str]) -> int:
    """Run the task that the arguments and the pod's variables name."""
    if len(argv) < 2 or len(argv) % 2 or any(name not in _OPTIONS for name in argv[2::2]):
        print(__doc__, file=sys.stderr)
        return 64
    given = {argv[i]: argv[i + 1] for i in range(2, len(argv), 2)}
    try:
        return Pod(Folder(Path(argv[0])), argv[1], given).run()
    except OSError as error:
        print(f"labkit: {argv[1]} could not be recorded: {error}", file=sys.stderr)
        return NOT_RECORDED
