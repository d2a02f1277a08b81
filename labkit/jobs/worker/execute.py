"""An attempt from its start to its record."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from labkit.base import files, process_tree
from labkit.jobs.worker import cgroup, commit, inputs
from labkit.jobs.worker.attempt import Attempt, AttemptFailed, trace
from labkit.jobs.worker.folder import (
    Folder,
    fill,
    publish,
    read_json,
    read_json_anew,
    reserve,
    unique_name,
    write_json,
)
from labkit.jobs.worker.setting import Setting, make_temporary
from labkit.jobs.worker.watch import Watch

_TAIL = 4000  # bytes of the log's end in the record of a failure
_FULL = 1024**2  # a disk with less than this left is full


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
    submission, since : int
        Number of the submission, and of the first whose success counts.
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
        since: int,
        task: dict[str, Any],
        number: int,
        memory: int | None,
        seconds: float | None,
        grace: float,
    ) -> None:
        self._folder, self._manifest = folder, manifest
        self._stage: dict[str, Any] = next(
            stage for stage in manifest["stages"] if stage["name"] == work["name"]
        )
        self._task = task
        self._submission, self._success_since = submission, since
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
        self._verdict: tuple[str, str] | None = None  # of a SIGTERM before the watch began
        self._started, self._since = time.time(), time.monotonic()
        self._begun: dict[str, Any] = {
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
        self._record = self._begun

    def run(self) -> bool:
        """Run the attempt and write its record; True when it succeeded.

        Raises
        ------
        OSError
            Nothing can be recorded: no disk space, no run folder, or another worker has this
            attempt.
        """
        reserved = self._folder.reserved(*self._where)
        place = self._folder.record(*self._where)
        beat = self._folder.running(*self._where)
        reserve(reserved)
        self._out.mkdir(exist_ok=True)
        if not write_json(beat, self._begun, exclusive=True):
            reserved.unlink()
            raise FileExistsError(f"another worker has attempt {self._where[2]}")
        # Read after the heartbeat was written; who gives an attempt up does the reverse.
        if read_json_anew(place) is None:
            if ended := self._no_turn():
                self._write_record(ended, None)
            else:
                process_tree.adopt_orphans()
                self._attempt()
            publish(reserved, place)
            files.sync_path(place.parent)
        else:
            print(f"labkit: {place} was given up before it began", file=sys.stderr)
        for path in (reserved, beat):  # a heartbeat that is left says that something is
            path.unlink(missing_ok=True)
        return (read_json(place) or {}).get("state") == "SUCCEEDED"

    def _no_turn(self) -> dict[str, Any]:
        """Return the record of an attempt that must not run; empty where it may."""
        if self._where[2] == 1:
            return {}
        from labkit.jobs.worker import reap  # a first attempt does without

        return reap.no_turn(self._folder, *self._where, self._submission, self._success_since)

    def terminated(self, reason: str, text: str) -> None:
        """Answer a SIGTERM: end the processes; the attempt then ends with this reason."""
        verdict = (reason, text)
        if self._folder.cancelled(self._submission).exists():
            verdict = ("CANCELLED", "cancelled")
        if self._watch is None:
            # Not raised here: it could interrupt what makes the cgroup, and leave that behind.
            self._verdict = verdict
            return
        # Not in the signal handler itself: it may have interrupted the watch's own lock.
        threading.Thread(
            target=self._watch.end_all, args=(verdict,), daemon=True, name="labkit-end"
        ).start()

    def _attempt(self) -> None:
        """Run the program or driver, check, commit; the record is whole afterwards."""
        with self._log.open("ab", buffering=0) as log:
            attempt: Attempt | None = None
            try:
                make_temporary(self._tmp)
                attempt = self._prepare(log)
                commit.check_inputs(attempt)
                self._execute(attempt)
                commit.check_outputs(attempt)
                written = self._write_record(self._succeeded(attempt), attempt)
                commit.commit(self._folder, attempt, self._record, written, self._success_since)
            except AttemptFailed as failure:
                self._write_record(self._failed(failure), attempt)
            except OSError as error:
                failed = self._failed(AttemptFailed("STORAGE", f"{error}"))
                self._write_record(failed, attempt)
            except Exception as error:
                log.write(trace().encode())
                text = f"{type(error).__name__}: {error}"
                self._write_record(self._failed(AttemptFailed("DRIVER", text)), attempt)
            finally:
                shutil.rmtree(self._tmp, ignore_errors=True)

    def _succeeded(self, attempt: Attempt) -> dict[str, Any]:
        result = self._folder.result(attempt.stage, attempt.key)
        ended = {"state": "SUCCEEDED", "result": str(result.relative_to(self._folder.path))}
        if not attempt.units_failed:
            return ended
        first = attempt.units_failed[0]
        text = f"{len(attempt.units_failed)} of {attempt.units_total} units failed"
        return {
            **ended,
            "state": "FAILED",
            "reason": first["reason"],
            "text": f"{text}: {first['key']}: {first['text']}",
            "units_failed": attempt.units_failed,
        }

    def _write_record(self, ended: dict[str, Any], attempt: Attempt | None) -> Path:
        """Write how it ended into the reserved space; it is no record before it has its name."""
        self._record = record = {**self._begun, **ended}
        if record["state"] != "SUCCEEDED":
            record["log_tail"] = self._tail()
        if attempt is not None:
            record["units_done"], record["units"] = self._units(attempt, record["state"])
            if attempt.facts:
                record["facts"] = attempt.facts
        # A clock may be set back meanwhile.
        record["seconds"] = round(time.monotonic() - self._since, 3)
        record["ended"] = round(self._started + record["seconds"], 3)
        self._measure()
        reserved = self._folder.reserved(*self._where)
        fill(reserved, record)
        return reserved

    def _prepare(self, log: Any) -> Attempt:
        stage, index, number = self._where
        setting = Setting(
            self._folder,
            self._manifest,
            self._stage,
            self._task,
            number,
            self._asked["cpu"],
            self._memory,
            self._out,
            self._tmp,
        )
        values, env = setting.values(), setting.env()
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

    def _execute(self, attempt: Attempt) -> None:
        if self._verdict:
            raise AttemptFailed(*self._verdict)
        with suppress(OSError):
            self._group = cgroup.MemoryGroup(self._unique, self._memory)
        self._watch = watch = Watch(
            memory=self._memory,
            seconds=self._seconds,
            group=self._group,
            grace=self._grace,
            progress=self._tmp / "progress",
            beat=self._beat,
        )
        watch.units = lambda: self._units(attempt, "RUNNING")
        watch.verdict = self._verdict
        watch.start()
        failure: AttemptFailed | None = None
        try:
            inputs.fetch(attempt, self._folder.fetcher, self._stage, self._manifest)
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
            attempt.say(trace())
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
        if reason in ("EXIT", "CHECK", "DRIVER", "STORAGE") and (full := self._full_disk()):
            reason, text = "DISK_FULL", f"no space left for {full}; {text}"
        state = "CANCELLED" if reason in ("CANCELLED", "SUPERSEDED") else "FAILED"
        ended: dict[str, Any] = {"state": state, "reason": reason, "text": text}
        if failure.exit_code is not None:
            ended["exit"] = failure.exit_code
        return ended

    def _full_disk(self) -> Path | None:
        """Return the folder that has no space left, if there is one."""
        for path in (self._out, self._tmp):
            try:
                disk = os.statvfs(path if path.exists() else path.parent)
            except OSError:
                continue
            if disk.f_bavail * disk.f_frsize < _FULL:
                return path
        return self._out if "No space left on device" in self._tail() else None

    def _tail(self) -> str:
        return files.tail(self._log, most=_TAIL)

    def _units(self, attempt: Attempt, state: str) -> tuple[float, int]:
        """Return done and planned units; a program that counts otherwise is scaled to the plan."""
        planned: int = self._task.get("units", 1)
        if state == "SUCCEEDED":
            return planned, planned
        done, total = attempt.units_done, attempt.units_total
        if not done and self._watch and self._watch.told:
            done, total = self._watch.told[0], self._watch.told[1] or total
        return round(min(1.0, done / max(1, total)) * planned, 3), planned

    def _beat(self, now: dict[str, Any]) -> None:
        if self._watch and read_json_anew(self._folder.record(*self._where)) is not None:
            # This machine slept, or was cut off, and was taken for dead.
            self._watch.end_all(("SUPERSEDED", "it was given up as lost: another has its place"))
            return
        done, total = self._watch.units() if self._watch else (0, 0)
        beat = {**self._begun, **now, "units_done": done, "units": total}
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
