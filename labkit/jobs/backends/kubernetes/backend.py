"""Kubernetes as a backend."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.problems import Problem, refuse
from labkit.jobs.backends.base import Backend, BackendError, SubmitRefusedError
from labkit.jobs.backends.containers import LARGEST, image_of
from labkit.jobs.backends.kubernetes import requests
from labkit.jobs.backends.kubernetes.api import (
    JOBS,
    PODS,
    Api,
    ConflictError,
    GoneError,
    connect,
)
from labkit.jobs.backends.kubernetes.options import HELP, Options, complete
from labkit.jobs.backends.kubernetes.options import read as read_options
from labkit.jobs.backends.kubernetes.sightings import of_job
from labkit.jobs.model import Limits, Sighting, Sightings, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.jobs.worker.stage_order import finished, turn

Jobs = Mapping[str, Mapping[str, Any]]
Pods = Mapping[str, Sequence[Mapping[str, Any]]]


class KubernetesBackend(Backend):
    """Runs tasks as Indexed Jobs, on a volume that pods and the one who asks share."""

    name: ClassVar[str] = "kubernetes"
    options: ClassVar[Mapping[str, str]] = HELP
    slowest: ClassVar[float] = 5.0
    grace: ClassVar[float] = 60.0  # NFS shows a new file up to a minute later

    def limits(self) -> Limits:
        """Return what the largest common machines have; the cluster's own may be smaller."""
        return LARGEST

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with this machine's defaults, as they are kept with a submission."""
        return complete(options)

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against running this plan here, the cluster's own word included."""
        chosen, problems = read_options(options)
        problems = [*super().check(plan, options), *problems]
        if chosen is None:
            return problems
        for stage in plan.stages:
            place = f"stage {stage.name}"
            if not image_of(stage.environment, chosen.images):
                name = getattr(stage.environment, "name", "worker")
                text = f"no image is named for the environment {name!r}."
                hint = "Name it in kubernetes_images=, or ask the lab."
                problems.append(Problem(place, text, hint))
            seen = (path for task in stage.tasks for path in task.inputs if path.startswith("/"))
            missing = [path for path in seen if not _is_seen(path, chosen)]
            if missing:
                text = f"pods do not see {missing[0]}" + (
                    f" and {len(missing) - 1} more inputs." if len(missing) > 1 else "."
                )
                hint = "Put them into a folder of kubernetes_volumes=."
                problems.append(Problem(place, text, hint))
        if not any(not problem.warning for problem in problems):
            problems += _try(plan, chosen)
        return problems

    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return each Job as JSON, RUN being the run folder."""
        chosen, problems = read_options(options)
        refuse(problems)
        bodies = _plan_jobs(plan, chosen) if chosen else []
        return "\n".join(json.dumps(body, indent=2) for body in bodies)

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Hand a submission over: a Job per stage; those that wait for another are suspended."""
        return _send(run, submission)

    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that may or may not have been handed over.

        Where a crash came between two of its jobs, the missing ones are made now.
        """
        name = requests.unique(run, submission)
        api = _api(submission)
        for array in requests.layout(submission.stages):
            try:
                api.call("GET", JOBS, array.name(name))
            except GoneError:
                continue
            return _send(run, submission)
        return _send(run, submission) if run.started(submission) else None

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Say what Kubernetes has: one question for all jobs, one for their pods."""
        answers: dict[tuple[str, str], tuple[Jobs, Pods] | str] = {}
        result = {}
        for run in runs:
            mine = [s for s in run.submissions() if s.backend == self.name and s.handle]
            tasks: dict[tuple[str, int], Sighting] = {}
            problem = ""
            for submission in mine:
                try:
                    api = _api(submission)
                    where = (api.namespace, _options(submission).context)
                    if where not in answers:
                        answers[where] = _look(api)
                    answer = answers[where]
                    if isinstance(answer, str):
                        problem = answer
                        break
                    tasks.update(_of_submission(api, submission, *answer))
                except BackendError as error:
                    problem = str(error)
                    break
            if problem:
                result[run] = Sightings(known=False, text=problem)
                continue
            waits = [s.text for s in tasks.values() if s.state is State.PENDING and s.text]
            running = any(s.state is State.RUNNING for s in tasks.values())
            text = max(set(waits), key=waits.count) if waits and not running else ""
            result[run] = Sightings(known=True, tasks=tasks, text=text)
        return result

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:
        """End what these submissions still have pending or running."""
        for submission in submissions:
            name = requests.unique(run, submission)
            if _options(submission).service_account:
                _delete(_api(submission), requests.order_name(name))
            # The last stages first: none of them shall begin meanwhile.
            for array in reversed(list(requests.layout(submission.stages))):
                _delete(_api(submission), array.name(name))


def _options(submission: Submission) -> Options:
    chosen, problems = read_options(submission.options)
    if chosen is None:  # of a retry, whose options nobody has checked before
        raise SubmitRefusedError("; ".join(map(str, problems)))
    return chosen


def _api(submission: Submission) -> Api:
    chosen = _options(submission)
    return connect(chosen.namespace, chosen.context, os.environ.get("KUBECONFIG", ""))


