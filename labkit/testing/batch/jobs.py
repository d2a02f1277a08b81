"""The emulator's jobs: their states, their processes, and who runs when."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit.base import process_tree
from labkit.testing.batch import rules

STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
FINAL = frozenset({"SUCCEEDED", "FAILED"})
_GRACE = 30.0  # seconds between SIGTERM and SIGKILL, as on AWS
_TOO_LARGE = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement is higher than that "
    "of the compute environment"
)
Log = Callable[[str, list[tuple[int, str]]], None]


def _now() -> int:
    return int(time.time() * 1000)


class Job:
    """A job, an array of them (its parent), or one of an array's children.

    Parameters
    ----------
    request : mapping
        The body of SubmitJob.
    container : mapping
        The job definition's container with the request's overrides applied.
    index : int or None
        Place in its array.
    parent : Job or None
        The array.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        container: Mapping[str, Any],
        index: int | None = None,
        parent: Job | None = None,
    ) -> None:
        self.request, self.container = request, container
        self.index, self.parent = index, parent
        self.id: str = str(uuid.uuid4()) if parent is None else f"{parent.id}:{index}"
        self.name = str(request["jobName"])
        self.state = "SUBMITTED"
        self.reason = ""
        self.created, self.started, self.stopped = _now(), 0, 0
        self.exit_code: int | None = None
        self.attempts: list[dict[str, Any]] = []
        self.ending = ""  # why somebody ends it
        self.reclaimed = False
        self.process: subprocess.Popen[bytes] | None = None
        size = (request.get("arrayProperties") or {}).get("size")
        self.children: list[Job] = []
        if parent is None and size:
            self.state = "PENDING"
            self.children = [Job(request, container, place, self) for place in range(size)]

    @property
    def size(self) -> int | None:
        """Number of an array's children; None: it is none."""
        return len(self.children) or None

    def depends(self, jobs: Mapping[str, Job]) -> str:
        """Return ``"ready"``, ``"wait"``, or ``"failed"`` where it never will be."""
        states = []
        for dependency in self.request.get("dependsOn") or ():
            kind = dependency.get("type")
            if kind == "SEQUENTIAL":
                if self.index and self.parent is not None:
                    states.append(self.parent.children[self.index - 1].state)
                continue
            other = jobs[dependency["jobId"]]
            if kind == "N_TO_N" and self.index is not None:
                other = other.children[self.index]
            states.append(other.state)
        if "FAILED" in states:
            return "failed"
        return "ready" if all(state == "SUCCEEDED" for state in states) else "wait"

    def finish(self, state: str, reason: str) -> None:
        """End it, and its array with its last child."""
        self.state, self.reason, self.stopped = state, reason, _now()
        if self.parent is None:
            return
        states = {child.state for child in self.parent.children}
        if states <= FINAL:
            failed = "FAILED" in states
            text = "Array Child Job failed" if failed else "All children completed successfully"
            self.parent.finish("FAILED" if failed else "SUCCEEDED", text)

    def summary(self) -> dict[str, Any]:
        """Return what ListJobs tells."""
        told: dict[str, Any] = {
            "jobId": self.id,
            "jobName": self.name,
            "createdAt": self.created,
            "status": self.state,
        }
        if self.reason:
            told["statusReason"] = self.reason
        for name, value in (("startedAt", self.started), ("stoppedAt", self.stopped)):
            if value:
                told[name] = value
        container: dict[str, Any] = {}
        if self.exit_code is not None:
            container["exitCode"] = self.exit_code
        if self.attempts and (reason := self.attempts[-1]["container"].get("reason")):
            container["reason"] = reason
        told["container"] = container
        if self.index is not None:
            told["arrayProperties"] = {"index": self.index}
        elif self.children:
            told["arrayProperties"] = {"size": len(self.children)}
        return told

    def details(self) -> dict[str, Any]:
        """Return what DescribeJobs tells, but for what the control plane adds."""
        told = self.summary()
        told["attempts"] = self.attempts
        told["retryStrategy"] = self.request.get("retryStrategy") or {"attempts": 1}
        told["dependsOn"] = list(self.request.get("dependsOn") or ())
        told["parameters"] = dict(self.request.get("parameters") or {})
        told["tags"] = dict(self.request.get("tags") or {})
        if self.request.get("timeout"):
            told["timeout"] = self.request["timeout"]
        stream = self.attempts[-1]["container"]["logStreamName"] if self.attempts else None
        told["container"] |= {"command": list(self.container["command"])}
        told["container"] |= {"logStreamName": stream} if stream else {}
        if self.children:
            counts = Counter(child.state for child in self.children)
            told["arrayProperties"]["statusSummary"] = {state: counts[state] for state in STATES}
        return told


