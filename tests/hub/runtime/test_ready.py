"""When `up` goes on waiting, and when it gives up."""

from __future__ import annotations

from typing import Any

import pytest

from hub.labfile.read import read
from hub.runtime import ready
from hub.state.paths import REPOSITORY
from hub.supervisor.client import Program, Supervisor

SETTINGS = read(REPOSITORY / "config" / "lab.yaml")


def seen(state: str, stopped: float) -> Program:
    return Program("", state, 1, 0.0, stopped)


def wait(monkeypatch: pytest.MonkeyPatch, **looks: list[Program]) -> int:
    """Wait with a supervisor that tells of each program one thing after the other.

    Returns
    -------
    int
        How often it was asked until the hub answered, which it does at the last.
    """
    rounds = max(map(len, looks.values()))
    asked: list[dict[str, Any]] = []

    class Told(Supervisor):
        def __init__(self) -> None:
            pass

        def info(self) -> dict[str, Program]:
            number = len(asked)
            asked.append({name: one[min(number, len(one) - 1)] for name, one in looks.items()})
            return asked[-1]

    monkeypatch.setattr(ready, "programs", lambda _: list(looks))
    monkeypatch.setattr(ready, "answers", lambda _: len(asked) >= rounds)
    monkeypatch.setattr("hub.runtime.ready.time.sleep", lambda _: None)
    ready.wait(SETTINGS, Told(), lambda _: None)
    return len(asked)


@pytest.mark.parametrize("state", ["BACKOFF", "EXITED", "FATAL", "STARTING", "RUNNING"])
def test_a_hub_that_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Where it took longer than two seconds to fail, it was waited for two minutes."""
    looks = [seen("STARTING", 5.0), seen("RUNNING", 5.0), seen(state, 9.0), seen("RUNNING", 9.0)]
    with pytest.raises(ready.NotReadyError, match="hub ends") as error:
        wait(monkeypatch, hub=looks)
    assert error.value.program == "hub"


def test_a_hub_that_ended_before_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [seen("STARTING", 5.0), seen("STARTING", 5.0), seen("RUNNING", 5.0)]
    assert wait(monkeypatch, hub=looks) == 3


def test_the_culler_may_be_before_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = [seen("STARTING", 0.0)] * 3 + [seen("RUNNING", 0.0)]
    twice = [seen("RUNNING", 0.0), seen("BACKOFF", 1.0), seen("BACKOFF", 2.0), seen("RUNNING", 2.0)]
    assert wait(monkeypatch, hub=hub, culler=twice) == 4
    thrice = [seen("BACKOFF", 1.0), seen("BACKOFF", 2.0), seen("BACKOFF", 3.0)]
    with pytest.raises(ready.NotReadyError, match="culler ends"):
        wait(monkeypatch, hub=hub, culler=thrice)
