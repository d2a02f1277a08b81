"""The queue at AWS's stand-ins: what is refused, what comes twice, what is delivered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

import labkit
from labkit.base.problems import LabkitError, Problem, RefusedError
from labkit.storage.errors import UnreachableError
from labkit.testing.batch import BatchServer
from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.requests import Request
from services.intake import queue
from services.intake.plates import Plates
from services.intake.requests import Requests
from services.intake.settings import Settings, SettingsError
from tests.conftest import needs_env
from tests.labkit.jobs.conftest import lab_home as lab_home
from tests.labkit.workflows.cellprofiler import pipelines
from tests.labkit.workflows.cellprofiler.test_run import measuring
from tests.support.job_helpers import until
from tests.support.portal import built_envs

BUCKET = "lab-intake"
IMAGES = {"cellprofiler": "lab/cellprofiler:1", "notebook": "lab/notebook:1"}


@pytest.fixture(scope="module")
def server() -> Iterator[BatchServer]:
    """AWS with a bucket, a job queue and images that have the lab's environments."""
    import boto3

    images = {image: built_envs() / name for name, image in IMAGES.items()}
    with BatchServer(images, vcpus=4) as aws:
        aws.make_queue("lab")
        boto3.client("s3", **aws.client_options).create_bucket(Bucket=BUCKET)
        yield aws


