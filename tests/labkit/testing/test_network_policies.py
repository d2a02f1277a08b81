"""What the stand-in makes of network policies; tests/k8s enforces some for real."""

from __future__ import annotations

from typing import Any

from labkit.testing.kubernetes.network_policies import fits, rules


def pod(name: str, address: str, namespace: str = "lab", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8888}]}]},
        "status": {"podIP": address, "phase": "Running"},
    }


def policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "lab"}, "spec": spec}


SPACES = [
    {"metadata": {"name": "lab", "labels": {"kind": "people"}}},
    {"metadata": {"name": "hub", "labels": {"kind": "hub"}}},
]
PODS = [pod("ada", "10.0.0.1", app="server"), pod("hub", "10.0.0.2", "hub", app="hub")]


def written(**spec: Any) -> list[str]:
    return [line.strip() for line in rules(SPACES, PODS, [policy(**spec)]).splitlines()]


def test_a_pod_without_policy_is_left_alone() -> None:
    assert "drop" not in rules(SPACES, PODS, [])


def test_a_policy_without_rules_lets_nothing_in_and_all_out() -> None:
    lines = written(podSelector={}, policyTypes=["Ingress"])
    assert "ip daddr 10.0.0.1 jump ingress_10_0_0_1" in lines
    assert lines.count("drop") == 1
    assert "return" not in " ".join(lines)


def test_peers_are_found_by_namespace_and_label() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kind": "hub"}},
            "podSelector": {"matchLabels": {"app": "hub"}}}  # fmt: skip
    lines = written(podSelector={}, ingress=[{"from": [peer], "ports": [{"port": "http"}]}])
    assert "ip saddr { 10.0.0.2 } tcp dport { 8888 } return" in lines


def test_a_peer_that_is_not_there_opens_nothing() -> None:
    peer = {"podSelector": {"matchLabels": {"app": "none"}}}
    assert "return" not in " ".join(written(podSelector={}, ingress=[{"from": [peer]}]))


def test_blocks_of_addresses_have_exceptions() -> None:
    block = {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32", "10.0.0.0/8"]}
    lines = written(podSelector={}, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}])
    but = "ip daddr != 169.254.169.254/32 ip daddr != 10.0.0.0/8"
    assert f"ip daddr 0.0.0.0/0 {but} return" in lines


def test_a_port_of_an_unknown_name_opens_nothing() -> None:
    lines = written(podSelector={}, ingress=[{"ports": [{"port": "ssh"}]}])
    assert "tcp dport { 0 } return" in lines


def test_expressions_choose() -> None:
    def chosen(operator: str, *values: str) -> bool:
        one = {"key": "app", "operator": operator, "values": list(values)}
        return fits({"matchExpressions": [one]}, {"app": "hub"})

    assert [chosen("In", "hub"), chosen("NotIn", "hub"), chosen("Exists")] == [True, False, True]
    assert chosen("DoesNotExist") is False
