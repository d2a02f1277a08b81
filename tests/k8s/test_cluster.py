"""The one-node Kubernetes for tests: pods run and are limited, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from labkit.testing.kubernetes import KubernetesCluster, images
from labkit.testing.kubernetes.machine import controllers, which
from tests.support.job_helpers import until
from tests.support.kubernetes import TIMEOUT, programs

pytestmark = TIMEOUT
PODS = "/api/v1/namespaces/default/pods"


def pod(name: str, *command: str, memory: str = "64Mi") -> dict[str, Any]:
    """Return a pod that runs a command of this machine."""
    container = {
        "name": "main",
        "image": images.MACHINE,
        "imagePullPolicy": "Never",
        "command": list(command),
        "resources": {"limits": {"memory": memory, "cpu": "500m"}},
        "volumeMounts": [{"name": "usr", "mountPath": "/usr", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "usr", "hostPath": {"path": "/usr"}}],
        },
    }


def status(cluster: KubernetesCluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.call("GET", f"{PODS}/{name}")["status"]
    return found


def ended(cluster: KubernetesCluster, name: str) -> dict[str, Any]:
    """Wait for a pod's end, and return how its container ended."""
    until(lambda: status(cluster, name)["phase"] in ("Succeeded", "Failed"))
    how: dict[str, Any] = status(cluster, name)["containerStatuses"][0]["state"]["terminated"]
    return how


def test_a_pod_runs_what_this_machine_has(kubernetes: KubernetesCluster) -> None:
    kubernetes.call("POST", PODS, pod("well", "/bin/sh", "-c", "exit 3"))
    assert ended(kubernetes, "well")["exitCode"] == 3


def test_a_pod_over_its_memory_is_killed(kubernetes: KubernetesCluster) -> None:
    hungry = "data = bytearray(200 << 20); data[::4096] = b'x' * len(data[::4096])"
    kubernetes.call("POST", PODS, pod("hungry", "/usr/bin/python3", "-c", hungry))
    assert ended(kubernetes, "hungry")["reason"] == "OOMKilled"


def test_an_indexed_job_gives_each_pod_its_index(kubernetes: KubernetesCluster) -> None:
    inside = pod("any", "/bin/sh", "-c", "exit $JOB_COMPLETION_INDEX")["spec"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "two"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 0,
            "template": {"spec": inside},
        },
    }
    place = "/apis/batch/v1/namespaces/default/jobs"
    kubernetes.call("POST", place, job)
    until(lambda: kubernetes.call("GET", f"{place}/two")["status"].get("failedIndexes"))
    told = kubernetes.call("GET", f"{place}/two")["status"]
    assert (told["completedIndexes"], told["failedIndexes"]) == ("0", "1")


def test_this_machine_reaches_pods(kubernetes: KubernetesCluster) -> None:
    served = ("-m", "http.server", "8000", "--directory", "/usr/bin")
    kubernetes.call("POST", PODS, pod("server", "/usr/bin/python3", *served))
    until(lambda: status(kubernetes, "server").get("podIP"))
    address = status(kubernetes, "server")["podIP"]

    def answers() -> bool:
        words = ["/usr/bin/python3", "-c", "import sys, urllib.request as r; "
                 "r.urlopen(f'http://{sys.argv[1]}:8000/env', timeout=5)", address]  # fmt: skip
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    until(answers)


def test_network_policies_are_kept(kubernetes: KubernetesCluster) -> None:
    served = pod("guarded", "/usr/bin/python3", "-m", "http.server", "8000", "-d", "/usr/bin")
    served["metadata"]["labels"] = {"app": "guarded"}
    kubernetes.call("POST", PODS, served)
    until(lambda: status(kubernetes, "guarded").get("podIP"))
    address = status(kubernetes, "guarded")["podIP"]
    place = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    until(lambda: opens(address))
    policy: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {"podSelector": {"matchLabels": {"app": "guarded"}}, "ingress": []},
    }
    kubernetes.call("POST", place, policy)
    until(lambda: not opens(address))
    policy["spec"]["ingress"] = [
        {"from": [{"ipBlock": {"cidr": f"{kubernetes.gateway}/32"}}], "ports": [{"port": 8000}]}
    ]
    kubernetes.call("PUT", f"{place}/guard", policy)
    until(lambda: opens(address))


def opens(address: str) -> bool:
    """Return whether a pod's web server lets this machine connect."""
    try:
        socket.create_connection((address, 8000), timeout=2).close()
    except OSError:
        return False
    return True


def test_others_are_refused(kubernetes: KubernetesCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "_token", "0" * 32)
    with pytest.raises(urllib.error.HTTPError) as refused:
        kubernetes.call("GET", PODS)
    assert refused.value.code == 401
    assert kubernetes.kubeconfig.stat().st_mode & 0o077 == 0


def test_nothing_is_left_after_kill_9() -> None:
    script = (
        "import sys, time; from pathlib import Path; "
        "from labkit.testing.kubernetes import KubernetesCluster\n"
        "with KubernetesCluster(Path(sys.argv[1])) as cluster:\n"
        "    print(cluster.folder, cluster._layout.link, flush=True)\n"
        "    time.sleep(600)"
    )
    repository = str(Path(__file__).parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(programs())],
        env={**os.environ, "PYTHONPATH": repository},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    folder, link = starter.stdout.readline().split()
    groups = [controller / f"labhub-{Path(folder).name}" for controller in controllers()]
    assert all(group.exists() for group in groups)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()

    def gone() -> bool:
        links = subprocess.run([which("ip") or "ip", "link"], capture_output=True, text=True)
        return (
            not Path(folder).exists()
            and f"{link}@" not in links.stdout
            and not any(group.exists() for group in groups)
            and not _processes(folder)
        )

    until(gone)
    mounts = Path("/proc/self/mounts").read_text()
    assert folder not in mounts


def _processes(folder: str) -> list[str]:
    """Return the command lines that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if folder in line:
            lines.append(line)
    return lines