class Scheduler:
    """Runs jobs as processes, as many at once as there are vCPUs.

    Parameters
    ----------
    vcpus : float
        Of the one compute environment. A job that asks for more waits for ever, as on AWS.
    images : mapping of str to str
        Image -> folder whose ``bin`` its programs are in; of any other image nothing can be pulled.
    environment : mapping of str to str
        What every container finds, e.g. the endpoint.
    log : callable
        Gets the name of a log stream and its new lines, each with its time in ms.
    """

    def __init__(
        self,
        vcpus: float,
        images: Mapping[str, str],
        environment: Mapping[str, str],
        log: Log,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self._vcpus, self._free = vcpus, vcpus
        self._images, self._environment, self._log = images, environment, log
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="batch-scheduler").start()

    def add(self, job: Job) -> None:
        """Take a job, or all of an array."""
        with self._changed:
            for one in (job, *job.children):
                self.jobs[one.id] = one
            self._waiting += job.children or [job]
            self._changed.notify()

    def end(self, job: Job, reason: str, *, started: bool = True) -> None:
        """End a job, or all of an array, for good.

        Parameters
        ----------
        job : Job
            Which.
        reason : str
            What is told of it afterwards.
        started : bool
            False: leave those alone that have started (CancelJob).
        """
        with self._changed:
            for one in job.children or [job]:
                if one.state in FINAL or (not started and one.state in ("STARTING", "RUNNING")):
                    continue
                one.ending = reason
                self._signal(one, signal.SIGTERM)
            self._changed.notify()

    def reclaim(self, job: Job, *, warning: bool) -> bool:
        """Take the machine away under a job, as for a spot instance; return whether it ran.

        Without a warning its processes have no time to end.
        """
        with self._changed:
            if job.process is None or job.state != "RUNNING":
                return False
            job.reclaimed = True
            self._signal(job, signal.SIGTERM if warning else signal.SIGKILL)
            return True

    def _signal(self, job: Job, number: int) -> None:
        if job.process is not None and job.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, number)

    def _run(self) -> None:
        with self._changed:
            while True:
                if not self._turn():
                    self._changed.wait(5)

    def _turn(self) -> bool:
        """Look at each waiting job once; return whether something changed."""
        changed = False
        for job in list(self._waiting):
            cpus = float(job.container["vcpus"])
            state = job.depends(self.jobs)
            if job.ending or state == "failed":
                job.finish("FAILED", job.ending or rules.DEPENDENCY_FAILED)
            elif state == "wait":
                job.state = "PENDING"
                continue
            elif cpus > self._free:
                job.state = "RUNNABLE"
                if cpus > self._vcpus:
                    job.reason = _TOO_LARGE
                continue
            else:
                job.state, self._free = "STARTING", self._free - cpus
                threading.Thread(target=self._execute, args=(job, cpus), daemon=True).start()
            self._waiting.remove(job)
            changed = True
        return changed

    def _execute(self, job: Job, cpus: float) -> None:
        try:
            state, reason = self._attempts(job)
        except Exception as error:  # a fault of the emulator must not look like a job for ever
            state, reason = "FAILED", f"the emulator failed: {error!r}"
        with self._changed:
            self._free += cpus
            job.finish(state, reason)
            self._changed.notify()

    def _attempts(self, job: Job) -> tuple[str, str]:
        strategy = job.request.get("retryStrategy") or {}
        most = strategy.get("attempts", 1)
        for number in range(1, most + 1):
            exit_code, why, status = self._attempt(job, number)
            if job.ending:
                return "FAILED", job.ending
            if exit_code == 0:
                return "SUCCEEDED", status
            retried = status != rules.TIMED_OUT and rules.is_retried(
                strategy.get("evaluateOnExit") or (), exit_code, why, status
            )
            if not retried or number == most:
                return "FAILED", status
            job.state, job.reclaimed = "RUNNABLE", False
        raise AssertionError("a job has one attempt at least")

    def _attempt(self, job: Job, number: int) -> tuple[int | None, str, str]:
        """Run the command once; return exit code, the container's reason and the attempt's."""
        began = _now()
        stream = f"{job.name}/default/{job.id.replace(':', '-')}-{number}"
        exit_code: int | None
        with tempfile.TemporaryDirectory(prefix="labkit-batch-") as place:
            folder = Path(place)
            why = self._start(job, number, folder)
            if why:
                exit_code, status = None, f"Task failed to start: {why}"
            else:
                exit_code, why, status = self._wait(job, folder / "output", stream)
        container: dict[str, Any] = {"logStreamName": stream}
        container |= {} if exit_code is None else {"exitCode": exit_code}
        container |= {"reason": why} if why else {}
        with self._changed:
            job.exit_code, job.process = exit_code, None
            job.attempts.append(
                {
                    "container": container,
                    "startedAt": began,
                    "stoppedAt": _now(),
                    "statusReason": status,
                }
            )
        return exit_code, why, status

    def _start(self, job: Job, number: int, folder: Path) -> str:
        """Start the command in an empty folder; return why it does not start."""
        image = job.container.get("image", "")
        if image not in self._images:
            return f"CannotPullContainerError: pull access denied for {image}"
        path = f"{self._images[image]}/bin:{os.defpath}"
        home = folder / "scratch"
        home.mkdir()
        env = {
            **self._environment,
            "PATH": path,
            "HOME": str(home),
            "TMPDIR": str(home),
            **{one["name"]: one["value"] for one in job.container.get("environment") or ()},
            "AWS_BATCH_JOB_ID": job.id,
            "AWS_BATCH_JOB_ATTEMPT": str(number),
        }
        if job.index is not None:
            env["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
        command = list(job.container["command"])
        program = shutil.which(command[0], path=path) if command else None
        if program is None:
            return f"CannotStartContainerError: exec: {command[:1]}: executable file not found"
        with self._changed, (folder / "output").open("wb") as output:
            if job.ending:
                return job.ending
            job.process = subprocess.Popen(
                [program, *command[1:]],
                env=env,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=process_tree.die_with_parent,
            )
            job.state, job.started = "RUNNING", job.started or _now()
        return ""

    def _wait(self, job: Job, output: Path, stream: str) -> tuple[int | None, str, str]:
        process, sent, timed_out = job.process, 0, False
        if process is None:
            raise RuntimeError("it was not started")
        most = (job.request.get("timeout") or {}).get("attemptDurationSeconds")
        deadline = time.monotonic() + most if most else None
        killing: float | None = None
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            now = time.monotonic()
            if deadline is not None and now > deadline and not timed_out:
                timed_out = True
                self._signal(job, signal.SIGTERM)
            if killing is None and (timed_out or job.ending or job.reclaimed):
                killing = now + _GRACE
            if killing is not None and now > killing:
                self._signal(job, signal.SIGKILL)
            sent = self._send(output, sent, stream)
        with contextlib.suppress(ProcessLookupError):  # what it left behind ends with a container
            os.killpg(process.pid, signal.SIGKILL)
        self._send(output, sent, stream, last=True)
        code = process.returncode
        if job.reclaimed and not job.ending:
            return None, "", f"Host EC2 (instance i-{uuid.uuid4().hex[:17]}) terminated."
        if timed_out:
            return 137, "", rules.TIMED_OUT
        return (128 - code if code < 0 else code), "", rules.EXITED

    def _send(self, output: Path, start: int, stream: str, last: bool = False) -> int:
        """Send the whole lines that are new to the log; return up to where it was read."""
        with output.open("rb") as file:
            file.seek(start)
            new = file.read()
        if not last:
            new = new[: new.rfind(b"\n") + 1]
        lines = [line for line in new.decode("utf-8", "replace").splitlines() if line]
        if lines:
            self._log(stream, [(_now(), line) for line in lines])
        return start + len(new)
