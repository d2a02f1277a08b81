"""The emulator of AWS Batch: jobs really run, end, are tried again and wait for each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.testing.batch import BatchServer
from tests.support.job_helpers import until

IMAGE = "lab/shell:1"
SPOT = {
    "attempts": 3,
    "evaluateOnExit": [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ],
}


@pytest.fixture(scope="module")
def aws() -> Iterator[BatchServer]:
    """AWS with a queue, and an image that has a shell."""
    with BatchServer({IMAGE: str(Path(sys.executable).parents[1])}, vcpus=4) as server:
        server.make_queue("lab")
        yield server


class Batch:
    """A few words for what the tests ask."""

    def __init__(self, server: BatchServer, folder: Path) -> None:
        import boto3

        self.server, self.folder = server, folder
        self.client = boto3.client("batch", **server.client_options)
        self.logs = boto3.client("logs", **server.client_options)

    def definition(self, image: str = IMAGE) -> str:
        answer = self.client.register_job_definition(
            jobDefinitionName="shell",
            type="container",
            containerProperties={
                "image": image,
                "command": ["true"],
                "resourceRequirements": [
                    {"type": "VCPU", "value": "1"},
                    {"type": "MEMORY", "value": "128"},
                ],
            },
        )
        return str(answer["jobDefinitionArn"])

    def submit(self, script: str, image: str = IMAGE, vcpus: str = "1", **more: Any) -> str:
        answer = self.client.submit_job(
            jobName="test",
            jobQueue="lab",
            jobDefinition=self.definition(image),
            containerOverrides={
                "command": ["sh", "-euc", script.replace("HERE", str(self.folder))],
                "resourceRequirements": [{"type": "VCPU", "value": vcpus}],
            },
            **more,
        )
        return str(answer["jobId"])

    def get(self, job: str) -> dict[str, Any]:
        (told,) = self.client.describe_jobs(jobs=[job])["jobs"]
        return dict(told)

    def state(self, job: str) -> str:
        return str(self.get(job)["status"])

    def ended(self, job: str) -> dict[str, Any]:
        until(lambda: self.state(job) in ("SUCCEEDED", "FAILED"))
        return self.get(job)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def batch(aws: BatchServer, tmp_path: Path) -> Batch:
    return Batch(aws, tmp_path)


def test_a_job_runs_in_a_clean_place_and_its_log_is_kept(batch: Batch) -> None:
    done = batch.ended(batch.submit('echo "one $AWS_BATCH_JOB_ATTEMPT"; ls -A; echo two; env'))
    assert (done["status"], done["container"]["exitCode"]) == ("SUCCEEDED", 0)
    assert done["createdAt"] <= done["startedAt"] <= done["stoppedAt"]
    stream = done["container"]["logStreamName"]
    events = batch.logs.get_log_events(
        logGroupName="/aws/batch/job", logStreamName=stream, startFromHead=True
    )["events"]
    said = [event["message"] for event in events]
    assert said[:2] == ["one 1", "two"], "its folder is empty"
    assert not [line for line in said if line.startswith(("PYTEST", "LABKIT"))]


def test_a_log_grows_while_the_job_runs(batch: Batch) -> None:
    job = batch.submit("echo begun; while [ ! -e HERE/go ]; do sleep 0.1; done")

    def said() -> list[str]:
        streams = batch.logs.describe_log_streams(logGroupName="/aws/batch/job")["logStreams"]
        names = [one["logStreamName"] for one in streams if job in one["logStreamName"]]
        return [
            event["message"]
            for name in names
            for event in batch.logs.get_log_events(
                logGroupName="/aws/batch/job", logStreamName=name
            )["events"]
        ]

    batch.ended(batch.submit("true"))
    until(lambda: said() == ["begun"])
    assert batch.state(job) == "RUNNING"
    (batch.folder / "go").touch()
    assert batch.ended(job)["status"] == "SUCCEEDED"


def test_attempts_as_many_as_asked_for(batch: Batch) -> None:
    done = batch.ended(batch.submit("echo x >> HERE/ran; exit 3", retryStrategy={"attempts": 3}))
    assert (done["status"], done["container"]["exitCode"]) == ("FAILED", 3)
    assert len(done["attempts"]) == len(batch.lines("ran")) == 3
    once = "if [ -e HERE/once ]; then exit 0; fi; touch HERE/once; exit 1"
    done = batch.ended(batch.submit(once, retryStrategy={"attempts": 3}))
    assert (done["status"], len(done["attempts"])) == ("SUCCEEDED", 2)
    done = batch.ended(batch.submit("exit 1", retryStrategy=SPOT))
    assert (done["status"], len(done["attempts"])) == ("FAILED", 1), "the last rule says EXIT"


def test_a_reclaimed_machine(batch: Batch) -> None:
    script = "echo x >> HERE/ran; while [ ! -e HERE/go ]; do sleep 0.1; done"
    job = batch.submit(script, retryStrategy=SPOT)
    until(lambda: batch.lines("ran"))
    assert batch.server.reclaim(job)
    until(lambda: len(batch.lines("ran")) == 2)
    first = batch.get(job)["attempts"][0]
    assert first["statusReason"].startswith("Host EC2 (instance i-")
    assert "exitCode" not in first["container"]
    (batch.folder / "go").touch()
    assert batch.ended(job)["status"] == "SUCCEEDED"
    assert not batch.server.reclaim(job)


def test_arrays_and_those_that_wait_for_them(batch: Batch) -> None:
    script = "echo a$AWS_BATCH_JOB_ARRAY_INDEX >> HERE/ran"
    first = batch.submit(script, arrayProperties={"size": 3})
    pairs = batch.submit(
        "grep -q a$AWS_BATCH_JOB_ARRAY_INDEX HERE/ran; echo b >> HERE/ran",
        arrayProperties={"size": 3},
        dependsOn=[{"jobId": first, "type": "N_TO_N"}],
    )
    last = batch.submit("echo c >> HERE/ran", dependsOn=[{"jobId": pairs}])
    assert batch.ended(last)["status"] == "SUCCEEDED"
    ran = batch.lines("ran")
    assert sorted(ran) == ["a0", "a1", "a2", "b", "b", "b", "c"] and ran[-1] == "c"
    whole = batch.get(first)["arrayProperties"]
    assert (whole["size"], whole["statusSummary"]["SUCCEEDED"]) == (3, 3)
    children = batch.client.list_jobs(arrayJobId=first, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [one["arrayProperties"]["index"] for one in children] == [0, 1, 2]
    assert [one["jobId"] for one in children] == [f"{first}:{i}" for i in range(3)]


def test_one_after_the_other(batch: Batch) -> None:
    job = batch.submit(
        "echo b$AWS_BATCH_JOB_ARRAY_INDEX >> HERE/ran; sleep 0.2; echo e >> HERE/ran",
        arrayProperties={"size": 3},
        dependsOn=[{"type": "SEQUENTIAL"}],
    )
    assert batch.ended(job)["status"] == "SUCCEEDED"
    assert batch.lines("ran") == ["b0", "e", "b1", "e", "b2", "e"]


def test_what_waits_for_a_failure_never_runs(batch: Batch) -> None:
    first = batch.submit('[ "$AWS_BATCH_JOB_ARRAY_INDEX" = 1 ]', arrayProperties={"size": 2})
    whole = batch.submit("echo whole >> HERE/ran", dependsOn=[{"jobId": first}])
    pairs = batch.submit(
        "echo $AWS_BATCH_JOB_ARRAY_INDEX >> HERE/ran",
        arrayProperties={"size": 2},
        dependsOn=[{"jobId": first, "type": "N_TO_N"}],
    )
    assert batch.ended(whole)["statusReason"] == "Dependent Job failed"
    assert batch.ended(pairs)["status"] == "FAILED"
    assert batch.lines("ran") == ["1"]
    assert batch.state(first) == "FAILED"


def test_terminate_and_cancel(batch: Batch) -> None:
    gate = batch.submit("echo x >> HERE/ran; sleep 600")
    until(lambda: batch.lines("ran"))
    waiting = batch.submit("echo never >> HERE/ran", dependsOn=[{"jobId": gate}])
    batch.client.cancel_job(jobId=gate, reason="too late")
    batch.client.cancel_job(jobId=waiting, reason="not wanted")
    assert batch.ended(waiting)["statusReason"] == "not wanted"
    assert batch.state(gate) == "RUNNING", "what has started is not cancelled"
    batch.client.terminate_job(jobId=gate, reason="enough")
    done = batch.ended(gate)
    assert (done["status"], done["statusReason"], len(done["attempts"])) == ("FAILED", "enough", 1)
    assert batch.lines("ran") == ["x"]


def test_what_cannot_start_says_why(batch: Batch) -> None:
    done = batch.ended(batch.submit("true", image="lab/none:1"))
    assert done["container"]["reason"].startswith("CannotPullContainerError")
    done = batch.ended(
        batch.client.submit_job(
            jobName="test",
            jobQueue="lab",
            jobDefinition=batch.definition(),
            containerOverrides={"command": ["no-such-program-x"]},
        )["jobId"]
    )
    assert "CannotStartContainerError" in done["container"]["reason"]


def test_what_is_too_large_waits_for_ever(batch: Batch) -> None:
    job = batch.submit("true", vcpus="64")
    until(lambda: "MISCONFIGURATION" in batch.get(job).get("statusReason", ""))
    assert batch.state(job) == "RUNNABLE"
    batch.client.terminate_job(jobId=job, reason="enough")
    assert batch.ended(job)["statusReason"] == "enough"


def test_no_more_at_once_than_there_are_vcpus(batch: Batch) -> None:
    script = (
        "echo x > HERE/at.$AWS_BATCH_JOB_ARRAY_INDEX; ls HERE | grep -c at >> HERE/counts;"
        " sleep 0.3; rm HERE/at.$AWS_BATCH_JOB_ARRAY_INDEX"
    )
    job = batch.submit(script, vcpus="2", arrayProperties={"size": 5})
    assert batch.ended(job)["status"] == "SUCCEEDED"
    counts = list(map(int, batch.lines("counts")))
    assert len(counts) == 5 and max(counts) <= 2


def test_limits_are_kept(batch: Batch) -> None:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    with pytest.raises(ClientError, match="100 jobs"):
        batch.client.describe_jobs(jobs=["x"] * 101)
    with pytest.raises(ClientError, match="between 2 and 10000"):
        batch.submit("true", arrayProperties={"size": 1})
    assert batch.client.describe_jobs(jobs=["none"])["jobs"] == []


def test_faults_come_as_often_as_asked_for(batch: Batch) -> None:
    before = batch.server.calls().get("submitjob", 0)
    batch.server.fail("SubmitJob", 2, status=429, code="TooManyRequestsException")
    job = batch.submit("echo ran >> HERE/ran")
    assert batch.server.calls()["submitjob"] == before + 3
    assert batch.ended(job)["status"] == "SUCCEEDED"
    batch.server.fail("SubmitJob", done=True)
    job = batch.submit("echo ran >> HERE/ran")
    batch.ended(job)
    until(lambda: len(batch.lines("ran")) == 3)  # whose answer was lost has run, too
