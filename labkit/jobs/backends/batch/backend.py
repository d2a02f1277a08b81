"""AWS Batch as a backend."""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.problems import Problem, refuse
from labkit.base.remote import is_remote
from labkit.jobs.backends.base import Backend, BackendError, SubmitRefusedError
from labkit.jobs.backends.batch import calls, requests
from labkit.jobs.backends.batch.exchange import Exchange
from labkit.jobs.backends.batch.options import HELP, Options, complete
from labkit.jobs.backends.batch.options import read as read_options
from labkit.jobs.backends.batch.reach import reach_problems
from labkit.jobs.backends.batch.requests import Array
from labkit.jobs.backends.batch.sightings import is_settled, sightings
from labkit.jobs.backends.containers import LARGEST, image_of
from labkit.jobs.model import Limits, Sightings
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.storage.address import ObjectAddress
from labkit.storage.errors import StorageError


class BatchBackend(Backend):
    """Runs tasks as array jobs of AWS Batch; nodes need no disk of ours."""

    name: ClassVar[str] = "batch"
    options: ClassVar[Mapping[str, str]] = HELP
    slowest: ClassVar[float] = 10.0

    def limits(self) -> Limits:
        """Return what the largest common machines have; the queue's own may be smaller."""
        return LARGEST

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with what the portal says for everybody."""
        return complete(options)

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against running this plan here."""
        chosen, problems = read_options(options)
        problems = [*super().check(plan, options), *problems]
        if chosen is None:
            return problems
        works = [_work(stage) for stage in plan.stages if stage.tasks]
        arrays = list(requests.layout(works))
        if len(arrays) > requests.MOST_DEPENDENCIES:
            text = f"{len(arrays)} array jobs are needed; Batch lets a job wait for 20."
            problems.append(Problem("batch", text, "Make fewer, longer tasks."))
        for stage in plan.stages:
            place = f"stage {stage.name}"
            if not image_of(stage.environment, chosen.images):
                name = getattr(stage.environment, "name", "worker")
                text = f"no image is named for the environment {name!r}."
                problems.append(Problem(place, text, "Name it in batch_images=, or ask the lab."))
            seen = (path for task in stage.tasks for path in task.inputs if "$" not in path)
            missing = [
                path
                for path in seen
                if not (is_remote(path) or _is_seen(Path(path), chosen.mounted))
            ]
            if missing:
                text = f"nodes of AWS Batch do not see {missing[0]}" + (
                    f" and {len(missing) - 1} more inputs." if len(missing) > 1 else "."
                )
                hint = (
                    "Put them into S3 and name them by s3://, or on a disk that nodes mount, and "
                    "name that in batch_mounted=."
                )
                problems.append(Problem(place, text, hint))
        problems += _check_tolerance(plan)
        if not any(not problem.warning for problem in problems):
            problems += reach_problems(chosen)
        return problems

    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return the SubmitJob of each array as JSON; ids are given by Batch."""
        chosen, problems = read_options(options)
        refuse(problems)
        if chosen is None:
            return ""
        works = {stage.name: _work(stage) for stage in plan.stages if stage.tasks}
        texts = []
        for array in requests.layout(list(works.values())):
            stage = plan.stage(array.stage)
            image = image_of(stage.environment, chosen.images)
            asked = requests.job(
                array,
                works[array.stage],
                name=array.name("JOB"),
                queue=chosen.queue,
                definition=requests.definition(image, chosen.role)["jobDefinitionName"],
                environment={"LABKIT_RUN_ADDRESS": f"{chosen.folder}/RUN/"},
                depends_on=[f"jobs of {name}" for name in stage.depends_on],
                tags=_tags("RUN"),
            )
            texts.append(json.dumps(asked, indent=2))
        return "\n".join(texts)

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Hand a submission over: an array job per stage, more where it is larger."""
        return self._send(run, submission, {})

    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that may or may not have been handed over.

        Where a crash came between two of its jobs, the missing ones are submitted now.
        """
        chosen = _options(submission)
        names = {
            array.name(_unique(run, submission)): array
            for array in requests.layout(submission.stages)
        }
        submitted: dict[Array, str] = {}
        for name, array in names.items():
            filters = [{"name": "JOB_NAME", "values": [name]}]
            found = calls.pages(
                "list_jobs", "jobSummaryList", jobQueue=chosen.queue, filters=filters
            )
            for job in found:
                if job["jobName"] == name:
                    submitted[array] = job["jobId"]
        started = run.started(submission)
        if not submitted and not started:
            return None
        return self._send(run, submission, submitted)

    def _send(
        self, run: Run, submission: Submission, submitted: Mapping[Array, str]
    ) -> dict[str, Any]:
        chosen = _options(submission)
        exchange = Exchange(run, _address(run, submission))
        works = {work.name: work for work in submission.stages}
        ids: dict[str, list[str]] = {}
        jobs: list[dict[str, Any]] = []
        try:
            address, digest = exchange.send(submission)
        except StorageError as error:
            raise BackendError(f"The payload cannot be stored: {error}") from error
        variables = {
            "LABKIT_PAYLOAD": address,
            "LABKIT_PAYLOAD_SHA256": digest,
            "LABKIT_RUN_ADDRESS": str(exchange.address),
        }
        try:
            for array in requests.layout(submission.stages):
                work = works[array.stage]
                job = submitted.get(array) or self._submit(
                    run, submission, array, work, chosen, variables, ids
                )
                ids.setdefault(array.stage, []).append(job)
                jobs.append(
                    {"id": job, "stage": array.stage, "start": array.start, "count": array.count}
                )
        except SubmitRefusedError:
            for one in jobs:  # those before it would wait for nothing
                calls.call("terminate_job", jobId=one["id"], reason="the rest was refused")
            raise
        return {"jobs": jobs}

    def _submit(
        self,
        run: Run,
        submission: Submission,
        array: Array,
        work: StageWork,
        chosen: Options,
        variables: Mapping[str, str],
        ids: Mapping[str, list[str]],
    ) -> str:
        info = run.manifest.stage(array.stage)
        image = image_of(info.environment, chosen.images)
        tolerated = any(
            other.tolerate_failures and array.stage in other.depends_on
            for other in submission.stages
        )
        environment = {**variables, "LABKIT_TOLERATED": "1"} if tolerated else variables
        return calls.submit(
            requests.job(
                array,
                work,
                name=array.name(_unique(run, submission)),
                queue=chosen.queue,
                definition=_definition(image, chosen.role),
                environment=environment,
                depends_on=[one for name in work.depends_on for one in ids.get(name, ())],
                tags=_tags(run.manifest.run_name),
            )
        )

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Say what Batch has, and bring the records that are new."""
        return {run: _poll(run) for run in runs}

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:
        """End what these submissions still have pending or running."""
        for submission in submissions:
            try:
                Exchange(run, _address(run, submission)).cancel([submission])
            except StorageError as error:
                raise BackendError(str(error)) from error
            for job in (submission.handle or {}).get("jobs", ()):
                calls.call("terminate_job", jobId=job["id"], reason="cancelled by labkit")

    def forget(self, run: Run, submissions: Iterable[Submission]) -> None:
        """Delete what nodes and this run folder have exchanged."""
        for address in dict.fromkeys(_address(run, one) for one in submissions):
            try:
                Exchange(run, address).forget()
            except StorageError as error:
                raise BackendError(str(error)) from error


