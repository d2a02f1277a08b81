"""SLURM's commands: argument lists, a clean environment, and what their errors mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.jobs.backends.local_queue import clean_environment

_TIMEOUT = 60.0  # seconds; a busy controller answers late
# Where clusters install SLURM when it is not in a notebook server's PATH.
_PLACES = ("/opt/slurm/bin", "/usr/local/slurm/bin", "/usr/local/bin", "/usr/bin")
#: What is said when nobody knows whether the controller has done what it was asked for.
_LOST = re.compile(
    r"timed out|unable to contact|zero bytes|communication|connection|connect failure|"
    r"message (?:receive|send)|standby|unexpected message|temporarily unable|"
    r"authentication|munge|unable to process configuration|configuration file|interrupted|"
    r"i/o error|insane message|resource temporarily",
    re.IGNORECASE,
)
_NOISE = re.compile(r"^(?:sbatch|squeue|scancel|scontrol|slurm\w*|allocation failure)?"
                    r"(?:: error|: fatal)?: ?", re.IGNORECASE)  # fmt: skip


class SlurmMissingError(BackendError):
    """SLURM's commands are not installed here."""


def program(name: str) -> str:
    """Return the full path of one of SLURM's commands.

    Raises
    ------
    SlurmMissingError
        It is not installed here.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES])
    found = shutil.which(name, path=path)
    if found is None:
        raise SlurmMissingError(
            f"SLURM is not installed on this machine: there is no {name} in your PATH. Submit from "
            "a machine of the cluster (its login node, or your server there), or choose "
            "submit('local')."
        )
    return found


def environment() -> dict[str, str]:
    """Return the environment of SLURM's commands, and of the jobs that they submit.

    An allow-list: no token reaches a job. Nothing of a job around us does either: its
    ``SLURM_*`` and ``SBATCH_*`` variables would be taken for options.
    """
    kept = clean_environment()
    if conf := os.environ.get("SLURM_CONF"):
        kept["SLURM_CONF"] = conf
    return kept


def run(
    name: str,
    *words: str,
    text: str | None = None,
    more: dict[str, str] | None = None,
    timeout: float = _TIMEOUT,
) -> str:
    """Run one of SLURM's commands and return what it wrote.

    Parameters
    ----------
    name : str
        ``sbatch``, ``squeue``, ``scancel`` or ``scontrol``.
    words : str
        Its arguments.
    text : str, optional
        Its input.
    more : dict, optional
        Environment variables of this call.

    Raises
    ------
    SubmitRefusedError
        It was answered with a refusal.
    BackendError
        It was not answered: nobody knows whether it was done.
    """
    command = [program(name), *words]
    try:
        done = subprocess.run(
            command,
            input=text or "",
            capture_output=True,
            text=True,
            errors="replace",
            env={**environment(), **(more or {})},
            timeout=timeout,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"SLURM's {name} has not answered for {timeout:g} s.") from error
    except OSError as error:
        raise BackendError(f"{command[0]} cannot be started: {error.strerror}.") from error
    if done.returncode == 0:
        return done.stdout
    said = clean(done.stderr or done.stdout) or f"it ended with code {done.returncode}"
    if done.returncode < 0 or _LOST.search(said):
        raise BackendError(f"SLURM cannot be asked: {said}")
    raise SubmitRefusedError(f"SLURM refuses: {said}")


def clean(text: str) -> str:
    """Return an error message without the program's name, in one line."""
    lines = [_NOISE.sub("", line).strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def folder() -> str:
    """Return the folder of SLURM's commands."""
    return str(Path(program("scontrol")).parent)
