"""What squeue prints."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from labkit.slurm import commands
from labkit.slurm.commands import UnreadableError
from labkit.slurm.queue import Columns, Job, elements
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster  # noqa: F401

ALL = Columns(
    (
        "id", "array", "elements", "state", "reason", "partition", "user", "priority", "submitted",
        "start", "end", "host", "name",
    )
)  # fmt: skip
NAMED = Columns(("id", "state", "name"))


def test_elements_of_all_of_squeues_forms() -> None:
    assert elements("0-2,7,10-20:5%4") == [0, 1, 2, 7, 10, 15, 20]
    assert elements("5") == [5]
    assert elements("N/A") == []


def test_a_free_text_is_the_last_column_and_forges_no_row() -> None:
    with pytest.raises(ValueError, match="last"):
        Columns(("name", "id"))
    (job,) = NAMED.parse("7|RUNNING|a|b\nslurm_load_jobs error: x\n")
    assert job == Job(id="7", state="RUNNING", name="a|b")
    with pytest.raises(UnreadableError):
        NAMED.parse("slurm_load_jobs error: x\n7|RUNNING|a")


def test_a_real_queue_is_read(slurm: SlurmCluster) -> None:  # noqa: F811
    said = slurm.command(
        "sbatch", "--parsable", "--array=0-1,5%1", "--job-name=a|b", "--time=10",
        "--output=/dev/null", "--wrap", "sleep 60",
    )  # fmt: skip
    end = time.monotonic() + 120
    jobs: list[Job] = []
    while not any(job.state == "RUNNING" for job in jobs) and time.monotonic() < end:
        jobs = ALL.parse(commands.run("squeue", "--noheader", f"--format={ALL.format}"))
        time.sleep(0.1)
    running = next(job for job in jobs if job.state == "RUNNING")
    waiting = next(job for job in jobs if job.state == "PENDING")
    assert (running.id, running.array, elements(running.elements)) == (f"{said}_0", said, [0])
    assert elements(waiting.elements) == [1, 5]
    assert (running.name, waiting.host, waiting.reason) == ("a|b", "", "JobArrayTaskLimit")
    assert running.host in slurm.nodes
    assert running.start is not None and running.end is not None
    assert running.end - running.start == 600
    assert abs(running.start - time.time()) < 60, "the clock's seconds, in any time zone"


def test_the_client_is_light() -> None:
    code = (
        "import sys; import labkit.slurm.cluster, labkit.slurm.queue, labkit.slurm.reasons,"
        " labkit.slurm.exit_reasons; print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    mine = [name for name in loaded if name.startswith("labkit.")]
    assert [name for name in mine if not name.startswith(("labkit.slurm", "labkit.base"))] == []
    assert {"asyncio", "pandas", "numpy", "tornado", "sqlite3"}.isdisjoint(loaded)
