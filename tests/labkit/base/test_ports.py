"""Ports that are chosen now and bound by another program a moment later."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from labkit.base import ports


def test_no_outgoing_connection_takes_a_chosen_port() -> None:
    chosen = ports.free_ports(300)
    assert len(set(chosen)) == 300
    assert not set(chosen) & set(ports.outgoing())
    assert not set(chosen) & ports.BLOCKED
    assert min(chosen) >= 10_000


def test_outgoing_ports_are_the_kernels_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "range"
    monkeypatch.setattr(ports, "_OUTGOING", file)
    assert ports.outgoing() == range(32_768, 61_000)  # a machine that does not say
    file.write_text("20000\t25000\n")
    assert ports.outgoing() == range(20_000, 25_001)
    assert not set(ports.free_ports(300)) & set(range(20_000, 25_001))
    file.write_text("1024\t65535\n")  # the kernel has all: any free one has to do
    assert len(ports.free_ports(3)) == 3


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound, socket.socket() as listening:
        taken = []
        for one in (bound, listening):
            port = ports.free_port()
            one.bind(("127.0.0.1", port))
            taken.append(port)
        listening.listen()
        beside = ports.free_port()
        monkeypatch.setattr(random, "sample", lambda _, __: [*taken, 10080, beside])
        assert ports.free_port() == beside


def test_too_few_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(candidates: Sequence[int], _: int) -> list[int]:
        return list(candidates[:2])

    monkeypatch.setattr(random, "sample", few)
    with pytest.raises(ports.NoPortError, match="no 3 free ports"):
        ports.free_ports(3)


def test_nobody_chooses_ports_in_another_way() -> None:
    """A port that the kernel draws (port 0) is given to others as soon as it is let go."""
    repository = Path(__file__).resolve().parents[3]
    draws = re.compile(r"""\.bind\(\(\s*[^,()]+,\s*0\s*\)\)""")
    sources = [
        path
        for folder in ("hub", "labkit", "services", "tests", "bench")
        for path in (repository / folder).rglob("*.py")
    ]
    named = {
        str(path.relative_to(repository)) for path in sources if draws.search(path.read_text())
    }
    # It keeps the socket: an attack from a sandbox, where the number does not matter.
    assert named == {"tests/security/test_system_calls.py", "tests/security/test_neighbours.py"}
