"""SLURM's commands: argument lists, a clean environment, and what their errors mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.base.problems import LabkitError

TIMEOUT = 60.0  # seconds; a busy controller answers late
#: Where clusters install SLURM when it is not in PATH.
FOLDERS = ("/opt/slurm/bin", "/usr/local/slurm/bin", "/usr/local/bin", "/usr/bin", "/bin")
_SHOWN = 500  # characters of an error

# What SLURM says (src/common/slurm_errno.c, and its commands about their own arguments) when it
# has judged a request and turned it down. Everything else is unknown: the request may have been
# obeyed. "Unspecified error" is what the controller answers when it does not know either.
_REFUSED = re.compile(
    r"""
    \binvalid\s(?!argument|message|rpc|credential|job\scredential|authentication|exchange|cross|slot|or
                  |request)
    | request\sinvalid | unsupported\sby | not\ssupported\s(?:on\sthis|by|when)
    | access/permission\sdenied | access\sdenied | buffer\spermission\sdenied
    | group\snot\spermitted | not\spermitted\son | does\snot\spermit
    | no\spartition\sspecified | script\snot\sspecified | user\sid\smissing
    | specification\s(?:is\s)?(?:invalid|needs|can\snot\sbe|cannot\sbe)
    | (?:node|core|task|cpu)\scount\sspecification
    | nodes\snot\sin\sthis\spartition | more\s(?:processors|tasks|ports|threads)\s
    | parameter\stoo\slong | too\smany\s(?:jobs?|nodes|steps|tasks)\b | duplicate\s
    | immediate\sexecution\simpossible | can\snot\sstart
    | requested\s(?:node|partition)\sconfiguration | requested\snodes\sare\sbusy
    | required\s(?:node|partition|ports)\s | partition\sin\sdown\sstate
    | \bnot\s(?:currently\s)?available\b | currently\snot\savailable | insufficient\sgres
    | require\suse\sof | already\s(?:completing|finished|done|started) | no\slonger\spending
    | is\s(?:pending\sexecution|in\sheld\sstate|not\s(?:running|suspended|finished|pending))
    | current(?:ly)?\s(?:suspended|disabled) | presently\sdisabled | submissions\sdisabled
    | only\sbatch\sjobs | dependency\sproblem | circular\sjob\sdependency | licenses\srequired
    | violates | requested\stime\slimit | limit\sexceeded | exceeds
    | requested\sreservation | breached | step\slimit\sreached
    | unrecognized\soption | unknown\soption | option\srequires
    | unable\sto\sopen\sfile | does\snot\slook\slike\sa\sbatch\sscript | batch\sscript\s
    | unable\sto\ssatisfy | \bmust\sbe\s | memory\srequired\sby\stask
    | (?:job|partition|node|reservation|user|group\sid)\s(?:\S+\s)?not\sfound
    """,
    re.IGNORECASE | re.VERBOSE,
)
# These win over the words above: nobody has judged the request.
_UNANSWERED = re.compile(
    r"""
    timed\sout | unable\sto\scontact | zero\sbytes | connect(?:ion)?\s | connection | communication
    | not\sconnected | broken\spipe | message\s(?:receive|send|length) | unexpected\smessage
    | header\slength | protocol | incompatible\sversions | standby | backup\scontroller
    | try\sagain | temporarily | authentication | credential | munge | socket | resolve
    | find\san\saddress | configuration\sfile | process\sconfiguration | interrupted | i/o\serror
    | required\skey | internal\serror | unspecified\serror | generic\serror
    | cannot\sallocate\smemory
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOISE = re.compile(
    r"^(?:\S*/)?(?:sbatch|squeue|scancel|scontrol|sinfo|slurm\w*|allocation failure)?"
    r"(?:: error|: fatal| error)?: ?",
    re.IGNORECASE,
)


class SlurmUnavailableError(LabkitError):
    """SLURM gave no usable answer: nothing is known, and nothing may be concluded.

    After a submission or a cancellation it may have been obeyed all the same.
    """


class SlurmRefusedError(SlurmUnavailableError):
    """SLURM has judged the request and turned it down; the text is its reason."""


class SlurmMissingError(SlurmUnavailableError):
    """SLURM's commands are not installed here."""


class UnreadableError(SlurmUnavailableError):
    """A command printed what it does not print: that says nothing about anything."""


