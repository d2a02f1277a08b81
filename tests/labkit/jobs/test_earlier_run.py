"""A run folder that an earlier version left half done goes on with this one.

``run_of_b923ab1.tar.gz`` was made by that commit: six tasks, of which one has succeeded, one has
failed, two ran when their scheduler and workers were killed, and two waited. Its worker is that of
then: it knows nothing of claims, carried records and epochs.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

import labkit
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import State
from labkit.jobs.runs.gc import garbage
from labkit.jobs.worker.folder import read_json
from tests.support.job_helpers import ran, records, until

ARCHIVE = Path(__file__).with_name("run_of_b923ab1.tar.gz")


@pytest.fixture
def earlier(lab_home: Path) -> Job:
    runs = lab_home / "runs"
    shutil.unpack_archive(ARCHIVE, runs)
    (path,) = runs.iterdir()
    path.chmod(0o700)
    for beat in (path / "running/command").iterdir():
        os.utime(beat, (time.time() - 3600,) * 2)
    (lab_home / "go").touch()  # those that ran then end at once now
    return open_job(path)


def states(job: Job) -> dict[str, list[str]]:
    """Return by key how each attempt ended."""
    found: dict[str, list[str]] = {}
    for index, attempt in records(job, "command"):
        record = read_json(job.run.folder.record("command", index, attempt)) or {}
        found.setdefault(f"t{index}", []).append(record.get("reason") or record["state"])
    return found


def test_it_goes_on_where_it_is_in_the_queue(earlier: Job, lab_home: Path) -> None:
    (submission,) = earlier.run.submissions()
    LocalQueue().add(submission.name, earlier.path, 1)
    assert [job.path for job in labkit.jobs()] == [earlier.path]
    assert earlier.wait(120).state is State.FAILED
    assert sorted(ran(lab_home / "trace")) == ["t2", "t3", "t4", "t5"]
    assert states(earlier) == {
        "t0": ["SUCCEEDED"],
        "t1": ["EXIT"],
        **{key: ["LOST", "SUCCEEDED"] for key in ("t2", "t3")},
        **{key: ["SUCCEEDED"] for key in ("t4", "t5")},
    }
    (lab_home / "mended").touch()
    assert earlier.retry().wait(120).state is State.SUCCEEDED
    assert states(earlier)["t1"] == ["EXIT", "SUCCEEDED"]
    assert ran(lab_home / "trace").count("t1") == 1
    until(lambda: not LocalQueue().names(), 60)
    assert sorted(p.read_text() for p in earlier.path.glob("results/command/*/out.txt")) == [
        f"t{index}\n" for index in range(6)
    ]
    what = garbage(earlier.run)
    assert {path.parent.name for path in what.paths} <= {"command"}
    what.remove()
    assert not list((earlier.path / "attempts/command").iterdir())
    assert open_job(earlier.path).state is State.SUCCEEDED


def test_it_is_lost_and_can_be_tried_again_where_its_machine_is_gone(
    earlier: Job, lab_home: Path
) -> None:
    snapshot = earlier.refresh()
    assert snapshot.state is State.FAILED
    assert snapshot.count(State.SUCCEEDED) == 1
    lost = {task.index for task in snapshot.open if str(task.reason) == "LOST"}
    assert lost == {2, 3, 4, 5}
    (lab_home / "mended").touch()
    assert earlier.retry().wait(120).state is State.SUCCEEDED
    assert sorted(ran(lab_home / "trace")) == ["t1", "t2", "t3", "t4", "t5"]
    assert sorted(state[-1] for state in states(earlier).values()) == ["SUCCEEDED"] * 6
