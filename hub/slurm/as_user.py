"""The one program that sudo lets the hub's account start as a member of the portal's group.

``python3 -I -S as_user.py`` reads an order from its input: which of SLURM's programs, with
which arguments and variables. It has no arguments, so that the rule needs no pattern; it runs
as the user, so that it can do what the user could. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAMS = ("sbatch", "scancel", "tail")
_MOST = 1 << 20  # bytes of an order


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
    done = subprocess.run(
        command,
        input=str(order["stdin"]).encode(),
        env={str(name): str(value) for name, value in order["env"].items()},
        check=False,
        cwd="/",
        umask=0o077,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
