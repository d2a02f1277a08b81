"""Run one attempt of one task: ``python3 <run>/worker <stage> <index> [--name value ...]``.

Exit code 0: look for the task's success, in this attempt's record or another's. 1: a record says
why not. 74: no record could be written; whoever started this must.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from labkit.jobs.worker import intent, signals
from labkit.jobs.worker.commit import claim, success
from labkit.jobs.worker.execute import Execution
from labkit.jobs.worker.folder import Folder, read_json

RECORDED_SUCCESS = 0
RECORDED_FAILURE = 1
NOT_RECORDED = 74  # EX_IOERR

_OPTIONS = ("--attempt", "--submission", "--memory", "--time", "--on-term", "--grace")


def main(argv: list[str] | None = None) -> int:
    """Run the attempt that the arguments name.

    Parameters
    ----------
    argv : list of str
        ``STAGE INDEX``, then ``--submission N`` (which submission asked), ``--attempt N`` (else
        the next free number is claimed), ``--memory BYTES`` (else as the submission asks),
        ``--time SECONDS`` (where the submission sets no limit), ``--on-term REASON`` (what a
        SIGTERM from outside means: LOST, …, or SLURM: its output says), ``--grace SECONDS``
        (between SIGTERM and SIGKILL of the task's processes).
    """
    words = sys.argv[1:] if argv is None else argv
    if len(words) < 2 or len(words) % 2 or any(name not in _OPTIONS for name in words[2::2]):
        print(__doc__, file=sys.stderr)
        return 64
    stage, index = words[0], int(words[1])
    given = {words[i]: words[i + 1] for i in range(2, len(words), 2)}
    folder = Folder(Path(sys.argv[0]).resolve().parent)
    try:
        return _run(folder, stage, index, given)
    except OSError as error:
        print(f"labkit: {stage} {index} could not be recorded: {error}", file=sys.stderr)
        return NOT_RECORDED


def _run(folder: Folder, stage: str, index: int, given: dict[str, str]) -> int:
    manifest = read_json(folder.manifest)
    submission = int(given.get("--submission", "1"))
    asked = read_json(folder.submission(submission))
    if manifest is None or asked is None:
        raise FileNotFoundError(f"{folder.path} is no run folder (any more)")
    work = next(work for work in asked["stages"] if work["name"] == stage)
    since = intent.success_since(work, submission, index)
    # A scheduler may start a task twice, e.g. after its node came back.
    if success(folder, stage, index, since) is not None:
        return RECORDED_SUCCESS
    number = int(given["--attempt"]) if "--attempt" in given else claim(folder, stage, index)
    execution = Execution(
        folder=folder,
        manifest=manifest,
        work=work,
        submission=submission,
        since=since,
        task=folder.task(stage, index),
        number=number,
        memory=int(given["--memory"]) if "--memory" in given else None,
        seconds=float(given["--time"]) if "--time" in given else None,
        grace=float(given.get("--grace", "10")),
    )
    term = given.get("--on-term", "LOST")
    signal.signal(signal.SIGTERM, lambda *_: execution.terminated(*signals.of(term)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return RECORDED_SUCCESS if execution.run() else RECORDED_FAILURE