def find(program: str) -> str:
    """Return the full path of one of SLURM's commands.

    Raises
    ------
    SlurmMissingError
        It is not installed here.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS])
    place = shutil.which(program, path=path)
    if place is None:
        raise SlurmMissingError(
            f"SLURM is not installed on this machine: the program {program} is not in PATH. Use a "
            "machine of the cluster (its login node, or your server there), or install SLURM's "
            "client (Debian: slurm-client)."
        )
    return place


def folder() -> str:
    """Return the folder of SLURM's commands.

    Raises
    ------
    SlurmMissingError
        They are not installed here.
    """
    return str(Path(find("scontrol")).parent)


def configuration() -> dict[str, str]:
    """Return the variable that tells where slurm.conf is, if there is one."""
    conf = os.environ.get("SLURM_CONF")
    return {"SLURM_CONF": conf} if conf else {}


def environment() -> dict[str, str]:
    """Return the variables for SLURM's commands.

    Options by variable (SBATCH_*, SQUEUE_*, SLURM_JOB_ID, ...) would change what they do or print:
    only the place of slurm.conf is handed on. Times are printed in seconds since 1970.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "SLURM_TIME_FORMAT": "%s",
        **configuration(),
    }


def run(
    program: str,
    *args: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> str:
    """Run one of SLURM's commands and return what it printed.

    Parameters
    ----------
    program : str
        ``sbatch``, ``squeue``, ``scancel`` or ``scontrol``.
    *args : str
        Its arguments; no shell is between.
    stdin : str
        Its input.
    env : mapping of str to str, optional
        All of its variables; default: `environment`.
    timeout : float
        Seconds after which it is killed.

    Raises
    ------
    SlurmRefusedError
        SLURM has turned the request down.
    SlurmUnavailableError
        It did not answer: nobody knows whether it was done.
    """
    done = call([find(program), *args], env=environment() if env is None else env, stdin=stdin,
                timeout=timeout)  # fmt: skip
    return answer(program, done.returncode, done.stdout, done.stderr)


def call(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: str = "",
    timeout: float = TIMEOUT,
    **identity: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is.

    Parameters
    ----------
    command : sequence of str
        Path and arguments.
    env : mapping of str to str
        All of its variables.
    stdin : str
        Its input.
    timeout : float
        Seconds after which it is killed.
    **identity
        ``user``, ``group`` and ``extra_groups`` of `subprocess.Popen`.

    Raises
    ------
    SlurmUnavailableError
        It cannot be started, or did not end in time.
    """
    name = Path(command[0]).name
    try:
        return subprocess.run(
            list(command),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(env),
            timeout=timeout,
            cwd="/",
            check=False,
            **identity,
        )
    except subprocess.TimeoutExpired:
        raise silent(name, timeout) from None
    except OSError as error:
        raise unstartable(name, error) from error


def silent(program: str, timeout: float) -> SlurmUnavailableError:
    """Return the error of a command that was killed after ``timeout`` seconds."""
    return SlurmUnavailableError(f"SLURM's {program} did not answer within {timeout:g} s")


def unstartable(program: str, error: OSError) -> SlurmUnavailableError:
    """Return the error of a command that could not be started."""
    return SlurmUnavailableError(f"{program} cannot be started: {error.strerror}")


def answer(program: str, code: int, out: str, err: str) -> str:
    """Return what a command printed, or raise what its failure means.

    Parameters
    ----------
    program : str
        Its name.
    code : int
        Its exit status; below 0: the signal that killed it.
    out, err : str
        What it wrote.

    Raises
    ------
    SlurmRefusedError
        Its words are a known refusal.
    SlurmUnavailableError
        They are anything else.
    """
    if code == 0:
        return out
    said = clean(err) or clean(out)
    if refused(code, said):
        raise SlurmRefusedError(f"SLURM refuses: {said}")
    raise SlurmUnavailableError(
        f"SLURM cannot be asked: {program}: {said or f'ended with status {code}'}"
    )


def refused(code: int, said: str) -> bool:
    """Whether a failed command's status and words are a refusal that is known."""
    return code > 0 and bool(_REFUSED.search(said)) and not _UNANSWERED.search(said)


def clean(text: str) -> str:
    """Return an error message without the program's name, in one line."""
    lines = [_NOISE.sub("", line).strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[-_SHOWN:]
