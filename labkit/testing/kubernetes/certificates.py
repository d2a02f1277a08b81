"""Certificates, keys and tokens of a test cluster, made with openssl."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

from labkit.testing.kubernetes.machine import which

_DAYS = "30"
#: Account -> the user and the group that the cluster takes it for.
ACCOUNTS: Mapping[str, tuple[str, str]] = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": ("system:node:node1", "system:nodes"),
    "policies": ("network-policies", "system:masters"),
    "proxy": ("system:kube-proxy", ""),
}
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")


def write(folder: Path, address: str, service: str) -> dict[str, str]:
    """Write all that a cluster proves itself with.

    Parameters
    ----------
    folder : Path
        Where; nobody else reads it.
    address : str
        IP address of the node.
    service : str
        IP address of the service ``kubernetes``.

    Returns
    -------
    dict of str to str
        The token of each account.
    """
    folder.mkdir(mode=0o700)
    _key(folder / "ca.key")
    _openssl("req", "-x509", "-new", "-key", folder / "ca.key", "-days", _DAYS,
             "-subj", "/CN=labhub-test-cluster", "-out", folder / "ca.crt")  # fmt: skip
    names = [*(f"DNS:{name}" for name in _NAMES), f"IP:{address}", f"IP:{service}", "IP:127.0.0.1"]
    _certificate(folder, "api", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}\n")
    usage = "extendedKeyUsage=clientAuth\n"
    _certificate(folder, "kubelet-client", "/O=system:masters/CN=kube-apiserver", usage)
    _key(folder / "accounts.key")
    _openssl("pkey", "-in", folder / "accounts.key", "-pubout", "-out", folder / "accounts.pub")
    tokens = {account: secrets.token_hex(16) for account in ACCOUNTS}
    lines = [
        f'{tokens[account]},{user},{user},"{group}"\n'
        for account, (user, group) in ACCOUNTS.items()
    ]
    (folder / "tokens.csv").write_text("".join(lines))
    for account, token in tokens.items():
        write_kubeconfig(folder / f"{account}.kubeconfig", address, folder / "ca.crt", token)
    return tokens


def write_kubeconfig(path: Path, address: str, authority: Path, token: str) -> None:
    """Write what a client needs to reach the cluster; JSON is YAML, too."""
    cluster = {"server": f"https://{address}:6443", "certificate-authority": str(authority)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))


def _key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)


def _certificate(folder: Path, name: str, subject: str, extensions: str) -> None:
    key, request = folder / f"{name}.key", folder / f"{name}.csr"
    _key(key)
    _openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    (folder / f"{name}.ext").write_text(extensions)
    _openssl("x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
             "-CAcreateserial", "-days", _DAYS, "-extfile", folder / f"{name}.ext",
             "-out", folder / f"{name}.crt")  # fmt: skip


def _openssl(*words: str | Path) -> None:
    program = which("openssl") or "openssl"
    subprocess.run([program, *map(str, words)], check=True, capture_output=True, umask=0o077)
