"""A Kubernetes of one node made of plain processes, for tests: nothing of it is left at its end."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit.testing.keeper import Kept
from labkit.testing.kubernetes import certificates, images, node, settings
from labkit.testing.kubernetes.machine import controllers, missing, which
from labkit.testing.kubernetes.settings import Layout
from labkit.testing.machine import ClusterError, ends

_STARTS = 180.0  # seconds, on a loaded machine
_NETWORKS = 250
_PARTS = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet")
_MACHINE = ("cpuset.cpus", "cpuset.mems")  # version 1 asks for these before a process may enter


class KubernetesCluster:
    """Kubernetes on this machine: all is the real thing, but for what enforces network policies.

    etcd, containerd, the API server, controllers, scheduler, kubelet and proxy run in namespaces of
    their own. This machine reaches the API, pods and the node by their addresses. All of it ends
    with this process, also by ``kill -9``. Any number of clusters live side by side.

    Parameters
    ----------
    programs : Path
        Folder of the programs that the environment ``kubernetes`` has.

    Attributes
    ----------
    folder : Path
        Where everything is kept.
    kubeconfig : Path
        What clients need, as an administrator.

    Raises
    ------
    ClusterError
        This machine cannot run it, or it does not start.

    Examples
    --------
    >>> with KubernetesCluster(programs) as cluster:  # doctest: +SKIP
    ...     cluster.call("GET", "/api/v1/nodes")
    """

    def __init__(self, programs: Path) -> None:
        if lacking := missing(programs):
            raise ClusterError(f"Kubernetes cannot run here: it {lacking}")
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="k8s-", dir="/tmp"))
        self._kept: Kept | None = None
        self._layout = Layout(self.folder, programs, 0)
        self._token = ""

    @property
    def kubeconfig(self) -> Path:
        """What clients need, as an administrator."""
        return self.folder / "pki" / "admin.kubeconfig"

    @property
    def gateway(self) -> str:
        """Address of this machine, as pods see it."""
        return self._layout.gateway

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all of it, and remove its files."""
        if self._kept is not None:
            self._kept.end()
            self._kept = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, content: str = ""
    ) -> dict[str, Any]:
        """Call the API as an administrator.

        Parameters
        ----------
        method, path : str
            E.g. ``"GET"``, ``"/api/v1/nodes"``.
        body : mapping, optional
            The JSON that is sent.
        content : str
            Its type, where it is not plain JSON: a patch has one.

        Returns
        -------
        dict
            The answer.

        Raises
        ------
        urllib.error.HTTPError
            The API said no.
        OSError
            It does not answer.
        """
        request = urllib.request.Request(
            f"https://{self._layout.address}:6443{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": content or "application/json",
            },
        )
        trusted = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.crt"))
        with urllib.request.urlopen(request, timeout=60, context=trusted) as answer:  # noqa: S310
            result: dict[str, Any] = json.load(answer)
        return result

    def load(self, archive: Path) -> None:
        """Put the images of an archive into the node.

        Parameters
        ----------
        archive : Path
            As ``docker save`` writes it; `labkit.testing.kubernetes.images` does, too.
        """
        _run(
            which("ctr") or "ctr", "--address", str(self.folder / "containerd.sock"),
            "--namespace", "k8s.io", "images", "import", "--digests=false", str(archive),
        )  # fmt: skip

    def logs(self, lines: int = 20) -> str:
        """Return the end of every part's log."""
        return ends(self.folder / "log", lines)

    # --- inside -----------------------------------------------------------------------------------

    def _start(self) -> None:
        group = self._layout.group
        groups = [controller / group for controller in controllers()]
        _make_groups(groups)
        (self.folder / "log").mkdir()
        words = [
            which("unshare") or "unshare", "--net", "--mount", "--pid", "--uts", "--fork",
            "--kill-child", "--mount-proc", "--propagation", "private",
            sys.executable, "-I", "-S", str(Path(node.__file__)), str(self.folder),
        ]  # fmt: skip
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        log = self.folder / "log" / "node.log"
        self._kept = Kept(words, env, log, remove=self.folder, groups=groups)
        self._until(self._has_namespace, "its namespaces are made")
        self._layout = self._connect()
        (self.folder / "bin").mkdir()
        for part in _PARTS:
            (self.folder / "bin" / part).symlink_to(self._programs / "node")
        settings.write(self._layout)
        tokens = certificates.write(self.folder / "pki", self._layout.address, settings.SERVICE)
        self._token = tokens["admin"]
        task = {
            "name": settings.NODE,
            "link": _peer(self._layout.number),
            "address": self._layout.address,
            "gateway": self._layout.gateway,
            "commands": settings.commands(self._layout),
        }
        whole = self.folder / "task.json.new"
        whole.write_text(json.dumps(task))
        whole.rename(self.folder / "task.json")
        self._until((self.folder / "containerd.sock").is_socket, "containerd answers")
        pause = self.folder / "pause.tar"
        images.write(pause, settings.PAUSE, {"/pause": self._programs / "pause"}, ["/pause"])
        images.write_machine(self.folder / "machine.tar")
        self.load(pause)
        self.load(self.folder / "machine.tar")
        self._until(self._is_ready, "the node is ready")

    def _has_namespace(self) -> bool:
        pid = self._kept.pid if self._kept else 0
        return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()

    def _connect(self) -> Layout:
        """Make a network between this machine and the cluster; it goes away with the cluster."""
        pid = str(self._kept.pid if self._kept else 0)
        ip = which("ip") or "ip"
        first = os.getpid()
        for offset in range(_NETWORKS):
            layout = Layout(self.folder, self._programs, (first + offset) % _NETWORKS)
            peer = ("peer", "name", _peer(layout.number), "netns", pid)
            made = subprocess.run(
                [ip, "link", "add", layout.link, "type", "veth", *peer],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode == 0:
                break
            if "File exists" not in made.stderr:
                raise ClusterError(f"ip link add: {made.stderr.strip()}")
        else:
            raise ClusterError(f"there are {_NETWORKS} clusters already")
        _run(ip, "addr", "add", f"{layout.gateway}/24", "dev", layout.link)
        _run(ip, "link", "set", layout.link, "up")
        _run(ip, "route", "replace", layout.pods, "via", layout.address)
        return layout

    def _is_ready(self) -> bool:
        try:
            status = self.call("GET", f"/api/v1/nodes/{settings.NODE}")["status"]
            self.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        except OSError:  # not there yet, or not all of it
            return False
        conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
        return conditions.get("Ready") == "True"

    def _until(self, what: Callable[[], bool], text: str) -> None:
        deadline = time.monotonic() + _STARTS
        while not what():
            ended = self.folder / "ended"
            gone = self._kept is not None and not self._kept.alive
            if ended.exists() or gone or time.monotonic() > deadline:
                why = ended.read_text() if ended.exists() else "in vain"
                raise ClusterError(f"waited until {text}: {why}\n{self.logs()}")
            time.sleep(0.05)


def _peer(number: int) -> str:
    return f"labhub-node-{number}"


def _make_groups(groups: list[Path]) -> None:
    for group in groups:
        group.mkdir(exist_ok=True)
        for name in _MACHINE:
            if (group / name).exists() and (group.parent / name).exists():
                (group / name).write_text((group.parent / name).read_text())


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(words)}: {done.stderr.strip()}")
