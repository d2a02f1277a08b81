"""An sbatch whose answer is lost, or no known refusal: nobody knows, and nothing runs twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit.jobs.backends import base
from labkit.jobs.model import Resources, Stage, State
from labkit.slurm import cluster as clusters
from labkit.testing import SlurmCluster
from labkit.testing.machine import missing_programs
from tests.support.backend_contract import Site
from tests.support.job_helpers import ran, stage, until

UNKNOWN = [
    "Batch job submission failed: Unspecified error",
    "Batch job submission failed: Transport endpoint is not connected",
    "Batch job submission failed: Socket timed out on send/recv operation",
    "Batch job submission failed: Unable to create job record, try again",
    "Batch job submission failed: Something that no release says today",
    "",
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    if missing := missing_programs():
        pytest.skip(f"needs SLURM ({missing})")
    with SlurmCluster(nodes=1, cpus=4, memory=4000, config={"MessageTimeout": 2}) as made:
        yield made


@pytest.fixture
def site(
    tmp_path: Path, lab_home: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield Site("slurm", tmp_path, patience=60)
    cluster.cancel_all()


def work(site: Site) -> Stage:
    return stage("once", f"echo ran >> {site.trace}", resources=Resources.of(1, "60 MB"))


def stand_in(folder: Path, program: str, *lines: str) -> Path:
    """Put a program in the place of one of SLURM's; ``REAL`` is that one."""
    real = shutil.which(program, path="/opt/slurm/bin:/usr/local/bin:/usr/bin")
    file = folder / "bin" / program
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]).replace("REAL", str(real)))
    file.chmod(0o755)
    return file


def says(text: str) -> str:
    return f"echo 'sbatch: error: {text}' >&2; exit 1"


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_job_that_was_taken_all_the_same_is_found_at_once(site: Site, text: str) -> None:
    stand_in(site.folder, "sbatch", 'REAL "$@" >/dev/null', says(text))
    job = site.submit(work(site))
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    assert len(job.run.submissions()) == 1


def test_an_answer_without_a_number_is_no_answer(site: Site) -> None:
    stand_in(site.folder, "sbatch", 'REAL "$@" >/dev/null', "echo Welcome")
    assert site.submit(work(site)).wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_job_that_was_not_taken_keeps_its_intent(
    site: Site, cluster: SlurmCluster, text: str
) -> None:
    program = stand_in(site.folder, "sbatch", says(text))
    with pytest.raises(base.BackendError, match="Nobody knows whether SLURM has taken") as raised:
        site.submit(work(site))
    assert type(raised.value) is base.BackendError, "it was not refused"
    with pytest.warns(UserWarning, match="Nobody knows"):
        (job,) = labkit.jobs()
    (submission,) = job.run.submissions()
    assert submission.handle is None and not submission.cancelled
    assert cluster.queue() == []
    program.unlink()
    again = site.submit(work(site))
    assert again.wait(60).state is State.SUCCEEDED
    assert [s.number for s in again.run.submissions()] == [1], "the same intent"
    assert ran(site.trace) == ["ran"]


def test_where_squeue_does_not_answer_either_the_next_submit_looks_first(site: Site) -> None:
    programs = [
        stand_in(site.folder, "sbatch", 'REAL "$@" >/dev/null', says("Unspecified error")),
        stand_in(site.folder, "squeue", says("Unable to contact slurm controller")),
    ]
    with pytest.raises(base.BackendError, match="Nobody knows"):
        site.submit(work(site))
    programs[1].unlink()
    programs[0].write_text("#!/bin/sh\nexit 99\n")  # it is not called again
    assert site.submit(work(site)).wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


@pytest.mark.parametrize(
    "text",
    [
        "Batch job submission failed: Invalid account or account/partition combination specified",
        "Batch job submission failed: Access/permission denied",
        "Invalid --time specification",
    ],
)
def test_a_known_refusal_withdraws_the_intent(site: Site, text: str) -> None:
    program = stand_in(site.folder, "sbatch", says(text))
    with pytest.raises(base.SubmitRefusedError, match="SLURM refuses"):
        site.submit(work(site))
    (job,) = labkit.jobs()
    assert job.state is State.CANCELLED
    program.unlink()
    assert site.submit(work(site)).wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_a_real_controller_that_takes_the_job_after_sbatch_has_given_up(
    site: Site, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_FRESH", 60.0)
    clusters.current()
    controller = cluster._controller
    assert controller is not None
    os.kill(controller.pid, signal.SIGSTOP)
    try:
        with pytest.raises(base.BackendError, match="timed out") as raised:
            site.submit(work(site))
    finally:
        os.kill(controller.pid, signal.SIGCONT)
    assert type(raised.value) is base.BackendError
    until(lambda: ran(site.trace), 30)  # its request had waited in the controller's socket
    job = site.submit(work(site))
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
