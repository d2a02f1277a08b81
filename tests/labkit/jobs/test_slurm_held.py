"""What SLURM holds and nobody wants held goes on: what it could not start, what it forgot."""

from __future__ import annotations

import time

import pytest

from labkit.jobs.backends.slurm import held
from labkit.slurm import commands
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.queue import Job

OURS = "labkit-x-1cc23504c4ff-21cec5-2.next.0.8.1"
REASON = "launch failed requeued held"


def job(elements: str = "3", reason: str = REASON, name: str = OURS, state: str = "PENDING") -> Job:
    return Job(array="26", elements=elements, reason=reason, name=name, state=state)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(commands, "run", lambda *words: called.append(words))
    monkeypatch.setattr(held, "_tried", {})
    return called


def test_only_labkits_jobs_that_could_not_be_started(released: list[tuple[str, ...]]) -> None:
    held.release(
        [
            job(),
            job("4-6,8"),
            job("1", name="somebody's own"),
            job("2", reason="JobHeldUser"),
            job("5", reason="JobHeldAdmin"),
            job("7", state="RUNNING"),
        ],
        (),
    )
    assert released == [
        ("scontrol", "release", "26_3"),
        ("scontrol", "release", "26_[4-6,8]"),
    ]


def test_not_too_often_and_not_for_ever(
    released: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(100):
        held.release([job()], ())
        now[0] += 10.0
    assert len(released) == 5


def test_a_refusal_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise SlurmRefusedError("Access/permission denied")

    monkeypatch.setattr(commands, "run", refuse)
    monkeypatch.setattr(held, "_tried", {})
    held.release([job()], ())
    assert held._tried[OURS, "26_3"][0] == 1


@pytest.fixture
def comment(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The comment of SLURM's job 26; each change of it, and each release, is added."""
    said = ["held_by_labkit"]

    def run(*words: str) -> str:
        if words[:2] == ("scontrol", "show"):
            return f"JobId=26 ArrayJobId=26\n   Comment={said[-1]} \n   Power="
        said.append(words[-1].removeprefix("Comment="))
        return ""

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(held, "_tried", {})
    return said


def test_what_labkit_held_is_released_again_where_the_controller_has_forgotten_it(
    comment: list[str],
) -> None:
    waiting = job("0-3", reason="JobHeldUser")
    held.release([waiting], ())
    assert comment == ["held_by_labkit"], "its other stages are still being submitted"
    held.release([waiting], {"26"})
    assert comment == ["held_by_labkit", "26", "released"]
    held._tried.clear()
    held.release([waiting], {"26"})
    assert comment == ["held_by_labkit", "26", "released"], "now a person holds it"


def test_a_mark_that_cannot_be_taken_off_does_not_undo_the_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[tuple[str, ...]] = []

    def run(*words: str) -> str:
        called.append(words)
        if words[1] == "update":
            raise SlurmUnavailableError("Unable to contact slurm controller")
        return ""

    monkeypatch.setattr(commands, "run", run)
    held.let_go(["26", "27"])
    assert called[0] == ("scontrol", "release", "26,27")


def test_a_cancel_that_the_controller_has_forgotten_is_asked_for_again(
    released: list[tuple[str, ...]],
) -> None:
    """It was killed right after, or was away: the job would wait on hold for ever."""
    jobs = [
        job("0-3", reason="JobHeldUser"),
        job("4", state="COMPLETING"),
        job("5", state="CANCELLED"),
        job("6", name=OURS.replace("-2.next", "-1.next")),
        job("7", name="somebody's own"),
    ]
    cancelled = {"labkit-x-1cc23504c4ff-21cec5-2"}
    held.cancel_again(jobs, set())
    assert released == []
    held.cancel_again(jobs, cancelled)
    held.cancel_again(jobs, cancelled)
    assert released == [("scancel", "--quiet", "26")], "once, for a minute"
