"""Start a notebook's kernel in the personal environment, or without it where it is broken.

It is run by path, by the personal environment's Python with the standard library alone, and by
the lab's Python where there is no such environment. Its arguments are the kernel's own.
"""

import contextlib
import os
import sys
from pathlib import Path

LAB = "LABKIT_LAB_ENVIRONMENT"  # as in labkit.base.interpreter, which a broken layer may hide
PROBLEM = "LABKIT_PERSONAL_PROBLEM"
NOTES = "labkit.environments.kernel_notes"


def main() -> None:
    """Run the kernel."""
    del sys.path[0]  # this file's folder, whose modules are no top-level ones
    lab = Path(os.environ.get(LAB) or sys.prefix)
    layered = Path(sys.prefix) != lab
    mark = Path(sys.prefix, ".starting")
    if layered:
        if _was_cut_short(mark):
            _without(lab, mark, "its kernel ended while it started")
        with contextlib.suppress(OSError):  # a full home must not keep a kernel from starting
            mark.write_text(str(os.getpid()))
    try:
        from ipykernel.kernelapp import IPKernelApp
    except BaseException as error:
        if not layered:
            raise
        _without(lab, mark, f"{type(error).__name__}: {error}")
    if layered:
        mark.unlink(missing_ok=True)
    notes = f"--InteractiveShellApp.extra_extensions={NOTES}"
    IPKernelApp.launch_instance([*sys.argv[1:], notes])


def _without(lab: Path, mark: Path, problem: str) -> None:
    """Become a kernel of the lab's Python alone."""
    os.environ[PROBLEM] = problem
    path = os.environ.get("PATH", "").split(os.pathsep)
    own = str(mark.with_name("bin"))
    os.environ["PATH"] = os.pathsep.join(folder for folder in path if folder != own)
    with contextlib.suppress(OSError):
        mark.unlink()
    python = str(lab / "bin" / "python")
    words = [python, str(Path(__file__).absolute()), *sys.argv[1:]]
    os.execv(python, words)  # noqa: S606 - an argument list


def _was_cut_short(mark: Path) -> bool:
    """Return whether an earlier kernel crashed before it was up: no error can tell of that."""
    try:
        os.kill(int(mark.read_text()), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # there is none, or it is being written
        return False
    return False


if __name__ == "__main__":
    main()
