"""How the parts of a test cluster are configured."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.testing.kubernetes import network_policies
from labkit.testing.kubernetes.machine import CNI, which

NODE = "node1"
SERVICES = "10.96.0.0/16"
SERVICE = "10.96.0.1"
PAUSE = "localhost/pause:1"
_CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/run/containerd"
oom_score = 0
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "{runc}"
"""


@dataclass(frozen=True)
class Layout:
    """Where a cluster is.

    Attributes
    ----------
    folder : Path
        All of its files.
    programs : Path
        Folder of the program ``node``.
    number : int
        Of its networks: each cluster of a machine has its own.
    """

    folder: Path
    programs: Path
    number: int

    @property
    def gateway(self) -> str:
        """Address of this machine in the cluster's network."""
        return f"10.201.{self.number}.1"

    @property
    def address(self) -> str:
        """The node's address."""
        return f"10.201.{self.number}.2"

    @property
    def pods(self) -> str:
        """The network of the pods."""
        return f"10.202.{self.number}.0/24"

    @property
    def link(self) -> str:
        """Network interface of this machine towards the cluster."""
        return f"labhub-k8s-{self.number}"

    @property
    def group(self) -> str:
        """Name of the control group that has all pods."""
        return f"labhub-{self.folder.name}"


def write(layout: Layout) -> None:
    """Write the files that the parts read."""
    folder = layout.folder
    for name in ("etcd", "cni", "kubelet", "podlogs", "run"):
        (folder / name).mkdir()
    runc = which("runc") or "runc"
    containerd = _CONTAINERD.format(folder=folder, pause=PAUSE, cni=CNI, runc=runc)
    (folder / "containerd.toml").write_text(containerd)
    network = {"subnet": layout.pods}
    interface = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[network]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    loaded = {"cniVersion": "0.4.0", "name": "pods", "plugins": [interface]}
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(loaded))
    (folder / "resolv.conf").write_text(f"nameserver {layout.address}\n")
    (folder / "kubelet.yaml").write_text(json.dumps(_kubelet(layout)))
    (folder / "proxy.yaml").write_text(json.dumps(_proxy(layout)))


def _kubelet(layout: Layout) -> dict[str, Any]:
    folder = layout.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.address,
        # It may do all on this machine: only the API server's certificate is let in.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{folder}/pki/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.group}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "resolvConf": f"{folder}/resolv.conf",
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{folder}/podlogs",
        "volumePluginDir": f"{folder}/run/plugins",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi"},
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
    }


def _proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": layout.pods,
        "clientConnection": {"kubeconfig": f"{layout.folder}/pki/proxy.kubeconfig"},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nftables": {"minSyncPeriod": "0s"},
    }


def commands(layout: Layout) -> dict[str, list[str]]:
    """Return the command of each part, in the order of their start."""
    folder, node = layout.folder, layout.address
    pki = f"{folder}/pki"

    def program(name: str) -> str:
        return f"{folder}/bin/{name}"

    def account(name: str) -> str:
        return f"--kubeconfig={pki}/{name}.kubeconfig"

    store = "http://127.0.0.1:2379"
    return {
        "etcd": [
            which("etcd") or "etcd", "--data-dir", f"{folder}/etcd", "--unsafe-no-fsync",
            "--listen-client-urls", store, "--advertise-client-urls", store,
            "--listen-peer-urls", "http://127.0.0.1:2380",
        ],
        "containerd": [which("containerd") or "containerd", "-c", f"{folder}/containerd.toml"],
        "apiserver": [
            program("kube-apiserver"), f"--etcd-servers={store}", f"--bind-address={node}",
            "--secure-port=6443", f"--advertise-address={node}",
            f"--tls-cert-file={pki}/api.crt", f"--tls-private-key-file={pki}/api.key",
            f"--client-ca-file={pki}/ca.crt", f"--token-auth-file={pki}/tokens.csv",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP", "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/accounts.pub",
            f"--service-account-signing-key-file={pki}/accounts.key",
            f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true",
            "--profiling=false",
        ],
        "controllers": [
            program("kube-controller-manager"), account("controllers"), "--leader-elect=false",
            f"--root-ca-file={pki}/ca.crt", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/accounts.key",
            "--bind-address=127.0.0.1", "--profiling=false",
        ],
        "scheduler": [
            program("kube-scheduler"), account("scheduler"), "--leader-elect=false",
            "--bind-address=127.0.0.1", "--profiling=false",
        ],
        "kubelet": [
            program("kubelet"), f"--config={folder}/kubelet.yaml", account("kubelet"),
            f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/kubelet/pki",
            f"--hostname-override={NODE}", f"--node-ip={node}",
        ],
        "proxy": [
            program("kube-proxy"), f"--config={folder}/proxy.yaml", f"--hostname-override={NODE}",
        ],
        "policies": [
            sys.executable, "-I", "-S", network_policies.__file__, f"{pki}/policies.kubeconfig",
        ],
    }  # fmt: skip
