"""Inputs that lie in S3: fetched before the program starts, and told in the record.

The worker itself knows the standard library alone; what fetches is labkit.storage, which lies
beside it in the run folder, run by the first Python that has boto3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labkit.base.remote import is_remote, local_name
from labkit.jobs.worker.attempt import Attempt, AttemptFailed

_PROBE_TIMEOUT = 120.0  # seconds; a disk of the network may be slow


def fetch(
    attempt: Attempt, fetcher: Path, stage: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    """Fetch the inputs in S3 to where the task's words name them.

    Parameters
    ----------
    attempt : Attempt
        Whose; its record gets their SHA-256 as the fact ``inputs``.
    fetcher : Path
        The program in the run folder.
    stage, manifest : mapping
        As the run folder has them: which inputs other tasks need too (they are fetched once per
        node), and by which profile, region and endpoint; a job of AWS Batch has its own.

    Raises
    ------
    AttemptFailed
        INPUT, with the reason.
    """
    addresses = [
        text for text in map(attempt.expand, attempt.task.get("inputs", ())) if is_remote(text)
    ]
    if not addresses:
        return
    several = frozenset(stage.get("shared_inputs", ()))
    asked, answer = attempt.tmp / "inputs.json", attempt.tmp / "inputs.done.json"
    wanted: dict[str, Any] = {
        "cache": str(attempt.tmp.parent / f"labkit-inputs-{os.geteuid()}"),
        "files": [
            {
                "address": address,
                "target": str(attempt.tmp / local_name(address)),
                "shared": address in several,
            }
            for address in dict.fromkeys(addresses)
        ],
    }
    asked.write_text(json.dumps(wanted), encoding="utf-8")
    argv = [_python(attempt), str(fetcher), str(asked), str(answer)]
    own = {} if os.environ.get("AWS_BATCH_JOB_ID") else dict(manifest.get("aws", {}))
    code = attempt.call(argv, env=own, cwd=attempt.tmp)
    try:
        told = json.loads(answer.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise AttemptFailed("INPUT", f"fetching inputs from S3 ended with code {code}") from None
    if "error" in told:
        raise AttemptFailed("INPUT", told["error"])
    attempt.fact("inputs", told["digests"])


def _python(attempt: Attempt) -> str:
    tried = []
    for python in dict.fromkeys(_pythons(attempt)):
        if not os.access(python, os.X_OK):
            continue
        try:
            probe = subprocess.run(
                [python, "-c", "import boto3"],
                env=attempt.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_PROBE_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if probe.returncode == 0:
            return python
        tried.append(python)
    raise AttemptFailed(
        "INPUT",
        f"no Python on {os.uname().nodename} has boto3, which fetches inputs from S3: tried "
        + (", ".join(tried) or "none"),
    )


def _pythons(attempt: Attempt) -> Iterator[str]:
    if sys.executable:
        yield sys.executable
    for folder in attempt.env.get("PATH", os.defpath).split(os.pathsep):
        yield str(Path(folder) / "python3")
    for name in ("notebook", "worker"):
        yield str(Path(attempt.values["envs"]) / name / "bin" / "python3")
