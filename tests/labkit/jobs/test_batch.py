"""AWS Batch keeps the contract of all backends; an emulator that really runs jobs, S3 of moto."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.labfile.schema import Settings
from hub.runtime import batch
from hub.state.paths import Paths
from labkit import cli
from labkit.base.problems import RefusedError
from labkit.jobs.backends.base import BackendError
from labkit.jobs.backends.batch import calls, requests
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import Resources, Stage, State, Task
from labkit.testing.batch import BatchServer
from labkit.workflows.command import Command
from tests.support.backend_contract import BackendContract, Site
from tests.support.job_helpers import Staged, ran, records, shell, stage, until

IMAGE = "lab/worker:1"
BROKEN = "lab/broken:1"
BUCKET = "lab-exchange"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchServer]:
    """AWS with a queue, a bucket, and an image that has the worker's environment."""
    import boto3

    broken = tmp_path_factory.mktemp("image") / "bin"
    broken.mkdir()
    (broken / "python3").write_text("#!/bin/sh\necho No module named boto3 >&2\nexit 1\n")
    (broken / "python3").chmod(0o755)
    images = {IMAGE: Path(sys.executable).parents[1], BROKEN: broken.parent}
    with BatchServer(images, vcpus=4) as server:
        server.make_queue("lab")
        boto3.client("s3", **server.client_options).create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def site(aws: BatchServer, tmp_path: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder that stands for what nodes mount; the run folder is not in it."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    options = {
        "batch_queue": "lab",
        "batch_folder": f"s3://{BUCKET}/{tmp_path.name}",
        "batch_images": {"worker": IMAGE},
        "batch_mounted": [str(tmp_path)],
    }
    return Site("batch", tmp_path, options, patience=300)


class TestBatch(BackendContract):
    memory_grows = False  # a job's memory cannot change on Batch: the person asks again

    @pytest.fixture
    def site(self, site: Site) -> Site:
        return site


def waiting(site: Site, after: str = "true") -> Stage:
    """Return a stage that leaves a trace and ends when the file ``gate`` is there."""
    gate = site.folder / "gate"
    script = f"echo ran >> {site.trace}; while [ ! -e {gate} ]; do sleep 0.1; done; {after}"
    return stage("wait", script)


def ids(job: Job) -> list[str]:
    """Return what Batch calls a job's jobs."""
    return [
        one["id"]
        for submission in job.run.submissions()
        for one in (submission.handle or {}).get("jobs", ())
    ]


@pytest.mark.parametrize("warning", [True, False], ids=["warned", "at-once"])
def test_a_machine_that_is_taken_away_is_replaced_and_shown(
    warning: bool, site: Site, aws: BatchServer
) -> None:
    job = site.submit(waiting(site))
    until(lambda: ran(site.trace))
    (batch_job,) = ids(job)
    assert aws.reclaim(batch_job, warning=warning)
    until(lambda: len(ran(site.trace)) == 2)
    (site.folder / "gate").touch()
    job.wait(site.patience)
    assert job.state is State.SUCCEEDED
    reasons = [json.loads(job.run.folder.record("wait", 0, n).read_text()) for n in (1, 2)]
    assert [one.get("reason") for one in reasons] == ["SPOT_RECLAIM", None]
    assert job.refresh().retries == 1, "the retry is visible"


def test_a_submit_whose_answer_was_lost_is_found_again(site: Site, aws: BatchServer) -> None:
    work = stage("once", f"echo ran >> {site.trace}")
    aws.fail("SubmitJob", done=True)
    with pytest.raises(BackendError):
        site.submit(work)
    before = aws.calls()["submitjob"]
    job = site.run(work)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    assert aws.calls()["submitjob"] == before, "it was adopted"


