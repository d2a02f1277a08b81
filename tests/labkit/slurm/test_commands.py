"""How SLURM's commands are run, and which of their errors are refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.slurm import commands
from labkit.slurm.commands import (
    SlurmMissingError,
    SlurmRefusedError,
    SlurmUnavailableError,
    clean,
    refused,
    run,
)
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster  # noqa: F401

# What the real commands wrote (SLURM 22.05), and texts of its table of errors.
REFUSALS = [
    "sbatch: error: invalid partition specified: nix\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified",
    "/usr/bin/sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information",
    "sbatch: error: Memory specification can not be satisfied\n"
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Invalid --time specification",
    "sbatch: error: Unable to open file /nix",
    "sbatch: error: Batch job submission failed: Invalid job array specification",
    "sbatch: error: Invalid generic resource (gres) specification",
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
    "limit, user's size and/or time limits)",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination "
    "specified",
    "sbatch: error: Batch job submission failed: User's group not permitted to use this partition",
    "sbatch: error: Batch job submission failed: Required partition not available (inactive or "
    "drain)",
    "sbatch: error: Batch job submission failed: Requested reservation is invalid",
    "sbatch: error: Batch job submission failed: System submissions disabled",
    "sbatch: error: Batch job submission failed: Access/permission denied",
    "slurm_load_jobs error: Invalid job id specified",
    "Invalid job id specified for job 999",
    "1_7: Invalid job id specified",
    "scancel: error: Kill job error on job id 4: Job/step already completing or completed",
]
UNKNOWN = [
    "sbatch: error: Batch job submission failed: Unspecified error",
    "sbatch: error: Batch job submission failed: Transport endpoint is not connected",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sbatch: error: Batch job submission failed: Unable to create job record, try again",
    "sbatch: error: Batch job submission failed: I/O error writing script/environment to file",
    "sbatch: error: Batch job submission failed: Invalid authentication credential",
    "sbatch: error: Batch job submission failed: Invalid job credential",
    "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    "sbatch: error: Batch job submission failed: Slurm backup controller in standby mode",
    "sbatch: error: Batch job submission failed: Incompatible versions of client and server code",
    "sbatch: error: Batch job submission failed: Something that no release says today",
    "sbatch: error: Invalid --mem specification in environment\n"
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "squeue: error: Munge encode failed: Failed to access x; authentication",
    "sbatch: fatal: Unable to process configuration file",
    "sbatch: command not found",
    "",
    *(f"sbatch: error: Batch job submission failed: {os.strerror(n)}" for n in range(1, 134)),
]


@pytest.mark.parametrize("said", REFUSALS)
def test_a_known_refusal_is_one(said: str) -> None:
    assert refused(1, clean(said))
    assert not refused(-9, clean(said)), "it was killed while it wrote"


@pytest.mark.parametrize("said", UNKNOWN)
def test_everything_else_is_unknown(said: str) -> None:
    assert not refused(1, clean(said))


def test_an_error_is_shown_without_the_programs_name_in_one_line() -> None:
    text = "sbatch: error: Batch job submission failed: X\n\nslurm_load_jobs error: Y\n"
    assert clean(text) == "Batch job submission failed: X; Y"
    assert clean("/usr/bin/sbatch: unrecognized option '--foo'").startswith("unrecognized")


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Stand in for squeue."""
    file = folder / "squeue"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_nothing_of_a_job_around_us_and_no_secret_reaches_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, monkeypatch, "env")
    for name in ("SLURM_JOB_ID", "SQUEUE_FORMAT", "SBATCH_PARTITION", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.setenv(name, "geheim")
    monkeypatch.setenv("SLURM_CONF", "/etc/lab/slurm.conf")
    said = dict(line.split("=", 1) for line in run("squeue").splitlines())
    assert "geheim" not in said.values()
    assert said["SLURM_CONF"] == "/etc/lab/slurm.conf"
    assert said["SLURM_TIME_FORMAT"] == "%s"


def test_what_was_not_answered_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(SlurmUnavailableError, match="did not answer within"):
        run("squeue", timeout=0.2)
    program(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(SlurmUnavailableError, match="cannot be asked"):
        run("squeue")
    program(tmp_path, monkeypatch, "echo 'Invalid job id specified' >&2; exit 1")
    with pytest.raises(SlurmRefusedError, match="SLURM refuses: Invalid job id specified"):
        run("squeue")


def test_slurm_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmMissingError, match=r"SLURM is not installed .*login node"):
        run("squeue")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("sbatch", "--partition=nix", "--wrap=true"), SlurmRefusedError),
        (("sbatch", "--nonsense", "--wrap=true"), SlurmRefusedError),
        (("sbatch", "--mem=9T", "--wrap=true"), SlurmRefusedError),
        (("sbatch", "--constraint=nix", "--wrap=true"), SlurmRefusedError),
        (("squeue", "--jobs=99999"), SlurmRefusedError),
        (("scontrol", "requeue", "99999"), SlurmRefusedError),
    ],
)
def test_the_real_commands_refuse(
    slurm: SlurmCluster,  # noqa: F811
    words: tuple[str, ...],
    kind: type[Exception],
) -> None:
    with pytest.raises(SlurmUnavailableError) as raised:
        run(*words)
    assert type(raised.value) is kind


def test_a_controller_that_is_down_refuses_nothing(slurm: SlurmCluster) -> None:  # noqa: F811
    slurm.stop_controller()
    with pytest.raises(SlurmUnavailableError) as raised:
        run("scontrol", "show", "config")
    assert type(raised.value) is SlurmUnavailableError
