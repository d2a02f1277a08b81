"""What is asked of Kubernetes for a submission: Indexed Jobs, as plain JSON."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.base.units import MB
from labkit.jobs.backends.kubernetes.options import Options
from labkit.jobs.model import Resources
from labkit.jobs.runs.store import Run, StageWork, Submission

LARGEST_ARRAY = 10_000  # indices; above 100,000 Kubernetes has other rules for retries
RECORDED_FAILURE = 1  # exit code: a record says why, and another attempt would not mend it
_OVERHEAD = 256 * MB  # the worker's own, beside what the task may use
_SLACK = 600  # seconds, beside the task's own limit
_KEPT = 86_400  # seconds that a job that has ended stays to be seen
_GRACE = 30  # seconds between SIGTERM and SIGKILL
_START = (
    "import sys; sys.path.insert(0, sys.argv[1] + '/worker'); "
    "from labkit.jobs.worker.pod import main; raise SystemExit(main(sys.argv[1:]))"
)

_ORDER = (
    "import sys; sys.path.insert(0, sys.argv[1] + '/worker'); "
    "from labkit.jobs.worker.stage_order import main; raise SystemExit(main(sys.argv[2:]))"
)


@dataclass(frozen=True)
class Array:
    """Some tasks of one stage: one Indexed Job.

    Attributes
    ----------
    stage : str
        The stage.
    start : int
        Place of its first task among the submission's tasks of that stage.
    count : int
        Tasks.
    """

    stage: str
    start: int
    count: int

    def name(self, submission: str) -> str:
        """Return the job's name: the same for the same submission, so that it is found again."""
        digest = hashlib.sha256(f"{submission}/{self.stage}/{self.start}".encode()).hexdigest()
        return f"labkit-{self.stage[:30].rstrip('-')}-{digest[:16]}"


def layout(works: Sequence[StageWork]) -> Iterator[Array]:
    """Return the arrays of a submission, stage by stage."""
    for work in works:
        for start in range(0, len(work.tasks), LARGEST_ARRAY):
            yield Array(work.name, start, min(LARGEST_ARRAY, len(work.tasks) - start))


def unique(run: Run, submission: Submission) -> str:
    """Return a submission's name and when its run folder was made.

    A folder that was deleted may have had jobs of the same name.
    """
    return f"{submission.name}-{hashlib.sha256(run.manifest.created.encode()).hexdigest()[:8]}"


def owner() -> str:
    """Return the label that all jobs of this person carry."""
    return re.sub(r"[^a-z0-9]+", "-", getpass.getuser().lower()).strip("-")[:63] or "user"


