"""What Kubernetes says of tasks that have left no record (yet), in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from labkit.jobs.model import Reason, Sighting, State, from_ranges
from labkit.jobs.worker.stage_order import finished

INDEX = "batch.kubernetes.io/job-completion-index"
_SHOWN = 300  # characters
# Why a container waits -> what that means.
_WAITS = {
    "ContainerCreating": "Its container is being made ready.",
    "PodInitializing": "Its container is being made ready.",
}
_IMAGE = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
     "ImageInspectError", "RegistryUnavailable"}
)  # fmt: skip
# Why a container or pod has ended -> ours.
_ENDED = {
    "OOMKilled": (Reason.OUT_OF_MEMORY, "it was over the memory of its pod"),
    "Evicted": (Reason.NODE_FAIL, "its node ran short, and gave it up"),
    "DeadlineExceeded": (Reason.TIMEOUT, "it took longer than its pod may"),
    "Preempting": (Reason.PREEMPTED, "a pod with higher priority has its place"),
    "PreemptionByScheduler": (Reason.PREEMPTED, "a pod with higher priority has its place"),
    "DeletionByTaintManager": (Reason.NODE_FAIL, "its node does not answer"),
    "DeletionByPodGC": (Reason.NODE_FAIL, "its node is gone"),
    "EvictionByEvictionAPI": (Reason.NODE_FAIL, "its node is being emptied"),
    "TerminationByKubelet": (Reason.NODE_FAIL, "its node ran short, or shuts down"),
}


def of_job(
    job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[int, Sighting]]:
    """Return what is to be said of a job's indices, those that have succeeded left out.

    Parameters
    ----------
    job : mapping
        The job.
    pods : iterable of mapping
        Its pods that have not succeeded.
    """
    status = job["status"]
    completed = set(from_ranges(status.get("completedIndexes", "")))
    failed = set(from_ranges(status.get("failedIndexes", "")))
    over = bool(finished(dict(job)))
    newest: dict[int, Mapping[str, Any]] = {}
    for one in sorted(pods, key=lambda each: str(each["metadata"]["creationTimestamp"])):
        newest[int(one["metadata"]["annotations"][INDEX])] = one
    for index in range(job["spec"]["completions"]):
        if index in completed:
            continue
        pod = newest.get(index)
        if (index in failed or over) and (pod is None or pod["status"]["phase"] == "Failed"):
            yield (
                index,
                ended(pod)
                if pod
                else Sighting(State.FAILED, Reason.LOST, "its pod is gone, and it left no record"),
            )
        elif job["spec"].get("suspend"):
            yield index, Sighting(State.PENDING, text="It waits for the stage before it.")
        elif pod is None or pod["status"]["phase"] == "Failed":
            yield index, Sighting(State.PENDING, text="It waits for a pod.")
        else:  # also where it has failed since the pods were asked for: the next look says why
            yield index, alive(pod)


def alive(pod: Mapping[str, Any]) -> Sighting:
    """Return what a pod that has not ended says of its task."""
    status = pod["status"]
    for container in status.get("containerStatuses", ()):
        if waiting := container["state"].get("waiting"):
            reason, message = waiting.get("reason", ""), waiting.get("message", "")[:_SHOWN]
            if reason in _IMAGE:
                text = f"Its image {container['image']} cannot be had ({reason}: {message})."
                return Sighting(State.PENDING, text=text)
            text = _WAITS.get(reason) or f"Its container cannot start ({reason}: {message})."
            return Sighting(State.PENDING, text=text)
    if status["phase"] == "Running":
        return Sighting(State.RUNNING)
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            said = condition.get("message", condition.get("reason", ""))[:_SHOWN]
            return Sighting(State.PENDING, text=f"It waits for a node: {said}")
    return Sighting(State.PENDING, text="Its node makes it ready.")


def ended(pod: Mapping[str, Any]) -> Sighting:
    """Return why a pod that has ended left no record."""
    status = pod["status"]
    causes = [str(status.get("reason", ""))]
    causes += [c.get("reason", "") for c in status.get("conditions", ())
               if c["type"] == "DisruptionTarget"]  # fmt: skip
    said = ""
    for container in status.get("containerStatuses", ()):
        if how := container["state"].get("terminated"):
            causes.insert(0, str(how.get("reason", "")))
            said = f"exit code {how.get('exitCode')}"
            if words := str(how.get("message", "")).strip():
                said = f"{said}: {words.splitlines()[-1][:_SHOWN]}"
    for cause in causes:
        if cause in _ENDED:
            reason, text = _ENDED[cause]
            return Sighting(State.FAILED, reason, f"{text} ({cause})")
    text = "; ".join(filter(None, [str(status.get("message", ""))[:_SHOWN], said]))
    return Sighting(State.FAILED, Reason.LOST, f"its pod ended without a record: {text}")
