"""Lets the stages of a submission begin one after the other, from inside a Kubernetes cluster.

Kubernetes lets no Job wait for another: those of later stages are suspended. This runs in a small
pod of its own, whose service account may read and patch Jobs, so that nobody else has to look::

    python3 -I -S -c '…' '[{"name": …, "after": [names], "tolerate": false}, …]'

It ends when no stage waits any more: all have begun, or never will.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EVERY = 3.0  # seconds
_GONE = 404


class Jobs:
    """The Jobs of this pod's namespace."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        namespace = (_ACCOUNT / "namespace").read_text()
        self._place = f"https://{host}:{port}/apis/batch/v1/namespaces/{namespace}/jobs"
        self._trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a Job, None where there is none (any more).

        Raises
        ------
        OSError
            The cluster does not answer, or refuses.
        """
        try:
            return self._call("GET", name, None)
        except urllib.error.HTTPError as error:
            if error.code == _GONE:
                return None
            raise

    def let_go(self, name: str) -> None:
        """Let a suspended Job begin.

        Raises
        ------
        OSError
            The cluster does not answer, or refuses.
        """
        self._call("PATCH", name, {"spec": {"suspend": False}})

    def _call(self, method: str, name: str, body: dict[str, Any] | None) -> dict[str, Any]:
        token = (_ACCOUNT / "token").read_text()  # Kubernetes changes it every hour
        request = urllib.request.Request(  # noqa: S310 -- always https
            f"{self._place}/{name}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=self._trusted) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found


def finished(job: dict[str, Any]) -> str:
    """Return ``"Complete"`` or ``"Failed"``; empty while a job goes on."""
    for condition in job["status"].get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return ""


def turn(before: list[str], tolerate: bool) -> bool | None:
    """Return whether a stage may begin now; None where it never will.

    Parameters
    ----------
    before : list of str
        How each Job before it has finished, as :func:`finished` says.
    tolerate : bool
        It begins also where those have failed.
    """
    if not tolerate and "Failed" in before:
        return None
    return all(before)


def step(jobs: Jobs, order: list[dict[str, Any]]) -> bool:
    """Let go what has its turn; return whether something still waits.

    Raises
    ------
    OSError
        The cluster does not answer, or refuses.
    """
    known = {entry["name"]: jobs.get(entry["name"]) for entry in order}
    waiting = False
    for entry in order:
        job = known[entry["name"]]
        if job is None or not job["spec"].get("suspend"):
            continue
        ends = [known[name] for name in entry["after"]]
        # What somebody has deleted has not succeeded.
        now = turn([finished(end) if end else "Failed" for end in ends], entry["tolerate"])
        if now:
            jobs.let_go(entry["name"])
        elif now is False:
            waiting = True
    return waiting


def main(argv: list[str]) -> int:
    """Keep the order that the argument names, until nothing waits."""
    order = json.loads(argv[0])
    jobs = Jobs()
    while True:
        try:
            if not step(jobs, order):
                return 0
        except OSError as error:
            print(f"labkit: {error}", file=sys.stderr, flush=True)
        time.sleep(_EVERY)