def _poll(run: Run) -> Sightings:
    mine = [s for s in run.submissions() if s.backend == BatchBackend.name]
    handed = [s for s in mine if s.handle is not None]
    if is_settled(run, handed):
        return Sightings(known=True)
    ids = [job["id"] for s in handed for job in (s.handle or {})["jobs"]]
    try:
        # Batch first, then the records: what has ended in between has left its own.
        jobs = calls.describe(ids) if ids else {}
        for address in dict.fromkeys(_address(run, one) for one in handed):
            Exchange(run, address).receive()
        return sightings(run, handed, jobs)
    except (BackendError, StorageError, OSError) as error:
        return Sightings(known=False, text=str(error))


def _options(submission: Submission) -> Options:
    chosen, problems = read_options(submission.options)
    if chosen is None:  # of a retry, whose options nobody has checked before
        raise SubmitRefusedError("; ".join(map(str, problems)))
    return chosen


def _unique(run: Run, submission: Submission) -> str:
    """Return a submission's name and when its run folder was made.

    A folder that was deleted may have had jobs of the same name, and records in S3.
    """
    made = hashlib.sha256(run.manifest.created.encode()).hexdigest()[:8]
    stem, _, number = submission.name.rpartition("-")
    return f"{stem}-{made}-{number}"


def _address(run: Run, submission: Submission) -> ObjectAddress:
    """Return where a run is in S3: the same for all its submissions."""
    return _options(submission).folder.child(f"{_unique(run, submission).rpartition('-')[0]}/")


def _work(stage: Any) -> StageWork:
    return StageWork(
        stage.name,
        tuple(range(len(stage.tasks))),
        stage.resources,
        stage.depends_on,
        stage.tolerate_failures,
        stage.retries,
    )


def _tags(run_name: str) -> dict[str, str]:
    return {"labkit:user": getpass.getuser(), "labkit:run": run_name[:255]}


def _is_seen(path: Path, mounted: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in mounted)


def _check_tolerance(plan: Plan) -> Iterator[Problem]:
    """Yield a problem where Batch cannot keep two stages' different wishes."""
    for stage in plan.stages:
        after = {other.tolerate_failures for other in plan.stages if stage.name in other.depends_on}
        if len(after) > 1:
            text = "is followed by a stage that tolerates failures and by one that does not."
            yield Problem(f"stage {stage.name}", text, "Choose another backend.")


def _definition(image: str, role: str) -> str:
    """Return the ARN of an image's job definition, registered where it is not yet."""
    wanted = requests.definition(image, role)
    known = calls.call(
        "describe_job_definitions", jobDefinitionName=wanted["jobDefinitionName"], status="ACTIVE"
    )["jobDefinitions"]
    if known:
        return str(known[0]["jobDefinitionArn"])
    return str(calls.call("register_job_definition", **wanted)["jobDefinitionArn"])
