"""The backend kubernetes keeps the contract of all backends, on a real Kubernetes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit.base.problems import RefusedError
from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.jobs.backends.kubernetes import KubernetesBackend
from labkit.jobs.backends.kubernetes.api import Api
from labkit.jobs.job import Job
from labkit.jobs.model import Resources, Stage, State
from labkit.testing.kubernetes import KubernetesCluster, images
from tests.labkit.jobs.conftest import lab_home  # noqa: F401
from tests.support.backend_contract import BackendContract, Site
from tests.support.job_helpers import ran, stage, until
from tests.support.kubernetes import TIMEOUT

pytestmark = TIMEOUT
JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def site(
    kubernetes: KubernetesCluster,
    tmp_path: Path,
    lab_home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """A folder that pods see, too; its disk shows files at once."""
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig))
    monkeypatch.setattr(KubernetesBackend, "grace", 3.0)
    python = str(Path(sys.executable).parents[1])
    folders = {"/usr", str(tmp_path), python, str(Path(python).resolve())}
    options = {
        "kubernetes_images": {"worker": images.MACHINE},
        "kubernetes_volumes": {folder: f"host:{folder}" for folder in folders},
    }
    return Site("kubernetes", tmp_path, options, patience=300)


class TestKubernetes(BackendContract):
    memory_grows = False  # a pod has what it has: the person asks again

    @pytest.fixture
    def site(self, site: Site) -> Site:
        return site


def waiting(site: Site) -> Stage:
    """Return a stage that leaves a trace and ends when the file ``gate`` is there."""
    gate = site.folder / "gate"
    script = f"echo ran >> {site.trace}; while [ ! -e {gate} ]; do sleep 0.1; done"
    return stage("wait", script)


def told(job: Job) -> str:
    """Return what is said of a job's open tasks."""
    return " ".join(task.text for task in job.refresh().open)


def test_the_schedulers_words_are_shown(site: Site) -> None:
    job = site.submit(stage("large", "true", resources=Resources.of(190, "100 MB")))
    until(lambda: "Insufficient cpu" in told(job))
    assert job.state is State.PENDING
    job.cancel().wait(site.patience)
    assert job.state is State.CANCELLED


def test_an_image_that_is_not_there_is_named(site: Site) -> None:
    images = {"kubernetes_images": {"worker": "localhost/none:1"}}
    job = site.submit(stage("one", "true"), **images)
    until(lambda: "localhost/none:1 cannot be had" in told(job))
    job.cancel().wait(site.patience)


def test_a_pod_that_is_deleted_is_replaced_and_shown(
    site: Site, kubernetes: KubernetesCluster
) -> None:
    job = site.submit(waiting(site))
    until(lambda: ran(site.trace))
    (handle,) = job.run.submissions()[0].handle["jobs"]  # type: ignore[index]
    chosen = f"?labelSelector=batch.kubernetes.io/job-name={handle['name']}"
    (pod,) = kubernetes.call("GET", PODS + chosen)["items"]
    kubernetes.call("DELETE", f"{PODS}/{pod['metadata']['name']}")
    until(lambda: len(ran(site.trace)) == 2)
    (site.folder / "gate").touch()
    assert job.wait(site.patience).state is State.SUCCEEDED
    kept = [json.loads(job.run.folder.record("wait", 0, n).read_text()) for n in (1, 2)]
    assert [one.get("reason") for one in kept] == ["PREEMPTED", None]
    assert job.refresh().retries == 1, "the retry is visible"


def test_a_job_whose_answer_was_lost_is_found_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = stage("once", f"echo ran >> {site.trace}")
    call = Api.call

    def lose(self: Api, method: str, *words: Any, **params: Any) -> dict[str, Any]:
        answer = call(self, method, *words, **params)
        if method == "POST" and "dryRun" not in params:
            raise BackendError("the answer was lost")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Api, "call", lose)
        with pytest.raises(BackendError, match="was lost"):
            site.submit(work)
    assert site.run(work).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"], "it was adopted"


def test_a_job_that_somebody_deletes_is_not_said_to_run(
    site: Site, kubernetes: KubernetesCluster
) -> None:
    job = site.submit(stage("large", "true", resources=Resources.of(190, "100 MB")))
    (handle,) = job.run.submissions()[0].handle["jobs"]  # type: ignore[index]
    kubernetes.call("DELETE", f"{JOBS}/{handle['name']}?propagationPolicy=Background")
    assert job.wait(site.patience).state is State.FAILED
    assert list(job.failed()["reason"]) == ["LOST"]


def test_a_cluster_that_is_away_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = site.submit(waiting(site))
    until(lambda: job.refresh().count(State.RUNNING) == 1)

    def away(*_: object, **__: object) -> None:
        raise BackendError("Kubernetes does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Api, "call", away)
        snapshot = job.refresh()
    assert not snapshot.known
    assert "does not answer" in snapshot.text
    (site.folder / "gate").touch()
    assert job.wait(site.patience).state is State.SUCCEEDED


def test_a_run_folder_that_pods_do_not_see_is_refused(site: Site) -> None:
    volumes = {**site.options["kubernetes_volumes"]}
    volumes.pop(str(site.folder))
    with pytest.raises(SubmitRefusedError, match="do not see the run folder"):
        site.submit(stage("one", "true"), kubernetes_volumes=volumes)


def test_what_the_cluster_would_refuse_is_refused_before(site: Site) -> None:
    with pytest.raises(RefusedError, match="nowhere"):
        site.submit(stage("one", "true"), kubernetes_namespace="nowhere")
    assert not (site.folder / "runs").exists()


def test_later_stages_begin_though_nobody_looks(site: Site, kubernetes: KubernetesCluster) -> None:
    _make_account(kubernetes)
    job = site.submit(
        stage("one", f"echo one >> {site.trace}"),
        stage("two", f"echo two >> {site.trace}", depends_on=("one",)),
        kubernetes_service_account="labkit-order",
    )
    until(lambda: ran(site.trace) == ["one", "two"])
    assert job.wait(site.patience).state is State.SUCCEEDED


def _make_account(cluster: KubernetesCluster) -> None:
    name = {"metadata": {"name": "labkit-order"}}
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    cluster.call("POST", "/api/v1/namespaces/default/serviceaccounts", name)
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "patch"]}
    cluster.call("POST", f"{rbac}/roles", {**name, "rules": [rule]})
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": "labkit-order", "namespace": "default"}
    role = {"apiGroup": group, "kind": "Role", "name": "labkit-order"}
    cluster.call("POST", f"{rbac}/rolebindings", {**name, "roleRef": role, "subjects": [subject]})


def test_pods_have_no_rights(site: Site, kubernetes: KubernetesCluster) -> None:
    """No token of the cluster, no privilege, not even as root."""
    look = (
        "! test -e /var/run/secrets/kubernetes.io; grep -q 'CapEff:.0*$' /proc/self/status; "
        "grep -q 'NoNewPrivs:.1' /proc/self/status; grep -q 'Seccomp:.2' /proc/self/status"
    )
    assert site.run(stage("look", look)).state is State.SUCCEEDED
