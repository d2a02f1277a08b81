"""What is asked of AWS Batch for a submission: definitions and jobs, as plain JSON."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.base.units import MB
from labkit.jobs.runs.store import StageWork

LARGEST_ARRAY = 10_000
MOST_DEPENDENCIES = 20
_MOST_ATTEMPTS = 10
_LONGEST_NAME = 128
_OVERHEAD = 256 * MB  # the worker's own, beside what the task may use
_TRANSFER = 1800  # seconds for fetching and storing, beside the task's own limit
_SHORTEST = 60  # seconds, Batch's own
# A machine that is taken away is no fault of the task; everything else has a record that says why.
_RETRY = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
]
_FETCH = """
import hashlib, io, os, sys, tarfile, tempfile
import boto3
from botocore.config import Config
style = "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"
s3 = boto3.client("s3", config=Config(s3={"addressing_style": style}))
bucket, _, key = os.environ["LABKIT_PAYLOAD"].removeprefix("s3://").partition("/")
data = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
if hashlib.sha256(data).hexdigest() != os.environ["LABKIT_PAYLOAD_SHA256"]:
    sys.exit("labkit: the payload is not what was submitted")
place = tempfile.mkdtemp(prefix="labkit-")
with tarfile.open(fileobj=io.BytesIO(data)) as payload:
    payload.extractall(place)
sys.path.insert(0, place + "/node")
from labkit.jobs.backends.batch.node import main
sys.exit(main(place))
"""


@dataclass(frozen=True)
class Array:
    """Some tasks of one stage: one array job, or a plain one where it is one task.

    Attributes
    ----------
    stage : str
        The stage.
    start : int
        Place of its first task among the submission's tasks of that stage.
    count : int
        Tasks.
    """

    stage: str
    start: int
    count: int

    def name(self, submission: str) -> str:
        """Return the job's name: the same for the same submission, so that it is found again."""
        whole = f"{submission}-{self.stage}-{self.start}-{self.count}"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
        if name == whole and len(name) <= _LONGEST_NAME:
            return name
        digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        return f"{name[: _LONGEST_NAME - 17]}-{digest}"


def layout(works: Sequence[StageWork]) -> Iterator[Array]:
    """Return the arrays of a submission, stage by stage."""
    for work in works:
        for start in range(0, len(work.tasks), LARGEST_ARRAY):
            yield Array(work.name, start, min(LARGEST_ARRAY, len(work.tasks) - start))


def definition(image: str, role: str) -> dict[str, Any]:
    """Return a job definition, registered once for each image; jobs say all the rest."""
    container: dict[str, Any] = {
        "image": image,
        "command": ["true"],
        "resourceRequirements": [
            {"type": "VCPU", "value": "1"},
            {"type": "MEMORY", "value": "512"},
        ],
        "environment": [],
    }
    if role:
        container["jobRoleArn"] = role
    digest = hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "jobDefinitionName": f"labkit-{digest}",
        "type": "container",
        "platformCapabilities": ["EC2"],
        "containerProperties": container,
    }


def job(
    array: Array,
    work: StageWork,
    *,
    name: str,
    queue: str,
    definition: str,
    environment: Mapping[str, str],
    depends_on: Sequence[str],
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """Return the body of one SubmitJob.

    Parameters
    ----------
    array : Array
        Which tasks.
    work : StageWork
        What they ask for.
    name, queue, definition : str
        The job's name, its queue, and the ARN of its definition.
    environment : mapping
        Variables that lead the node to the payload.
    depends_on : sequence of str
        Jobs that must have ended well before.
    tags : mapping
        Whose, and which.
    """
    asked = work.resources
    needs = [
        {"type": "VCPU", "value": str(max(1, math.ceil(asked.cpu)))},
        {"type": "MEMORY", "value": str(math.ceil((asked.memory + _OVERHEAD) / MB))},
    ]
    needs += [{"type": "GPU", "value": str(asked.gpus)}] if asked.gpus else []
    variables = {**environment, "LABKIT_STAGE": array.stage, "LABKIT_START": str(array.start)}
    request: dict[str, Any] = {
        "jobName": name,
        "jobQueue": queue,
        "jobDefinition": definition,
        "containerOverrides": {
            "command": ["python3", "-c", _FETCH],
            "resourceRequirements": needs,
            "environment": [{"name": k, "value": v} for k, v in sorted(variables.items())],
        },
        "retryStrategy": {
            "attempts": min(_MOST_ATTEMPTS, 1 + work.retries),
            "evaluateOnExit": _RETRY,
        },
        "dependsOn": [{"jobId": one} for one in depends_on],
        "tags": dict(tags),
        "propagateTags": True,
    }
    if array.count > 1:
        request["arrayProperties"] = {"size": array.count}
    if asked.time is not None:
        seconds = max(_SHORTEST, math.ceil(asked.time.total_seconds()) + _TRANSFER)
        request["timeout"] = {"attemptDurationSeconds": seconds}
    return request