def _is_seen(path: str, chosen: Options) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in chosen.volumes)


def _send(run: Run, submission: Submission) -> dict[str, Any]:
    chosen, api = _options(submission), _api(submission)
    place = str(run.path)
    if not _is_seen(place, chosen):
        folders = ", ".join(chosen.volumes) or "none"
        raise SubmitRefusedError(
            f"Pods do not see the run folder {place}: it must be in a folder of "
            f"kubernetes_volumes= (now: {folders}), for example by output=."
        )
    envs = run.manifest.envs if run.manifest.envs and _is_seen(run.manifest.envs, chosen) else ""
    works = {work.name: work for work in submission.stages}
    name = requests.unique(run, submission)
    made: list[str] = []
    handle = []
    for array in requests.layout(submission.stages):
        image = image_of(run.manifest.stage(array.stage).environment, chosen.images)
        body = requests.job(
            array,
            works[array.stage],
            name=array.name(name),
            place=place,
            number=submission.number,
            image=image,
            options=chosen,
            envs=envs,
        )
        try:
            api.call("POST", JOBS, "", body)
            made.append(array.name(name))
        except ConflictError:  # ours, of a call whose answer was lost: the name has its run
            pass
        except (SubmitRefusedError, GoneError) as error:
            for other in made:
                _delete(api, other)
            raise SubmitRefusedError(str(error)) from error
        handle.append({"name": array.name(name), **vars(array)})
    order = requests.order(name, submission.stages, place, image, chosen)
    if order is not None:
        try:
            api.call("POST", JOBS, "", order)
        except ConflictError:
            pass
        except (SubmitRefusedError, GoneError) as error:
            for other in made:
                _delete(api, other)
            raise SubmitRefusedError(str(error)) from error
    return {"namespace": api.namespace, "jobs": handle}


def _delete(api: Api, name: str) -> None:
    try:
        api.call("DELETE", JOBS, name, {"propagationPolicy": "Background"})
    except GoneError:
        return


def _look(api: Api) -> tuple[Jobs, Pods] | str:
    """Return this person's jobs and their pods; text where the cluster cannot be asked."""
    mine = f"labkit/user={requests.owner()}"
    try:
        # Pods first: what has ended in between is told by its job.
        listed = api.list(PODS, labelSelector=mine, fieldSelector="status.phase!=Succeeded")
        jobs = {job["metadata"]["name"]: job for job in api.list(JOBS, labelSelector=mine)}
    except BackendError as error:
        return str(error)
    pods: dict[str, list[Mapping[str, Any]]] = {}
    for pod in listed:
        job = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name", "")
        pods.setdefault(job, []).append(pod)
    return jobs, pods


def _of_submission(
    api: Api, submission: Submission, jobs: Jobs, pods: Pods
) -> dict[tuple[str, int], Sighting]:
    """Return what is to be said of a submission's tasks, and let go what has waited enough."""
    tasks: dict[tuple[str, int], Sighting] = {}
    works = {work.name: work for work in submission.stages}
    handles = (submission.handle or {})["jobs"]
    ends: dict[str, list[str]] = {}
    for handle in handles:
        job = jobs.get(handle["name"])
        if job is not None:
            ends.setdefault(handle["stage"], []).append(finished(dict(job)))
    for handle in handles:
        job = jobs.get(handle["name"])
        if job is None:
            continue
        work = works[handle["stage"]]
        if job["spec"].get("suspend") and not submission.cancelled:
            before = [end for name in work.depends_on for end in ends.get(name, ["Failed"])]
            now = turn(before, work.tolerate_failures)
            if now is None:  # it will never run
                continue
            if now:
                api.call("PATCH", JOBS, handle["name"], {"spec": {"suspend": False}})
        indices = work.tasks[handle["start"] : handle["start"] + handle["count"]]
        for index, sighting in of_job(job, pods.get(handle["name"], ())):
            if not (submission.cancelled and sighting.state.final):
                tasks[work.name, indices[index]] = sighting
    return tasks


def _plan_jobs(plan: Plan, chosen: Options) -> list[dict[str, Any]]:
    bodies = []
    for stage in plan.stages:
        if not stage.tasks:
            continue
        work = StageWork(
            stage.name,
            tuple(range(len(stage.tasks))),
            stage.resources,
            stage.depends_on,
            stage.tolerate_failures,
            stage.retries,
        )
        for array in requests.layout([work]):
            bodies.append(
                requests.job(
                    array,
                    work,
                    name=array.name("RUN"),
                    place="RUN",
                    number=1,
                    image=image_of(stage.environment, chosen.images),
                    options=chosen,
                    envs="",
                )
            )
    return bodies


def _try(plan: Plan, chosen: Options) -> list[Problem]:
    """Let the cluster itself look at the jobs: rights, quotas, admission."""
    try:
        api = connect(chosen.namespace, chosen.context, os.environ.get("KUBECONFIG", ""))
        for body in _plan_jobs(plan, chosen):
            try:
                api.call("POST", JOBS, "", body, dryRun="All")
            except ConflictError:
                continue
    except BackendError as error:
        hint = "submit('local') runs it on this machine."
        return [Problem("kubernetes", str(error), hint)]
    return []
