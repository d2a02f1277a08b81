"""What is asked of Kubernetes, and how its words are read; tests/k8s has a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labkit.jobs.backends.base import BackendError
from labkit.jobs.backends.kubernetes import options, requests, sightings
from labkit.jobs.backends.kubernetes.api import JOBS, connect
from labkit.jobs.model import Reason, Resources, State
from labkit.jobs.runs.store import StageWork
from labkit.jobs.worker import stage_order

GIVEN = {
    "images": {"worker": "lab/worker@sha256:0f"},
    "volumes": {"/shared": "claim:lab/people", "/refs": "host:/refs"},
    "node_selector": {"lab/pool": "spot"},
    "priority": "low",
}


def made(**more: Any) -> dict[str, Any]:
    chosen, problems = options.read({**GIVEN, **more})
    assert chosen is not None, problems
    work = StageWork("map", tuple(range(3)), Resources.of(0.5, "1 GB", "1h"), retries=2)
    (array,) = requests.layout([work])
    return requests.job(
        array, work, name=array.name("run-1"), place="/shared/run", number=1,
        image="lab/worker@sha256:0f", options=chosen, envs="",
    )  # fmt: skip


def test_a_job_says_all_that_was_asked_for() -> None:
    job = made()
    assert job["spec"]["completions"] == 3
    assert job["spec"]["backoffLimitPerIndex"] == 2
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"lab/pool": "spot"}
    assert pod["priorityClassName"] == "low"
    assert pod["activeDeadlineSeconds"] == 3600 + 600
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1280Mi"}
    assert container["resources"]["limits"] == {"memory": "1280Mi"}
    mounts = {one["mountPath"]: one.get("subPath") for one in container["volumeMounts"]}
    assert mounts == {"/shared": "people", "/refs": None}


def test_no_pod_has_a_token_or_a_privilege() -> None:
    pod = made()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "hostNetwork" not in pod


def test_names_are_the_same_for_the_same_and_fit() -> None:
    long = requests.Array("a" * 40, 0, 1)
    assert long.name("run") == long.name("run")
    assert len({long.name("run"), long.name("run2"), requests.Array("b", 0, 1).name("run")}) == 3
    assert len(long.name("x" * 300)) <= 63


def test_long_stages_are_several_jobs() -> None:
    work = StageWork("map", tuple(range(25_000)), Resources())
    assert [(one.start, one.count) for one in requests.layout([work])] == [
        (0, 10_000),
        (10_000, 10_000),
        (20_000, 5_000),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("namespace", "kube-system/../default"),
        ("namespace", "a?dryRun=All"),
        ("namespace", ["default"]),
        ("context", "a\nb"),
        ("priority", "Über"),
        ("images", {"worker": "-flag"}),
        ("images", "no json"),
        ("images", ["lab/worker"]),
        ("volumes", {"shared": "claim:lab"}),
        ("volumes", {"/shared": "secret:admin"}),
        ("volumes", {"/shared": "claim:lab/../other"}),
        ("volumes", {"/shared/../etc": "claim:lab"}),
        ("node_selector", {"lab/pool": 1}),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_by_name(name: str, value: object) -> None:
    chosen, problems = options.read({**GIVEN, name: value})
    assert chosen is None
    assert [problem.where for problem in problems] == [f"kubernetes_{name}"]


def test_the_labs_settings_stand_in_for_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_KUBERNETES_VOLUMES", '{"/home/ada": "claim:home-ada"}')
    monkeypatch.setenv("LABKIT_KUBERNETES_NAMESPACE", "lab")
    chosen, _ = options.read(options.complete({"namespace": "other"}))
    assert chosen is not None
    assert chosen.namespace == "other"
    assert chosen.volumes == {"/home/ada": "claim:home-ada"}


def pod(index: int, status: dict[str, Any]) -> dict[str, Any]:
    metadata = {"creationTimestamp": "2026-11-30T00:00:00Z", "annotations": {
        sightings.INDEX: str(index)}}  # fmt: skip
    return {"metadata": metadata, "status": {"phase": "Running", **status}}


def container(**state: dict[str, Any]) -> dict[str, Any]:
    return {"containerStatuses": [{"image": "lab/worker:1", "state": state}]}


@pytest.mark.parametrize(
    ("status", "state", "text"),
    [
        (container(running={}), State.RUNNING, ""),
        (
            {"phase": "Pending", **container(waiting={"reason": "ContainerCreating"})},
            State.PENDING,
            "made ready",
        ),
        (
            {"phase": "Pending", **container(waiting={"reason": "ImagePullBackOff",
                                                      "message": "not found"})},
            State.PENDING,
            "image lab/worker:1 cannot be had (ImagePullBackOff: not found)",
        ),
        (
            {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                                                 "message": "0/3 nodes: Insufficient memory."}]},
            State.PENDING,
            "It waits for a node: 0/3 nodes: Insufficient memory.",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_lives_is_told_in_words(status: dict[str, Any], state: State, text: str) -> None:
    seen = sightings.alive(pod(0, status))
    assert seen.state is state
    assert text in seen.text


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (container(terminated={"reason": "OOMKilled", "exitCode": 137}), Reason.OUT_OF_MEMORY),
        ({"reason": "Evicted", "message": "The node was low on resource"}, Reason.NODE_FAIL),
        ({"reason": "DeadlineExceeded"}, Reason.TIMEOUT),
        (
            {"conditions": [{"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}]},
            Reason.PREEMPTED,
        ),
        (container(terminated={"reason": "Error", "exitCode": 2}), Reason.LOST),
    ],
)
def test_a_pod_that_has_ended_says_why(status: dict[str, Any], reason: Reason) -> None:
    seen = sightings.ended(pod(0, {"phase": "Failed", **status}))
    assert seen.state is State.FAILED
    assert seen.reason is reason
    assert seen.text


def test_the_last_pod_of_a_task_counts_and_success_is_left_to_records() -> None:
    job = {
        "spec": {"completions": 4},
        "status": {"completedIndexes": "0", "failedIndexes": "1"},
    }
    old = pod(1, {"phase": "Failed", "reason": "Evicted"})
    new = pod(1, {"phase": "Failed", **container(terminated={"reason": "OOMKilled"})})
    new["metadata"]["creationTimestamp"] = "2026-11-30T00:01:00Z"
    seen = dict(sightings.of_job(job, [new, old, pod(2, container(running={}))]))
    assert sorted(seen) == [1, 2, 3]
    assert seen[1].reason is Reason.OUT_OF_MEMORY
    assert seen[2].state is State.RUNNING
    assert seen[3].state is State.PENDING


def test_a_pod_that_failed_between_two_questions_is_told_at_the_next_look() -> None:
    job = {"spec": {"completions": 1}, "status": {"failedIndexes": "0"}}
    seen = dict(sightings.of_job(job, [pod(0, container(running={}))]))
    assert seen[0].state is State.RUNNING
    seen = dict(sightings.of_job(job, [pod(0, {"phase": "Failed", "reason": "Evicted"})]))
    assert seen[0].reason is Reason.NODE_FAIL


def test_a_stage_that_waits_says_so() -> None:
    job = {"spec": {"completions": 1, "suspend": True}, "status": {}}
    ((_, seen),) = sightings.of_job(job, [])
    assert seen.state is State.PENDING
    assert "stage before" in seen.text


class FakeJobs:
    """Jobs of a cluster, as `stage_order.Jobs` shows them."""

    def __init__(self, **ends: str) -> None:
        self.jobs: dict[str, Any] = {
            name: {
                "spec": {"suspend": end == "waits"},
                "status": {"conditions": [{"type": end, "status": "True"}]},
            }
            for name, end in ends.items()
        }

    def get(self, name: str) -> dict[str, Any] | None:
        return self.jobs.get(name)

    def let_go(self, name: str) -> None:
        self.jobs[name]["spec"]["suspend"] = False


@pytest.mark.parametrize(
    ("before", "tolerate", "begun", "waiting"),
    [
        ("runs", False, False, True),
        ("Complete", False, True, False),
        ("Failed", False, False, False),
        ("Failed", True, True, False),
    ],
)
def test_a_stage_begins_when_those_before_it_have_ended(
    before: str, tolerate: bool, begun: bool, waiting: bool
) -> None:
    jobs = FakeJobs(one=before, two="waits")
    order = [
        {"name": "one", "after": [], "tolerate": False},
        {"name": "two", "after": ["one"], "tolerate": tolerate},
    ]
    assert stage_order.step(jobs, order) is waiting  # type: ignore[arg-type]
    assert jobs.jobs["two"]["spec"]["suspend"] is not begun


def test_a_stage_whose_forerunner_was_deleted_never_begins() -> None:
    jobs = FakeJobs(two="waits")
    order = [{"name": "two", "after": ["one"], "tolerate": False}]
    order.insert(0, {"name": "one", "after": [], "tolerate": False})
    assert stage_order.step(jobs, order) is False  # type: ignore[arg-type]
    assert jobs.jobs["two"]["spec"]["suspend"] is True


def test_only_the_pod_that_keeps_the_order_has_a_token() -> None:
    chosen, _ = options.read({**GIVEN, "service_account": "order"})
    assert chosen is not None
    works = [StageWork("one", (0,), Resources()), StageWork("two", (0,), Resources(), ("one",))]
    job = requests.order("run-1", works, "/shared/run", "lab/worker:1", chosen)
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("order", True)
    assert requests.order("run-1", works[:1], "/shared/run", "lab/worker:1", chosen) is None
    task = made(service_account="order")["spec"]["template"]["spec"]
    assert "serviceAccountName" not in task


def kubeconfig(**changes: Any) -> dict[str, Any]:
    """Return a kubeconfig of a cluster at which nobody answers."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "t", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "t", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        "current-context": "t",
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "context", "said"),
    [
        (None, "", "cannot be reached.*KUBECONFIG"),
        (json.dumps(kubeconfig()), "", "does not answer"),
        (json.dumps(kubeconfig()), "other", "No such context other"),
        (json.dumps({"apiVersion": "v1", "kind": "Config"}), "", "kubeconfig"),
        ("{{{", "", "kubeconfig cannot be used"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_told_in_words(
    content: str | None,
    context: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "config"
    if content is not None:
        place.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(place))
    with pytest.raises(BackendError, match=said) as error:
        connect("", context, str(place)).call("GET", JOBS)
    assert "secret-token" not in str(error.value)