def test_throttled_and_failing_calls_are_made_again(site: Site, aws: BatchServer) -> None:
    aws.fail("SubmitJob", 2, status=429, code="TooManyRequestsException")
    aws.fail("DescribeJobs", 2, status=429, code="TooManyRequestsException")
    aws.fail("DescribeJobs", 1)
    aws.fail("DescribeJobQueues", 1)
    job = site.run(stage("once", f"echo ran >> {site.trace}"))
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    before = aws.calls()
    assert open_job(job.run).state is State.SUCCEEDED
    assert aws.calls() == before, "what has ended costs no call"


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_two_jobs_of_one_task_run_it_once(
    end: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, twice = calls.submit, []

    def submit(request: Any) -> str:
        twice.append(real(request))
        return real(request)

    with monkeypatch.context() as patch:
        patch.setattr(calls, "submit", submit)
        job = site.submit(waiting(site, after="exit 3" if end == "FAILED" else "true"))
    until(lambda: ran(site.trace))
    (site.folder / "gate").touch()
    assert job.wait(site.patience).state == end
    until(lambda: calls.describe(twice)[twice[0]]["status"] == end)
    assert ran(site.trace) == ["ran"]
    assert records(job, "wait") == [(0, 1)]


def test_a_job_that_waits_for_ever_says_why(site: Site) -> None:
    job = site.submit(stage("big", "true", resources=Resources.of(64, "128 MB")))
    until(lambda: "no machine of the queue is that large" in job.refresh().text)
    assert job.cancel().wait(site.patience).state is State.CANCELLED


def test_an_image_that_is_not_there_or_not_fit_is_named(site: Site) -> None:
    job = site.run(stage("one", "true"), batch_images={"worker": "lab/none:1"})
    failed = job.failed()
    assert list(failed["reason"]) == ["INPUT"]
    assert "lab/none:1" in failed["text"][0]
    job = site.run(stage("two", "true", "true"), batch_images={"worker": BROKEN})
    failed = job.failed()
    assert list(failed["reason"]) == ["LOST", "LOST"]
    assert all("it said: No module named boto3" in text for text in failed["text"])


def test_results_that_were_made_here_are_used_there(site: Site) -> None:
    again = site.folder / "again"
    stages = (
        stage("make", "mkdir deep; echo one > 'deep/ä b.txt'", outputs=("deep/*",)),
        stage(
            "use",
            f'test -e {again}; cat "$PWD"/../../../results/make/t0/deep/* > all',
            depends_on=("make",),
            outputs=("all",),
        ),
    )
    job = Staged(*stages, output=site.folder / "runs").submit("local").wait(site.patience)
    assert job.failed()["stage"].tolist() == ["use"]
    again.touch()
    job.retry("batch", **site.options).wait(site.patience)
    assert job.state is State.SUCCEEDED
    assert (job.path / "results/use/t0/all").read_text() == "one\n"
    assert len(ids(job)) == 1, "only what failed ran there"


def test_what_nodes_cannot_see_or_nobody_named_is_refused(site: Site) -> None:
    task = Task("t0", 0, shell("true"), inputs=("/data/plate1/a.tif", "/data/plate1/b.tif"))
    with pytest.raises(RefusedError, match=r"do not see /data/plate1/a.tif and 1 more"):
        site.submit(Stage("read", (task,)))
    for change, text in (
        ({"batch_folder": "s3://no-such-bucket-here/x"}, "no bucket 'no-such-bucket-here'"),
        ({"batch_queue": "none"}, "no job queue 'none'"),
        ({"batch_images": {}}, "no image is named for the environment 'worker'"),
    ):
        with pytest.raises(RefusedError, match=text):
            site.submit(stage("one", "true"), **change)
    assert not (site.folder / "runs").exists()


def test_the_lab_file_spares_all_options_and_doctor_asks_for_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = {
        "queue": "lab",
        "folder": f"s3://{BUCKET}/{tmp_path.name}",
        "images": {"worker": IMAGE},
        "mounted": [str(tmp_path)],
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
    }
    settings, paths = Settings.model_validate({"batch": lab}), Paths(tmp_path, tmp_path)
    assert settings.batch is not None
    with monkeypatch.context() as patch:
        for name, value in settings.batch.variables("ada").items():
            patch.setenv(name, value)
        work = stage("once", f"echo ran >> {site.trace}")
        job = Staged(work, output=site.folder / "runs").submit("batch")
    # Whoever looks later has other defaults, or none.
    assert job.wait(site.patience).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    seen = batch.finding(settings, paths)
    assert (seen.problems, seen.detail) == ((), f"queue lab, s3://{BUCKET}/{tmp_path.name}")
    assert "AWS_ENDPOINT_URL" not in os.environ, "it is left as it was"
    wrong = Settings.model_validate({"batch": {**lab, "queue": "none"}})
    assert "no job queue 'none'" in batch.finding(wrong, paths).problems[0].text
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    seen = batch.finding(settings, paths)
    assert seen.ok
    assert "no credentials" in seen.problems[0].text


def test_a_node_that_sees_no_disk_of_ours_fetches_its_inputs(site: Site, aws: BatchServer) -> None:
    import boto3

    s3 = boto3.client("s3", **aws.client_options)
    for name in ("a", "b", "genome"):
        s3.put_object(Bucket=BUCKET, Key=f"{site.folder.name}-data/{name}", Body=name.encode())
    data = f"s3://{BUCKET}/{site.folder.name}-data"
    command = Command(
        "cat {reads} {genome} > {out}/all",
        over=[{"reads": f"{data}/{name}", "genome": f"{data}/genome"} for name in "ab"],
        inputs=["reads", "genome"],
        shell=True,
        output=site.folder / "runs",
    )
    job = command.submit("batch", **{**site.options, "batch_mounted": []}).wait(site.patience)
    assert job.state is State.SUCCEEDED, job.failed()
    texts = [path.read_text() for path in sorted((job.path / "results").rglob("all"))]
    assert texts == ["agenome", "bgenome"]
    exchanged = {"Bucket": BUCKET, "Prefix": f"{site.folder.name}/"}
    assert s3.list_objects_v2(**exchanged)["KeyCount"]
    assert cli.main(["gc", job.name, "--all", "--yes", "--older-than", "0"]) == cli.SUCCESS
    assert not job.path.exists()
    assert s3.list_objects_v2(**exchanged)["KeyCount"] == 0


def test_a_payload_that_was_replaced_is_not_run(site: Site, aws: BatchServer) -> None:
    """Whoever may write into the bucket cannot change what runs after it was submitted."""
    import boto3

    boto3.client("s3", **aws.client_options).put_object(Bucket=BUCKET, Key="evil", Body=b"evil")
    variables = {"LABKIT_PAYLOAD": f"s3://{BUCKET}/evil", "LABKIT_PAYLOAD_SHA256": "0" * 64}
    ended = subprocess.run(
        [sys.executable, "-c", requests._FETCH],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    said = ended.stderr.strip()
    assert (ended.returncode, said) == (1, "labkit: the payload is not what was submitted")


def test_what_a_job_says_leads_nowhere_else(site: Site, aws: BatchServer) -> None:
    """A job may write into the exchange: what it writes there is not believed about paths."""
    import boto3

    job = site.submit(waiting(site))
    until(lambda: ran(site.trace))
    s3 = boto3.client("s3", **aws.client_options)
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{site.folder.name}/")["Contents"]
    top = "/".join(listed[0]["Key"].split("/")[:2])
    evil = {
        "submission": 1,
        "state": "SUCCEEDED",
        "stage": "../../..",
        "index": 5,
        "attempt": 1,
        "key": "../../../../evil",
        "result": "../../evil",
        "outputs": "../../../evil/",
    }
    names = ("wait/0.7", "wait/9.1", "none/0.1", "wait/../../0.1")
    objects = {f"tasks/{name}.json": json.dumps(evil).encode() for name in names}
    objects |= {"tasks/wait/0.5.json": b"{", "running/wait/0.6.json": b"[]", "running/x": b"x"}
    objects |= {"outputs/wait/0.7/a": b"mine", "evil/a": b"not mine"}
    for name, content in objects.items():
        s3.put_object(Bucket=BUCKET, Key=f"{top}/{name}", Body=content)
    before = {path for path in site.folder.rglob("*") if not path.is_relative_to(job.path)}
    until(lambda: job.refresh().known and records(job, "wait") == [(0, 7)])
    assert (job.path / "results/wait/t0/a").read_text() == "mine"
    after = {path for path in site.folder.rglob("*") if not path.is_relative_to(job.path)}
    assert not {path for path in after - before if "evil" in path.name}
    assert not [path for path in job.path.rglob("*") if "evil" in path.name]
    job.cancel()
    (site.folder / "gate").touch()


def test_no_key_is_in_what_is_stored(site: Site, aws: BatchServer) -> None:
    import boto3

    job = site.run(stage("one", "echo a > b", outputs=("b",)))
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    s3 = boto3.client("s3", **aws.client_options)
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{site.folder.name}/")["Contents"]
    assert {entry["Key"].split("/")[2] for entry in listed} >= {"payload", "tasks", "outputs"}
    for entry in listed:
        body = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        if entry["Key"].endswith(".tar.gz"):
            body = gzip.decompress(body)
        assert secret not in body
    assert all(secret not in path.read_bytes() for path in job.path.rglob("*") if path.is_file())
