"""An attempt from its start to its record."""

from __future__ import annotations

import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from labkit.base import files, process_tree
from labkit.jobs.worker import cgroup, commit
from labkit.jobs.worker.attempt import Attempt, AttemptFailed
from labkit.jobs.worker.folder import (
    Folder,
    fill,
    make_private,
    mark,
    reserve,
    unique_name,
    write_json,
)
from labkit.jobs.worker.watch import Watch

_TAIL = 4000  # bytes of the log's end in the record of a failure
_FULL = 1024**2  # a disk with less than this left is full
_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM", "BLIS", "ITK_GLOBAL_DEFAULT")
_PRIVATE = ("JUPYTERHUB_", "JPY_", "PYTHON", "LABKIT_")


class Execution:
    """One attempt of one task.

    Parameters
    ----------
    folder : Folder
        The run folder.
    manifest : dict
        Its manifest.
    work : dict
        What the submission says of this stage.
    submission : int
        Number of the submission.
    task : dict
        The task's line of the table.
    number : int
        Number of the attempt.
    memory : int or None
        Bytes; None: as the submission says.
    seconds : float or None
        Longest time where the submission sets none.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        *,
        folder: Folder,
        manifest: dict[str, Any],
        work: dict[str, Any],
        submission: int,
        task: dict[str, Any],
        number: int,
        memory: int | None,
        seconds: float | None,
        grace: float,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._stage: dict[str, Any] = next(
            stage for stage in manifest["stages"] if stage["name"] == work["name"]
        )
        self._task = task
        self._submission = submission
        self._asked: dict[str, Any] = work["resources"]
        self._memory = memory or self._asked["memory"]
        self._seconds: float | None = self._asked.get("time") or seconds
        self._grace = grace
        stage, index = work["name"], task["index"]
        self._where = (stage, index, number)
        self._out = folder.attempt(stage, index, number)
        self._log = folder.log(stage, index, number)
        self._unique = unique_name(folder.path, stage, index, number)
        self._tmp = Path(os.environ.get("TMPDIR") or "/tmp") / self._unique  # noqa: S108
        self._group: cgroup.MemoryGroup | None = None
        self._watch: Watch | None = None
        self._started = time.time()
        self._record: dict[str, Any] = {
            "stage": stage,
            "index": index,
            "key": task["key"],
            "attempt": number,
            "submission": submission,
            "state": "RUNNING",
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "pid_start": process_tree.start_time(os.getpid()),
            "place": process_tree.place(),
            "started": round(self._started, 3),
            "cpu": self._asked["cpu"],
            "memory": self._memory,
            "units": task.get("units", 1),
        }

    def run(self) -> bool:
        """Run the attempt and write its record; True when it succeeded.

        Raises
        ------
        OSError
            Nothing can be recorded: no disk space, or no run folder.
        """
        stage, index, number = self._where
        reserved = self._folder.reserved(stage, index, number)
        reserve(reserved)
        self._out.mkdir(exist_ok=True)
        write_json(self._folder.running(*self._where), self._record)
        process_tree.adopt_orphans()
        self._record.update(self._attempt())
        self._record["ended"] = round(time.time(), 3)
        self._record["seconds"] = round(self._record["ended"] - self._started, 3)
        self._measure()
        fill(reserved, self._record)
        files.put_in_place(reserved, self._folder.record(*self._where))
        self._folder.running(*self._where).unlink()
        return bool(self._record["state"] == "SUCCEEDED")

    def terminated(self, reason: str, text: str) -> None:
        """Answer a SIGTERM: end the processes; the attempt then ends with this reason."""
        verdict = (reason, text)
        if self._folder.cancelled(self._submission).exists():
            verdict = ("CANCELLED", "cancelled")
        if self._watch is None:
            raise AttemptFailed(*verdict)
        # Not in the signal handler itself: it may have interrupted the watch's own lock.
        threading.Thread(
            target=self._watch.end_all, args=(verdict,), daemon=True, name="labkit-end"
        ).start()

    def _attempt(self) -> dict[str, Any]:
        """Run the program or driver, check, commit; return what the record gets of it."""
        with self._log.open("ab", buffering=0) as log:
            attempt: Attempt | None = None
            try:
                make_private(self._tmp)
                attempt = self._prepare(log)
                commit.check_inputs(attempt)
                self._execute(attempt)
                commit.check_outputs(attempt)
                result = commit.commit(self._folder, attempt, self._submission)
            except AttemptFailed as failure:
                ended = self._failed(failure)
            except OSError as error:
                ended = self._failed(AttemptFailed("STORAGE", f"{error}"))
            except Exception as error:
                log.write(_trace().encode())
                ended = self._failed(AttemptFailed("DRIVER", f"{type(error).__name__}: {error}"))
            else:
                ended = {"state": "SUCCEEDED", "result": result}
                if attempt.units_failed:
                    first = attempt.units_failed[0]
                    text = f"{len(attempt.units_failed)} of {attempt.units_total} units failed"
                    ended |= {
                        "state": "FAILED",
                        "reason": first["reason"],
                        "text": f"{text}: {first['key']}: {first['text']}",
                        "units_failed": attempt.units_failed,
                    }
            finally:
                shutil.rmtree(self._tmp, ignore_errors=True)
            if ended["state"] != "SUCCEEDED":
                ended["log_tail"] = self._tail()
            if attempt is not None:
                ended["units_done"], ended["units"] = self._units(attempt, ended["state"])
                if attempt.facts:
                    ended["facts"] = attempt.facts
            return ended

    def _prepare(self, log: Any) -> Attempt:
        stage, index, number = self._where
        envs = os.environ.get("LABHUB_ENVS") or self._manifest.get("envs", "")
        cores = max(1, math.ceil(self._asked["cpu"]))
        values = {
            "out": str(self._out),
            "run": str(self._folder.path),
            "files": str(self._folder.files),
            "results": str(self._folder.results),
            "tmp": str(self._tmp),
            "envs": envs,
            "cpu": str(cores),
            "memory": str(self._memory),
            "memory_mb": str(self._memory // 1024**2),
            "attempt": str(number),
            "key": self._task["key"],
            "index": str(index),
        }
        env = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE)}
        env["PATH"] = env.get("PATH") or self._manifest["path"]
        env["TMPDIR"] = str(self._tmp)
        env["LABKIT_ATTEMPT"] = mark(self._folder.path, *self._where)
        env["LABKIT_PROGRESS"] = str(self._tmp / "progress")
        env.update({f"{name}_NUM_THREADS": str(cores) for name in _THREADS})
        environment = (self._stage.get("environment") or {}).get("name")
        if environment and os.environ.get("LABKIT_ENVIRONMENT") != "path":
            env["PATH"] = f"{self._environment(environment, envs)}{os.pathsep}{env['PATH']}"
        committed = self._folder.result(stage, self._task["key"])
        before = [r for r in commit.records_of(self._folder, stage, index) if r.get("units_failed")]
        return Attempt(
            run_folder=self._folder.path,
            stage=stage,
            task=self._task,
            number=number,
            values=values,
            env=env,
            log=log,
            start=self._start,
            earlier=committed if committed.is_dir() else None,
            failed_before=before[-1]["units_failed"] if before else (),
        )

    def _environment(self, name: str, envs: str) -> Path:
        recorded = self._manifest.get("envs", "")
        places = [Path(root) / name / "bin" for root in (envs, recorded) if root]
        for place in places:
            if place.is_dir():
                return place
        tried = ", ".join(map(str, places)) or "LABHUB_ENVS, which is not set"
        raise AttemptFailed(
            "INPUT", f"the environment {name!r} is not on {os.uname().nodename}: tried {tried}"
        )

    def _execute(self, attempt: Attempt) -> None:
        try:
            self._group = cgroup.MemoryGroup(self._unique, self._memory)
        except OSError:
            self._group = None
        self._watch = watch = Watch(
            memory=self._memory,
            seconds=self._seconds,
            group=self._group,
            grace=self._grace,
            progress=self._tmp / "progress",
            beat=self._beat,
        )
        watch.units = lambda: self._units(attempt, "RUNNING")
        watch.start()
        failure: AttemptFailed | None = None
        try:
            if self._stage.get("driver"):
                self._drive(attempt)
            else:
                self._exec(attempt)
        except AttemptFailed as error:
            failure = error
        finally:
            # What the program left in the background would write on after the commit.
            process_tree.end(os.getpid(), 0 if failure is None else self._grace)
            watch.stop(failure is not None or bool(attempt.units_failed))
            if self._group:
                watch.peak = watch.peak or self._group.peak()
                self._group.remove()
        if watch.verdict:
            raise AttemptFailed(*watch.verdict, failure.exit_code if failure else None)
        if failure:
            if failure.exit_code in (-9, 137) and watch.killed_from_above():
                raise AttemptFailed(
                    "OUT_OF_MEMORY", "the machine or the server around it ran out of memory", -9
                )
            raise failure

    def _exec(self, attempt: Attempt) -> None:
        code = attempt.call(attempt.argv)
        if code < 0:
            raise AttemptFailed("EXIT", f"{attempt.argv[0]} was ended by signal {-code}", code)
        if code:
            raise AttemptFailed("EXIT", f"{attempt.argv[0]} ended with code {code}", code)

    def _drive(self, attempt: Attempt) -> None:
        sys.path.insert(0, str(self._folder.drivers(attempt.stage)))
        try:
            import_module(self._stage["driver"]).run(attempt)
        except AttemptFailed:
            raise
        except Exception as error:
            attempt.say(_trace())
            if self._watch and self._watch.verdict:
                raise AttemptFailed(*self._watch.verdict) from error
            raise AttemptFailed("DRIVER", f"{type(error).__name__}: {error}") from error

    def _start(
        self, argv: list[str], *, env: dict[str, str], cwd: str, stdout: Any
    ) -> subprocess.Popen[bytes]:
        group = self._group

        def first() -> None:
            process_tree.die_with_parent()
            if group:
                group.join()

        if self._watch and self._watch.verdict:
            raise AttemptFailed(*self._watch.verdict)
        program = shutil.which(argv[0], path=env["PATH"]) if argv else None
        if program is None:
            raise AttemptFailed(
                "EXIT", f"the program {argv[:1]} is not installed on {os.uname().nodename}", 127
            )
        try:
            process = subprocess.Popen(
                [program, *argv[1:]],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                preexec_fn=first,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise AttemptFailed("EXIT", f"{argv[0]} cannot be started: {error}", 126) from error
        if self._watch and self._watch.verdict:  # ended while it was starting
            process_tree.end(os.getpid(), self._grace)
        return process

    def _failed(self, failure: AttemptFailed) -> dict[str, Any]:
        reason, text = failure.reason, failure.text
        if reason in ("EXIT", "CHECK", "DRIVER", "STORAGE") and self._disk_full():
            reason, text = "DISK_FULL", f"no space left for {self._out}; {text}"
        state = "CANCELLED" if reason in ("CANCELLED", "SUPERSEDED") else "FAILED"
        ended: dict[str, Any] = {"state": state, "reason": reason, "text": text}
        if failure.exit_code is not None:
            ended["exit"] = failure.exit_code
        return ended

    def _disk_full(self) -> bool:
        if "No space left on device" in self._tail():
            return True
        for path in (self._folder.path, self._tmp.parent):
            try:
                disk = os.statvfs(path)
            except OSError:
                continue
            if disk.f_bavail * disk.f_frsize < _FULL:
                return True
        return False

    def _tail(self) -> str:
        return files.tail(self._log, most=_TAIL)

    def _units(self, attempt: Attempt, state: str) -> tuple[float, int]:
        """Return done and planned units; a program that counts otherwise is scaled to the plan."""
        planned: int = self._task.get("units", 1)
        if state == "SUCCEEDED":
            return planned, planned
        done, total = attempt.units_done, attempt.units_total
        if not done and self._watch and self._watch.told:
            done, told = self._watch.told
            total = told or total
        return round(min(1.0, done / max(1, total)) * planned, 3), planned

    def _beat(self, now: dict[str, Any]) -> None:
        done, total = self._watch.units() if self._watch else (0, 0)
        beat = {**self._record, **now, "units_done": done, "units": total}
        try:
            write_json(
                self._folder.running(*self._where), {**beat, "updated": round(time.time(), 3)}
            )
        except OSError:
            return  # the record at the end says what the disk had to say

    def _measure(self) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._record["cpu_seconds"] = round(used.ru_utime + used.ru_stime, 3)
        if self._watch:
            # Too short to be looked at: at most what the largest process ever had.
            self._record["peak_rss"] = self._watch.peak or used.ru_maxrss * 1024


def _trace() -> str:
    import traceback  # only a failure needs it

    return traceback.format_exc()
