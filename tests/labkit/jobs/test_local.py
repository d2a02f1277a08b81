"""The local backend keeps the contract of all backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.model import State
from labkit.workflows.command import Command
from tests.support.backend_contract import BackendContract, Site
from tests.support.job_helpers import until


class TestLocal(BackendContract):
    @pytest.fixture
    def site(self, tmp_path: Path, lab_home: Path) -> Site:
        return Site("local", tmp_path)


def test_a_job_that_was_cleared_from_the_queue_meanwhile_stays_ended(
    lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the list of the queue, and gone when it was looked at: no task waits."""
    job = Command("false").submit("local").wait(60)
    assert job.state is State.FAILED
    (submission,) = job.run.submissions()
    until(lambda: not LocalQueue().names(), 60)
    monkeypatch.setattr(LocalQueue, "names", lambda _: [submission.name])
    monkeypatch.setattr(LocalQueue, "ensure_scheduler", lambda _: None)
    assert job.refresh().state is State.FAILED
    assert not LocalQueue().entry(submission.name).exists()
