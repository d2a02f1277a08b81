"""Take a message, follow its jobs, deliver their results: each step once, whoever dies."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.base.problems import LabkitError, Problem, RefusedError, refuse
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import State
from labkit.storage.store import open_store
from labkit.workflows.cellprofiler.deliver import deliver
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.requests import import_cpb
from services.intake.settings import Settings

_log = logging.getLogger("intake")
_LOCK_TIMEOUT = 600.0  # seconds; CellProfiler loads a pipeline meanwhile
_REPLY = "labhub-reply.json"


class Requests:
    """The requests of one consumer, each with a record in a folder.

    Parameters
    ----------
    settings : Settings
        Where they are kept, and where their jobs run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records = settings.folder / "requests"
        self._records.mkdir(parents=True, exist_ok=True, mode=0o700)

    def take(self, message_id: str, body: str) -> dict[str, Any]:
        """Submit what a message asks for, or return what became of it before.

        Parameters
        ----------
        message_id : str
            The queue's: a message that comes twice is one request.
        body : str
            The message.

        Returns
        -------
        dict
            Its record: ``state`` (RUNNING, REFUSED, SUCCEEDED, FAILED), ``problems``, ``jobs``.

        Raises
        ------
        LabkitError
            It cannot be done now; the message should come again.
        """
        place = self._place(message_id)
        with files.locked(place.with_suffix(".lock"), _LOCK_TIMEOUT, "the request"):
            if (record := _read(place)) is not None:
                return record
            record = {"id": message_id, "message": body}
            try:
                jobs, problems = self._submit(body)
            except RefusedError as error:
                jobs, problems = [], list(error.problems)
            record["state"] = "RUNNING" if jobs else "REFUSED"
            record |= {"jobs": jobs, "problems": [str(problem) for problem in problems]}
            _write(place, record)
            _log.info("%s: %s", message_id, record["state"])
            return record

    def _submit(self, body: str) -> tuple[list[dict[str, str]], list[Problem]]:
        """Submit what a message asks for, all of it or nothing.

        Returns
        -------
        tuple of (list of dict, list of Problem)
            The jobs; and what the backend alone has refused, after others were sent.
        """
        requests = import_cpb(body, self._settings.bucket)
        if len(requests) > 1:
            refuse([p for n, one in enumerate(requests, 1) for p in _of(n, one.check())])
        options = {"output": str(self._settings.folder / "runs"), **self._settings.options}
        jobs: list[dict[str, str]] = []
        late: list[Problem] = []
        for number, request in enumerate(requests, 1):
            try:
                job = request.submit(self._settings.backend, **options)
            except RefusedError as error:
                late += _of(number, error.problems) if len(requests) > 1 else error.problems
                continue
            jobs.append({"run": str(job.path), "output": request.output})
        return jobs, late

    def follow(self) -> list[dict[str, Any]]:
        """Look after what runs, and deliver what has ended.

        Returns
        -------
        list of dict
            The records of requests that ended now.

        What cannot be looked at or stored now is tried again at the next call, and keeps no
        other request waiting.
        """
        ended = []
        for place, record in self._open():
            try:
                with files.locked(place.with_suffix(".lock"), _LOCK_TIMEOUT, "the request"):
                    done = self._end(record)
                    if done is not None:
                        _write(place, done)
            except (LabkitError, files.LockTimeoutError, OSError) as error:
                _log.warning("%s: later again: %s", record["id"], error)
                continue
            if done is not None:
                _log.info("%s: %s", done["id"], done["state"])
                ended.append(done)
        return ended

    def _end(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Deliver the results of a request; return its record, or None while it runs."""
        jobs = [open_job(Path(one["run"])) for one in record["jobs"]]
        if not all(job.refresh().known and job.state.final for job in jobs):
            return None
        for job, one in zip(jobs, record["jobs"], strict=True):
            self._deliver(job, one["output"])
        problems = [*record["problems"], *(text for job in jobs for text in _failures(job))]
        well = not problems and all(job.state is State.SUCCEEDED for job in jobs)
        return {**record, "state": "SUCCEEDED" if well else "FAILED", "problems": problems}

    def _open(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for place in sorted(self._records.glob("*.json")):
            record = _read(place)
            if record is not None and record["state"] == "RUNNING":
                yield place, record

    def _deliver(self, job: Job, output: str) -> None:
        if isinstance(job, CellProfilerJob) and job.gathered.is_dir():  # also a part of them
            deliver(job, output)
        reply = {"state": str(job.state), "job": job.name, "problems": _failures(job)}
        open_store(output).put(_REPLY, json.dumps(reply, indent=1).encode())

    def _place(self, message_id: str) -> Path:
        # Any text: it comes from outside.
        return self._records / f"{hashlib.sha256(message_id.encode()).hexdigest()[:32]}.json"


def _of(number: int, problems: Sequence[Problem]) -> list[Problem]:
    """Say of which request of a message problems are."""
    return [Problem(f"request {number}, {p.where}", p.text, p.hint) for p in problems]


def _failures(job: Job) -> list[str]:
    if job.state is State.SUCCEEDED:
        return []
    table = job.failed()
    return [f"{row.reason}: {row.text}" for row in table.head(20).itertuples()]


def _read(place: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def _write(place: Path, record: dict[str, Any]) -> None:
    files.write_atomic(place, json.dumps(record, indent=1).encode(), sync=True)