def job(
    array: Array, work: StageWork, *, name: str, place: str, number: int, image: str,
    options: Options, envs: str,
) -> dict[str, Any]:  # fmt: skip
    """Return one Indexed Job.

    Parameters
    ----------
    array, work : Array, StageWork
        Which tasks, and what they ask for.
    name : str
        Of the job.
    place : str
        The run folder, where pods see it, too.
    number : int
        Of the submission.
    image : str
        The container image.
    options : Options
        The options of the submit.
    envs : str
        Folder of the lab's environments, where it is mounted; may be empty.
    """
    labels = {"app.kubernetes.io/managed-by": "labkit", "labkit/user": owner()}
    retries = {"backoffLimitPerIndex": work.retries, "maxFailedIndexes": array.count}
    spec = {
        "completions": array.count,
        "parallelism": array.count,
        "completionMode": "Indexed",
        "suspend": bool(work.depends_on),
        "ttlSecondsAfterFinished": _KEPT,
        **retries,
        "podReplacementPolicy": "Failed",  # never two of one task at a time
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailIndex",
                    "onExitCodes": {
                        "containerName": "task",
                        "operator": "In",
                        "values": [RECORDED_FAILURE],
                    },
                }
            ]
        },
        "template": {
            "metadata": {"labels": labels},
            "spec": _pod(array, work, place, number, image, options, envs),
        },
    }
    annotations = {"labkit/stage": array.stage, "labkit/run": place}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def _pod(
    array: Array, work: StageWork, place: str, number: int, image: str, options: Options, envs: str
) -> dict[str, Any]:
    asked = work.resources
    memory = f"{math.ceil((asked.memory + _OVERHEAD) / MB)}Mi"
    limits: dict[str, str] = {"memory": memory}
    if asked.gpus:
        limits["nvidia.com/gpu"] = str(asked.gpus)
    if asked.scratch:
        limits["ephemeral-storage"] = f"{math.ceil(asked.scratch / MB)}Mi"
    requests = {**limits, "cpu": f"{max(1, math.ceil(asked.cpu * 1000))}m"}
    words = ["--submission", str(number), "--start", str(array.start)]
    volumes, mounts = [], []
    for order, (folder, source) in enumerate(sorted(options.volumes.items())):
        volume, sub = _volume(source)
        volumes.append({"name": f"volume-{order}", **volume})
        mounts.append({"name": f"volume-{order}", "mountPath": folder, **sub})
    environment = {"LABHUB_ENVS": envs} if envs else {"LABKIT_ENVIRONMENT": "path"}
    container = {
        "name": "task",
        "image": image,
        "command": ["python3", "-I", "-S", "-c", _START, place, array.stage, *words],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": requests, "limits": limits},
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "containers": [container],
        "volumes": volumes,
        # What it writes on the shared volume is the person's own.
        "securityContext": {
            "runAsUser": os.getuid(),
            "runAsGroup": os.getgid(),
            "runAsNonRoot": os.getuid() != 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.priority:
        pod["priorityClassName"] = options.priority
    if asked.time is not None:
        pod["activeDeadlineSeconds"] = math.ceil(asked.time.total_seconds()) + _SLACK
    return pod


def order_name(submission: str) -> str:
    """Return the name of the Job that lets a submission's stages begin."""
    return f"labkit-order-{hashlib.sha256(submission.encode()).hexdigest()[:16]}"


def order(
    submission: str, works: Sequence[StageWork], place: str, image: str, options: Options
) -> dict[str, Any] | None:
    """Return the Job that lets stages begin one after the other; None where none waits.

    Parameters
    ----------
    submission : str
        Its unique name.
    works : sequence of StageWork
        Its stages.
    place : str
        The run folder, where pods see it, too.
    image : str
        An image with Python.
    options : Options
        The options of the submit.
    """
    if not options.service_account or not any(work.depends_on for work in works):
        return None
    arrays = list(layout(works))
    known = {work.name: work for work in works}
    entries = [
        {
            "name": array.name(submission),
            "after": [
                other.name(submission)
                for other in arrays
                if other.stage in known[array.stage].depends_on
            ],
            "tolerate": known[array.stage].tolerate_failures,
        }
        for array in arrays
    ]
    resources = Resources(cpu=0.01, memory=64 * MB)
    pod = _pod(Array("order", 0, 1), StageWork("order", (0,), resources), place, 0, image, options,
               "")  # fmt: skip
    pod |= {"serviceAccountName": options.service_account, "automountServiceAccountToken": True}
    pod["restartPolicy"] = "OnFailure"
    pod["containers"][0]["command"] = [
        "python3", "-I", "-S", "-c", _ORDER, place, json.dumps(entries),
    ]  # fmt: skip
    labels = {"app.kubernetes.io/managed-by": "labkit", "labkit/user": owner()}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": order_name(submission), "labels": labels},
        "spec": {
            "ttlSecondsAfterFinished": _SLACK,
            "backoffLimit": 100,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _volume(source: str) -> tuple[dict[str, Any], dict[str, str]]:
    kind, _, what = source.partition(":")
    if kind == "host":
        return {"hostPath": {"path": what, "type": "Directory"}}, {}
    claim, _, folder = what.partition("/")
    return {"persistentVolumeClaim": {"claimName": claim}}, {"subPath": folder} if folder else {}
