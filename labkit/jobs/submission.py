"""Submitting: the same work is never done twice, and what was begun is found again."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from labkit.base.problems import LabkitError, Problem, refuse
from labkit.jobs.backends import base
from labkit.jobs.backends.base import Backend
from labkit.jobs.model import Resources, Sighting, Sightings, State, grow_memory
from labkit.jobs.options import OPTIONS, read_options, split_options
from labkit.jobs.plan import Plan
from labkit.jobs.runs.deleted import deleted
from labkit.jobs.runs.index import Index
from labkit.jobs.runs.intent import success_since
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.jobs.runs.watch import Snapshot, Watch


def backend_of(name: str | None) -> Backend:
    """Return the backend of this name; None: ``$LABKIT_BACKEND``, else local."""
    return base.get(name or os.environ.get("LABKIT_BACKEND") or "local")


def submit(
    run: Run, backend: Backend, plan: Plan, options: Mapping[str, Any], *, rerun: bool = False
) -> str:
    """Hand a run over, or what of it is missing; nothing where it is done or under way.

    Parameters
    ----------
    run : Run
        The plan's run folder, new or found.
    backend : Backend
        Where it is to run.
    plan : Plan
        What to ask for: another submit of the same work may ask for more memory.
    options : mapping
        The backend's own, without prefix.
    rerun : bool
        Run all of it again where it has ended.

    Returns
    -------
    str
        What people must know of earlier results: that they are used again, or made again since
        somebody deleted them. Else empty.

    Raises
    ------
    BackendError
        It refused, or could not be asked.
    LabkitError
        It is to run again and has not ended.
    """
    with run.lock():
        reconcile(run)
        if not run.submissions():
            works = [
                StageWork(
                    name=stage.name,
                    tasks=tuple(range(len(stage.tasks))),
                    resources=stage.resources,
                    depends_on=stage.depends_on,
                    tolerate_failures=stage.tolerate_failures,
                    retries=stage.retries,
                )
                for stage in plan.stages
                if stage.tasks
            ]
            hand_over(run, backend, works, options)
            return ""
        snapshot = settled(run)
        if rerun:
            _require_ended(run, snapshot)
        elif not (snapshot.known and snapshot.state.final):
            return ""
        wanted = {stage.name: (stage.resources, stage.retries) for stage in plan.stages}
        lost = deleted(run) - _open(snapshot)
        works = _missing(run, snapshot, wanted, _all_tasks(run) if rerun else lost)
        if not works:
            return _reused(snapshot)
        if rerun:
            run.set_results_aside()
        hand_over(run, backend, works, options)
        if lost and not rerun:
            return f"Results of {len(lost):,} tasks had been deleted: they are made again."
        return ""


def _reused(snapshot: Snapshot) -> str:
    when = datetime.fromtimestamp(snapshot.ended or snapshot.at).strftime("%Y-%m-%d %H:%M")
    return (
        f"Nothing was run: finished on {when}, and nothing that it names has changed since. "
        "job.rerun() or submit(rerun=True) runs it again."
    )


def _require_ended(run: Run, snapshot: Snapshot) -> None:
    if not snapshot.known:
        raise LabkitError(f"Its state is unknown, so nothing was done: {snapshot.text}")
    if not snapshot.state.final:
        raise LabkitError(
            f"{run.path.name} still runs ({snapshot.count(State.RUNNING)} tasks run, "
            f"{snapshot.count(State.PENDING)} wait). Wait for it, or cancel it first."
        )


def _all_tasks(run: Run) -> set[tuple[str, int]]:
    return {(info.name, index) for info in run.manifest.stages for index in range(info.tasks)}


def resubmit(
    run: Run, name: str | None, changes: Mapping[str, Any], *, rerun: bool = False
) -> None:
    """Run again only what failed, was cancelled or deleted, and the stages that depend on it.

    Parameters
    ----------
    changes : mapping
        ``memory`` (``"x2"`` or a size), ``cpu``, ``time``, ``retries``, and the backend's own.
    rerun : bool
        Run all of it again.

    Raises
    ------
    LabkitError
        It still runs, or its state is unknown.
    RefusedError
        An option is wrong.
    """
    with run.lock():
        reconcile(run)
        submissions = run.submissions()
        if not submissions:
            raise LabkitError(f"{run.path.name} was never submitted: submit it again.")
        backend = base.get(name or submissions[-1].backend)
        changes = dict(changes)
        growth = changes.pop("memory", None)
        general, own, problems = split_options(
            changes, [option for option in OPTIONS if option not in ("output", "memory")], backend
        )
        refuse(problems)
        fields, retries = read_options(general)
        snapshot = settled(run)
        _require_ended(run, snapshot)
        wanted = {
            work.name: _changed(work, fields, retries, growth)
            for submission in submissions
            for work in submission.stages
        }
        again = _all_tasks(run) if rerun else deleted(run) - _open(snapshot)
        works = _missing(run, snapshot, wanted, again)
        if not works:
            return
        limits = backend.limits()
        refuse(
            Problem(f"stage {work.name}", f"asks for {over}; there are at most {limits.text}.")
            for work in works
            for over in base.over_limits(work.resources.cpu, work.resources.memory, limits)
        )
        if backend.name == submissions[-1].backend:
            own = {**submissions[-1].options, **own}
        if rerun:
            run.set_results_aside()
        hand_over(run, backend, works, own)


def _changed(
    work: StageWork, changes: Mapping[str, Any], retries: int | None, growth: Any
) -> tuple[Resources, int]:
    resources = replace(work.resources, **changes)
    if growth is not None and work.name != "gather":
        try:
            resources = resources.with_memory(grow_memory(resources.memory, growth))
        except ValueError as error:
            refuse([Problem("memory", f"{error}.")])
    return resources, work.retries if retries is None else retries


def hand_over(
    run: Run, backend: Backend, works: Sequence[StageWork], options: Mapping[str, Any]
) -> None:
    """Record the intent, call the backend, record its answer; the caller holds the lock."""
    if not works:
        return
    _call(run, backend, run.intend(backend.name, works, backend.complete(options)))


def _call(run: Run, backend: Backend, submission: Submission) -> None:
    try:
        run.accept(submission, backend.submit(run, submission))
    except base.SubmitRefusedError:
        run.request_cancel(submission)
        raise


def reconcile(run: Run) -> None:
    """Bring to its end what a crash has left between intent and answer.

    The backend is asked first: what it has is adopted, never doubled. The caller holds the lock.

    Raises
    ------
    BackendError
        It cannot be asked: nothing was done.
    """
    for submission in run.submissions():
        if submission.handle is not None or submission.cancelled:
            continue
        backend = base.get(submission.backend)
        handle = backend.find(run, submission)
        if handle is None:
            _call(run, backend, submission)
        else:
            run.accept(submission, handle)


def look(run: Run) -> Snapshot:
    """Return the run's state now, seen for the first time."""
    return Watch(run, grace(run)).look(sightings(run))


