"""The emulator as a test sees it."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from typing import Any

from labkit.testing.moto import MotoServer

CONTROL = "/_emulator"


class BatchServer(MotoServer):
    """AWS on loopback (S3, Logs, IAM, …), with an AWS Batch whose jobs really run.

    Jobs are processes of this machine and account, in an empty folder, with a clean environment:
    there is no container around them. Retries, ``evaluateOnExit``, arrays, ``N_TO_N``,
    ``SEQUENTIAL``, time-outs, terminate and log streams are as AWS documents them, its limits
    included.

    Parameters
    ----------
    images : mapping of str to path
        Image -> folder whose ``bin`` has its programs: an environment.
    vcpus : float
        Of the compute environment; a job that asks for more stays RUNNABLE.
    """

    def __init__(
        self, images: Mapping[str, str | os.PathLike[str]] | None = None, vcpus: float = 4
    ) -> None:
        known = {image: os.fspath(folder) for image, folder in (images or {}).items()}
        settings = {"LABKIT_BATCH_IMAGES": json.dumps(known), "LABKIT_BATCH_VCPUS": str(vcpus)}
        super().__init__("labkit.testing.batch.emulator", settings)

    def make_queue(self, name: str) -> str:
        """Make a compute environment and a queue of it, and return the queue's name."""
        import boto3

        batch = boto3.client("batch", **self.client_options)
        iam = boto3.client("iam", **self.client_options)
        role = iam.create_role(RoleName=f"{name}-role", AssumeRolePolicyDocument="{}")["Role"][
            "Arn"
        ]
        environment = batch.create_compute_environment(
            computeEnvironmentName=f"{name}-environment",
            type="UNMANAGED",
            state="ENABLED",
            serviceRole=role,
        )["computeEnvironmentArn"]
        batch.create_job_queue(
            jobQueueName=name,
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
        )
        return name

    def reclaim(self, job_id: str, *, warning: bool = True) -> bool:
        """Take the machine away under a job, as for a spot instance.

        Parameters
        ----------
        job_id : str
            Which; of an array one of its children.
        warning : bool
            False: without a SIGTERM and half a minute before.

        Returns
        -------
        bool
            Whether it ran.
        """
        return bool(self._control("reclaim", {"job": job_id, "warning": warning})["ran"])

    def fail(
        self,
        operation: str,
        times: int = 1,
        *,
        status: int = 500,
        code: str = "ServerException",
        done: bool = False,
    ) -> None:
        """Let the next calls of an operation of Batch fail.

        Parameters
        ----------
        operation : str
            E.g. ``"SubmitJob"``.
        times : int
            How many.
        status, code : int, str
            The answer: 429 and ``TooManyRequestsException`` is throttling.
        done : bool
            Do what was asked for all the same: an answer that is lost.
        """
        fault = {"operation": operation, "times": times, "status": status, "code": code}
        self._control("fail", {**fault, "done": done})

    def calls(self) -> dict[str, int]:
        """Return how often each operation of Batch was called since the start."""
        counts: dict[str, int] = self._control("calls", {})
        return counts

    def _control(self, what: str, data: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 -- our own, on loopback
            f"{self.url}{CONTROL}/{what}", data=json.dumps(data).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            told: dict[str, Any] = json.loads(answer.read())
            return told