@pytest.fixture
def aws(
    server: BatchServer, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BatchServer:
    """The same server as all clients of this process and its jobs find it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABHUB_ENVS", str(built_envs()))
    return server


@pytest.fixture
def settings(aws: BatchServer, tmp_path: Path) -> Settings:
    """Settings with queues of the test's own."""
    import boto3

    sqs = boto3.client("sqs", **aws.client_options)
    urls = [
        sqs.create_queue(QueueName=f"{tmp_path.name[-60:]}-{kind}")["QueueUrl"]
        for kind in ("requests", "dead")
    ]
    options = {
        "batch_queue": "lab",
        "batch_folder": f"s3://{BUCKET}/exchange",
        "batch_images": IMAGES,
    }
    return Settings(BUCKET, tmp_path / "intake", "batch", options, *urls)


def send(aws: BatchServer, settings: Settings, body: str) -> None:
    import boto3

    sqs = boto3.client("sqs", **aws.client_options)
    sqs.send_message(QueueUrl=settings.queue, MessageBody=body)


def letters(aws: BatchServer, address: str) -> list[dict[str, Any]]:
    """Return what lies in a queue, and take it out."""
    import boto3

    sqs = boto3.client("sqs", **aws.client_options)
    found = sqs.receive_message(QueueUrl=address, MaxNumberOfMessages=10).get("Messages", [])
    for message in found:
        sqs.delete_message(QueueUrl=address, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in found]


def test_what_can_never_run_is_a_dead_letter_with_all_problems(
    aws: BatchServer, settings: Settings
) -> None:
    body = json.dumps([{"pipeline": "x.sh", "input": "", "output": "out/"}, 3])
    send(aws, settings, body)
    requests = Requests(settings)
    assert queue.receive(settings, requests, wait=1) == 1
    (letter,) = letters(aws, settings.dead_letters)
    assert letter["message"] == body
    assert len(letter["problems"]) == 3
    assert letters(aws, settings.queue) == [], "it does not come again"
    missing = {"pipeline": "none/x.cppipe", "input": "images/", "output": "out/"}
    record = requests.take("one", json.dumps(missing))
    assert record["state"] == "REFUSED"
    assert "no object s3://lab-intake/none/x.cppipe" in record["problems"][0]


def test_a_message_that_comes_twice_is_one_request(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[str] = []

    def submit(_: Requests, body: str) -> tuple[list[dict[str, str]], list[Problem]]:
        submitted.append(body)
        return [], []

    monkeypatch.setattr(Requests, "_submit", submit)
    requests = [Requests(settings) for _ in range(4)]
    threads = [threading.Thread(target=one.take, args=("../same id", "{}")) for one in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert submitted == ["{}"]
    assert [path.parent for path in settings.folder.rglob("*.json")] == [
        settings.folder / "requests"
    ]


def test_one_request_that_cannot_run_keeps_all_of_its_message_from_starting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def check(request: Request) -> list[Problem]:
        return [Problem("pipeline", "is none.")] if "bad" in request.pipeline else []

    monkeypatch.setattr(Request, "check", check)
    monkeypatch.setattr(Request, "submit", lambda request, *_, **__: asked.append(request.pipeline))
    items = [
        {"pipeline": f"{name}.cppipe", "input": "images/", "output": "out/"}
        for name in ("good", "bad")
    ]
    record = Requests(settings).take("one", json.dumps(items))
    assert (record["state"], record["problems"]) == ("REFUSED", ["request 2, pipeline: is none."])
    assert asked == []


def test_what_the_backend_alone_refuses_is_told_and_the_others_run(
    aws: BatchServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(request: Request, *_: object, **__: object) -> SimpleNamespace:
        if "large" in request.pipeline:
            raise RefusedError([Problem("memory", "no machine has so much.")])
        return SimpleNamespace(path=settings.folder / "runs" / "good")

    monkeypatch.setattr(Request, "check", lambda _: [])
    monkeypatch.setattr(Request, "submit", submit)
    items = [
        {"pipeline": f"{name}.cppipe", "input": "images/", "output": "out/"}
        for name in ("good", "large")
    ]
    record = queue.settle(settings, Requests(settings), "one", json.dumps(items))
    assert (record["state"], len(record["jobs"])) == ("RUNNING", 1)
    (letter,) = letters(aws, settings.dead_letters)
    assert letter["problems"] == ["request 2, memory: no machine has so much."]


def test_a_request_whose_run_is_gone_keeps_no_other_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(settings)
    jobs = iter(["gone", "here", "gone too"])
    monkeypatch.setattr(
        Requests, "_submit", lambda *_: ([{"run": next(jobs), "output": "s3://b/o/"}], [])
    )
    names = {requests.take(f"message {number}", "{}")["id"] for number in range(3)}
    assert len(names) == 3

    def end(_: Requests, record: dict[str, Any]) -> dict[str, Any]:
        if "gone" in record["jobs"][0]["run"]:
            raise LabkitError("the run folder is gone")
        return {**record, "state": "SUCCEEDED"}

    monkeypatch.setattr(Requests, "_end", end)
    (ended,) = requests.follow()
    assert ended["jobs"][0]["run"] == "here"
    assert requests.follow() == []


def test_lambda_gives_back_only_what_cannot_be_done_now(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "BUCKET": settings.bucket,
        "FOLDER": str(settings.folder),
        "DEAD_LETTERS": settings.dead_letters,
        "OPTIONS": json.dumps(settings.options),
    }.items():
        monkeypatch.setenv(f"LABHUB_INTAKE_{name}", value)
    real = Requests._submit

    def submit(self: Requests, body: str) -> Any:
        if "away" in body:
            raise UnreachableError("S3 is away.")
        return real(self, body)

    monkeypatch.setattr(Requests, "_submit", submit)
    bodies = {"a": "{", "b": "away", "c": "[]"}
    records = [{"messageId": name, "body": body} for name, body in bodies.items()]
    answer = queue.handler({"Records": records})
    assert answer == {"batchItemFailures": [{"itemIdentifier": "b"}]}
    states = [json.loads(path.read_text())["state"] for path in settings.folder.rglob("*.json")]
    assert states == ["REFUSED", "REFUSED"]
    monkeypatch.setenv("LABHUB_INTAKE_OPTIONS", "[")
    with pytest.raises(SettingsError, match="OPTIONS"):
        queue.handler({"Records": []})


@needs_env("cellprofiler")
@needs_env("notebook")
def test_a_request_from_the_queue_to_its_tables_in_s3(
    aws: BatchServer, settings: Settings, tmp_path: Path
) -> None:
    """SQS, real CellProfiler in jobs of Batch, CSVs and a reply in the bucket."""
    import boto3

    s3 = boto3.client("s3", **aws.client_options)
    images = tmp_path / "img"
    example.make_plate(images, 2, 1, size=160)
    pipeline = measuring(tmp_path, ["Well"])
    for path in [pipeline, *sorted(images.rglob("*.tif"))]:
        s3.put_object(Bucket=BUCKET, Key=f"plate1/{path.name}", Body=path.read_bytes())
    message = {
        "pipeline": f"plate1/{pipeline.name}",
        "input": "plate1/",
        "output": "plate1/output0/",
        "job_memory": "1024",
        "job_vcpu": "1",
    }
    send(aws, settings, json.dumps(message))
    requests = Requests(settings)
    assert queue.receive(settings, requests, wait=5) == 1
    (ended,) = cast("list[dict[str, Any]]", until(requests.follow, 300))
    assert (ended["state"], ended["problems"]) == ("SUCCEEDED", [])
    assert requests.follow() == [], "it is delivered once"
    out = tmp_path / "out"
    labkit.storage.copy(f"s3://{BUCKET}/plate1/output0/", f"{out}/")
    assert json.loads((out / "labhub-reply.json").read_text())["state"] == "SUCCEEDED"
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", images)
    for name in ("Nuclei", "Cells"):
        mine = pd.read_csv(out / f"{name}.csv", float_precision="round_trip")
        own = [column for column in ("plate", "well", "site") if column in mine]
        pipelines.assert_equal(mine.drop(columns=own), theirs[name])


def test_a_plate_starts_when_it_is_complete(lab_home: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    place, notes = tmp_path / "arriving", tmp_path / "intake"
    command = {
        "workflow": "command",
        "command": "cp -r {folder} {out}",
        "inputs": {"folder": "{plate}"},
        "output": str(tmp_path / "runs"),
        "backend": "local",
    }
    job.write_text(json.dumps(command))
    first, second = place / "P1", place / "P2"
    for plate in (first, second):
        plate.mkdir(parents=True)
    plates = Plates(str(place), str(job), notes)
    assert plates.look() == []
    (first / "manifest.csv").write_text("file,size\na.tif,3\nsub/b.tif,2\n")
    (first / "a.tif").write_text("abc")
    (first / "sub").mkdir()
    (first / "sub/b.tif").write_text("x")
    assert plates.look() == [], "one file is still growing"
    (first / "sub/b.tif").write_text("xy")
    (second / "manifest.csv").write_text("name\na.tif\n")
    assert plates.look() == [f"{first}/"]
    assert Plates(str(place), str(job), notes).look() == [], "each is started once"
    notes_of = [json.loads(path.read_text()) for path in (notes / "plates").glob("*.json")]
    run = next(note["run"] for note in notes_of if "run" in note)
    (problems,) = (note["problems"] for note in notes_of if "problems" in note)
    assert "columns file and size" in problems[0]
    assert str(labkit.open_job(Path(run)).wait(120).state) == "SUCCEEDED"
    job.write_text(json.dumps({**command, "inputs": {"folder": "/data"}}))
    with pytest.raises(RefusedError, match=r"names no \{plate\}"):
        Plates(str(place), str(job), notes)


def test_groups_of_a_job_file_are_looked_up_in_its_csv(
    aws: BatchServer, settings: Settings
) -> None:
    import boto3

    s3 = boto3.client("s3", **aws.client_options)
    rows = [(plate, well) for plate in ("P1", "P2") for well in ("A01", "B02")]
    lines = ["Image_FileName_DNA,Image_PathName_DNA,Metadata_Plate,Metadata_Well"]
    lines += [f"{p}_{w}.tif,/home/ubuntu/bucket/dcp/{p},{p},{w}" for p, w in rows]
    s3.put_object(Bucket=BUCKET, Key="dcp/load.csv", Body="\n".join(lines).encode())
    job = {
        "pipeline": "dcp/x.cppipe",
        "data_file": "dcp/load.csv",
        "output": "dcp/out",
        "groups": [
            {"Metadata": "Metadata_Plate=P1,Metadata_Well=A01"},
            {"Metadata": "Metadata_Plate=P2,Metadata_Well=B02"},
        ],
    }
    request = labkit.import_dcp(job, BUCKET)
    assert isinstance(request.images, pd.DataFrame)
    assert request.group_by == ("Plate", "Well")
    assert request.images["PathName_DNA"].tolist() == [
        f"s3://{BUCKET}/dcp/P1",
        f"s3://{BUCKET}/dcp/P2",
    ]
    wrong = {**job, "groups": [{"Metadata_Plate": "P1", "Metadata_Well": "A1"}]}
    with pytest.raises(RefusedError, match=r"Did you mean 'P1, A01'"):
        labkit.import_dcp(wrong, BUCKET)
    with pytest.raises(RefusedError, match=r"Metadata_Plat.*Did you mean 'Metadata_Plate'"):
        labkit.import_dcp({**job, "groups": [{"Metadata_Plat": "P1"}]}, BUCKET)
