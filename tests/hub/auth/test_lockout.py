"""Counting failed attempts, and where an attempt comes from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hub.auth.guard import address
from hub.auth.lockout import Lockout


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_door_closes_after_so_many_failures_and_opens_again() -> None:
    clock = Clock()
    door = Lockout(3, 60, clock)
    for _ in range(3):
        assert door.closed_for("ada") == 0
        door.begin("ada")
    assert door.closed_for("ada") == 60
    assert door.closed_for("bob") == 0
    clock.now += 59
    assert door.closed_for("ada") == 1
    clock.now += 1
    assert door.closed_for("ada") == 0
    door.begin("ada")
    assert door.closed_for("ada") == 0


def test_attempts_at_the_same_moment_are_all_counted() -> None:
    door = Lockout(3, 60, Clock())
    entered = 0
    for _ in range(100):  # none has come back yet
        if not door.closed_for("ada"):
            door.begin("ada")
            entered += 1
    assert entered == 3


def test_success_forgets_and_old_failures_fade() -> None:
    clock = Clock()
    door = Lockout(2, 60, clock)
    door.begin("ada")
    door.forget("ada")
    door.begin("ada")
    assert door.closed_for("ada") == 0
    clock.now += 61
    door.begin("ada")
    assert door.closed_for("ada") == 0


def test_one_attempt_can_be_given_back() -> None:
    door = Lockout(2, 60, Clock())
    door.begin("here")
    door.begin("here")
    door.give_back("here")
    assert door.closed_for("here") == 0
    door.give_back("nowhere")


def test_memory_is_bounded() -> None:
    door = Lockout(1, 60, Clock(), size=100)
    for n in range(1000):
        door.begin(n)
    assert len(door._tries) == 100
    assert door.closed_for(999) == 60


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the first is what the client wrote
        ("203.0.113.7, 127.0.0.1", "203.0.113.7"),  # a further proxy on this machine
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("127.0.0.1", "127.0.0.1"),
        ("nonsense", "this machine"),
        ("203.0.113.7, nonsense", "this machine"),
        ("", "this machine"),
    ],
)
def test_the_address_is_what_the_proxy_saw(forwarded: str, expected: str) -> None:
    headers = {"X-Forwarded-For": forwarded, "X-Real-IP": "192.0.2.99"}
    assert address(SimpleNamespace(request=SimpleNamespace(headers=headers))) == expected