def settled(run: Run) -> Snapshot:
    """Return the run's state when a task that is missing has had its time to appear."""
    watch = Watch(run, grace(run))
    while True:
        snapshot = watch.look(sightings(run))
        if not watch.unsettled:
            return snapshot
        time.sleep(min(1.0, watch.unsettled))


def grace(run: Run) -> float:
    """Return the longest grace of the backends that a run was handed to."""
    return max((base.get(name).grace for name in _backends(run)), default=0.0)


def slowest(run: Run) -> float:
    """Return the seconds between two looks that suit the backends of a run."""
    return min((base.get(name).slowest for name in _backends(run)), default=1.0)


def _backends(run: Run) -> list[str]:
    return sorted({submission.backend for submission in run.submissions()})


def sightings(run: Run) -> Sightings:
    """Ask the backends of a run's submissions what they have of it."""
    answers = [base.get(name).poll([run])[run] for name in _backends(run)]
    tasks: dict[tuple[str, int], Sighting] = {}
    for answer in answers:
        tasks.update(answer.tasks)
    return Sightings(
        known=all(answer.known for answer in answers),
        tasks=tasks,
        text="; ".join(dict.fromkeys(answer.text for answer in answers if answer.text)),
    )


def _missing(
    run: Run,
    snapshot: Snapshot,
    wanted: Mapping[str, tuple[Resources, int]],
    again: set[tuple[str, int]],
) -> list[StageWork]:
    """Return what did not succeed or is to run again, and all stages that depend on it.

    What is missing may still come of an earlier submission; what runs again may not.
    """
    since = success_since(run.submissions())
    open_tasks: dict[str, list[int]] = {}
    for stage, index in sorted(_open(snapshot) | again):
        open_tasks.setdefault(stage, []).append(index)
    works: list[StageWork] = []
    names: set[str] = set()
    for info in run.manifest.stages:
        indices = open_tasks.get(info.name, [])
        anew = {index for stage, index in again if stage == info.name}
        if names & set(info.depends_on):
            indices = list(range(info.tasks))
            anew = set(indices)
        earlier = since.get(info.name, {})
        if not indices:
            continue
        names.add(info.name)
        resources, retries = wanted.get(info.name, (info.resources, info.retries))
        works.append(
            StageWork(
                name=info.name,
                tasks=tuple(indices),
                resources=resources,
                depends_on=tuple(name for name in info.depends_on if name in names),
                tolerate_failures=info.tolerate_failures,
                retries=retries,
                since={i: earlier[i] for i in indices if i in earlier and i not in anew},
            )
        )
    return works


def _open(snapshot: Snapshot) -> set[tuple[str, int]]:
    return {(task.stage, task.index) for task in snapshot.open}


def cancel(run: Run) -> None:
    """Cancel what a run still has with its backends; the wish is recorded first.

    A wish that did not reach the backend, because it was away, is brought to it again.
    """
    with run.lock():
        snapshot = look(run)
        if snapshot.known and snapshot.state.final:
            return
        submissions = run.submissions()
        for submission in submissions:
            if not submission.cancelled:
                run.request_cancel(submission)
        for name in _backends(run):
            base.get(name).cancel(run, [s for s in submissions if s.backend == name])


def forget(run: Run) -> None:
    """Delete what backends keep outside of the run folder of a run that has ended.

    Raises
    ------
    BackendError
        It could not be deleted.
    """
    submissions = run.submissions()
    for name in _backends(run):
        base.get(name).forget(run, [one for one in submissions if one.backend == name])


def remember(run: Run) -> None:
    """Put a run into the index; a job never fails for want of the index."""
    try:
        Index().add(run)
    except (OSError, sqlite3.Error) as error:
        warnings.warn(f"labkit.jobs() may not list this job: {error}", stacklevel=3)
