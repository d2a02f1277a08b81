"""The one program that sudo lets the hub's account start as a member of the portal's group.

``python3 -I -S as_user.py`` reads an order from its input: which of SLURM's programs, with
which arguments and variables. It has no arguments, so that the rule needs no pattern; it runs
as the user, so that it can do what the user could. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

PROGRAMS = ("sbatch", "scancel", "tail")
_MOST = 1 << 20  # bytes of an order
# What a server is told. Any other could have a program load code, as LD_PRELOAD does, or give
# options to sbatch, as SBATCH_EXPORT does.
_VARIABLE = re.compile(
    r"(?:JUPYTERHUB|JUPYTER|JPY|LABHUB|LAB)_[A-Z0-9_]+"
    r"|(?:MEM|CPU)_(?:LIMIT|GUARANTEE)"
    r"|(?:OMP|OPENBLAS|MKL|NUMBA)_NUM_THREADS"
    r"|PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_ALL|TZ"
    r"|SLURM_CONF|SLURM_TIME_FORMAT"
)
_SYSTEM = 1000  # accounts below this number are the system's


def problem(variables: dict[str, str], caller: int) -> str:
    """Return what is wrong with the variables of an order; empty: nothing.

    Parameters
    ----------
    variables : dict of str to str
        All that the program would get.
    caller : int
        The number of the account that gives the order.
    """
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            return (
                f"the variable {name!r} is not handed to SLURM's programs: "
                "the name of one of the lab's own begins with LAB_"
            )
    # slurm.conf names programs' plug-ins: one of the caller's own would be the caller's code.
    conf = variables.get("SLURM_CONF")
    if conf is None:
        return ""
    if not os.path.isabs(conf):  # noqa: PTH117 - before pathlib is needed
        return f"SLURM_CONF is no absolute path: {conf!r}"
    path = os.path.realpath(conf)
    variables["SLURM_CONF"] = path
    while True:
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            return f"{path} of SLURM_CONF cannot be read: {error.strerror}"
        own_only = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid >= _SYSTEM or (status.st_uid and status.st_uid == caller):
            return f"{path} of SLURM_CONF belongs neither to root nor to SLURM"
        if status.st_mode & 0o022 and not own_only:
            return f"others may write to {path} of SLURM_CONF"
        if path == "/":
            return ""
        path = os.path.dirname(path)  # noqa: PTH120


def main() -> int:
    """Do what the order says and return its exit status."""
    if os.geteuid() == 0:
        print("as_user: not as root", file=sys.stderr)
        return 77
    order = json.loads(sys.stdin.buffer.read(_MOST))
    command = [str(word) for word in order["command"]]
    program = command[0]
    owner = os.stat(program)  # noqa: PTH116 - before pathlib is needed
    if (
        not os.path.isabs(program)  # noqa: PTH117
        or os.path.basename(program) not in PROGRAMS  # noqa: PTH119
        or owner.st_uid != 0
        or owner.st_mode & 0o022
    ):
        print("as_user: only SLURM's own programs", file=sys.stderr)
        return 77
    variables = {str(name): str(value) for name, value in order["env"].items()}
    if wrong := problem(variables, int(os.environ["SUDO_UID"])):
        print(f"as_user: {wrong}", file=sys.stderr)
        return 77
    done = subprocess.run(
        command,
        input=str(order["stdin"]).encode(),
        env=variables,
        check=False,
        cwd="/",
        umask=0o077,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
