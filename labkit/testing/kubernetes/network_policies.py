"""Stand-in for a network plug-in that enforces NetworkPolicy, for tests on one node.

It asks the API twice a second and writes nftables rules in the node's network namespace. Known are
podSelector, namespaceSelector, ipBlock with except, numbered and named ports; endPort is not.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_EVERY = 0.5  # seconds
_KINDS = {
    "namespaces": "/api/v1/namespaces",
    "pods": "/api/v1/pods",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}
_TABLE = "labhub_policies"
Object = Mapping[str, Any]


def rules(namespaces: Sequence[Object], pods: Sequence[Object], policies: Sequence[Object]) -> str:
    """Return nftables' rules for what the API says.

    Parameters
    ----------
    namespaces, pods, policies : sequence of mapping
        All that the API has of them.
    """
    labels = {one["metadata"]["name"]: one["metadata"].get("labels", {}) for one in namespaces}
    alive = [pod for pod in pods if _is_alive(pod)]
    chains, jumps = [], []
    for pod in alive:
        address, namespace = pod["status"]["podIP"], pod["metadata"]["namespace"]
        for way, own in (("Ingress", "daddr"), ("Egress", "saddr")):
            specs = [
                policy["spec"]
                for policy in policies
                if policy["metadata"]["namespace"] == namespace
                and way in policy["spec"].get("policyTypes", ["Ingress"])
                and fits(policy["spec"].get("podSelector", {}), _labels(pod))
            ]
            if not specs:
                continue
            name = f"{way.lower()}_{address.replace('.', '_')}"
            jumps.append(f"  ip {own} {address} jump {name}")
            allowed = [
                f"  {line} return"
                for spec in specs
                for rule in spec.get(way.lower()) or []
                for line in _allowed(rule, way, namespace, labels, alive)
            ]
            chains.append("\n".join([f" chain {name} {{", *allowed, "  drop", " }"]))
    head = [
        " chain forward {", "  type filter hook forward priority -5;",
        "  ct state established,related accept", *jumps, " }",
    ]  # fmt: skip
    lines = [f"table inet {_TABLE}", f"delete table inet {_TABLE}", f"table inet {_TABLE} {{"]
    return "\n".join([*lines, *chains, *head, "}", ""])


def _allowed(
    rule: Object, way: str, namespace: str, labels: Mapping[str, Object], pods: Sequence[Object]
) -> Iterator[str]:
    """Return what one rule lets pass, as nftables' conditions."""
    peer_name, address = ("from", "saddr") if way == "Ingress" else ("to", "daddr")
    peers = []
    for peer in rule.get(peer_name) or [{}]:
        if "ipBlock" in peer:
            but = "".join(f" ip {address} != {net}" for net in peer["ipBlock"].get("except", ()))
            peers.append(f"ip {address} {peer['ipBlock']['cidr']}{but} ")
        elif not peer:
            peers.append("")
        else:
            there = [namespace]
            if "namespaceSelector" in peer:
                there = [name for name, own in labels.items()
                         if fits(peer["namespaceSelector"], own)]  # fmt: skip
            addresses = [
                pod["status"]["podIP"]
                for pod in pods
                if pod["metadata"]["namespace"] in there
                and fits(peer.get("podSelector", {}), _labels(pod))
            ]
            if addresses:
                peers.append(f"ip {address} {{ {', '.join(addresses)} }} ")
    for peer in peers:
        for port in rule.get("ports") or [None]:
            yield f"{peer}{_port(port, pods)}".strip()


def _port(port: Object | None, pods: Sequence[Object]) -> str:
    if port is None:
        return ""
    protocol, number = port.get("protocol", "TCP").lower(), port.get("port")
    if number is None:
        return f"meta l4proto {protocol}"
    numbers = {number} if isinstance(number, int) else {
        one["containerPort"]
        for pod in pods
        for container in pod["spec"]["containers"]
        for one in container.get("ports", ())
        if one.get("name") == number
    }  # fmt: skip
    return f"{protocol} dport {{ {', '.join(map(str, sorted(numbers or {0})))} }}"


def fits(selector: Object, labels: Object) -> bool:
    """Return whether a label selector chooses an object with these labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for one in selector.get("matchExpressions") or ():
        value = labels.get(one["key"])
        if not {
            "In": value in one.get("values", ()),
            "NotIn": value not in one.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[one["operator"]]:
            return False
    return True


def _labels(pod: Object) -> Object:
    labels: Object = pod["metadata"].get("labels", {})
    return labels


def _is_alive(pod: Object) -> bool:
    return (
        bool(pod["status"].get("podIP"))
        and not pod["spec"].get("hostNetwork")
        and pod["status"]["phase"] in ("Pending", "Running")
    )


def main(kubeconfig: Path) -> None:
    """Enforce what the API says, for ever."""
    told = json.loads(kubeconfig.read_text())
    cluster, token = told["clusters"][0]["cluster"], told["users"][0]["user"]["token"]
    trusted = ssl.create_default_context(cafile=cluster["certificate-authority"])
    last = ""
    while True:
        try:
            objects = {}
            for name, path in _KINDS.items():
                request = urllib.request.Request(  # noqa: S310 -- always https
                    cluster["server"] + path, headers={"Authorization": f"Bearer {token}"}
                )
                with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:  # noqa: S310
                    objects[name] = json.load(answer)["items"]
        except OSError as error:  # the API server is not there yet
            print(error, flush=True)
            time.sleep(_EVERY)
            continue
        now = rules(**objects)
        if now != last:
            done = subprocess.run(["nft", "-f", "-"], input=now, text=True, check=False)
            print(now if done.returncode else "rules are written", flush=True)
            last = now
        time.sleep(_EVERY)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
