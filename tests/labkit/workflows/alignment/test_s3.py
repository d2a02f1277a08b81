"""Reads, results and references in S3 (moto's server)."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.base.problems import RefusedError
from labkit.jobs.model import State
from labkit.workflows.alignment import Reference
from labkit.workflows.alignment.task_code import objects
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import stepwise
from tests.labkit.workflows.alignment.conftest import Data

pytestmark = needs_env("alignment")
BUCKET = "lab-data"


@pytest.fixture
def bucket(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket, and the files in the home that lead everybody to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    aws = lab_home / ".aws"
    aws.mkdir(mode=0o700)
    keys = "aws_access_key_id = test\naws_secret_access_key = test-secret\n"
    (aws / "credentials").write_text(f"[default]\n{keys}")
    config = f"region = eu-central-1\nendpoint_url = http://{host}:{port}\n"
    (aws / "config").write_text(f"[default]\n{config}")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(objects, "_clients", {})
    s3 = boto3.session.Session().client("s3")
    where = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    yield s3
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    moto.stop()


@pytest.mark.slow
def test_reads_and_reference_come_from_s3_and_the_index_is_kept_there(
    data: Data, bucket: Any, tmp_path: Path
) -> None:
    rows = []
    for row in data.rows:
        moved = dict(row)
        for mate in ("fastq_1", "fastq_2"):
            key = f"run7/{Path(row[mate]).name}"
            bucket.upload_file(row[mate], BUCKET, key)
            moved[mate] = f"s3://{BUCKET}/{key}"
        rows.append(moved)
    bucket.upload_file(str(data.fasta), BUCKET, "genome.fa")
    node = tmp_path / "node"
    reference = Reference(f"s3://{BUCKET}/genome.fa", cache=f"s3://{BUCKET}/refs", local=node)
    job = helpers.run(helpers.Streams(rows, reference, aligner="bwa"))
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    found = stepwise.records(helpers.sample(job, "s") / "s.bam")
    assert sum(record.primary and not record.flag & 4 for record in found) == 12_000

    listed = bucket.list_objects_v2(Bucket=BUCKET, Prefix="refs/")["Contents"]
    parts = {entry["Key"].split("/")[2] for entry in listed}
    assert parts == {"fasta", "bwa"}
    shutil.rmtree(node)  # another node: nothing is made again
    said: list[str] = []
    reference.index("bwa", tell=said.append)
    assert [text for text in said if "making" in text] == []
    assert sum("fetching" in text for text in said) == 2
    # an object that changed is new work
    again = helpers.Streams(rows, reference, aligner="bwa").plan("local")
    bucket.upload_file(data.rows[1]["fastq_1"], BUCKET, "run7/s_L1_1.fastq.gz")
    bucket.upload_file(data.rows[1]["fastq_2"], BUCKET, "run7/s_L1_2.fastq.gz")
    changed = helpers.Streams(rows, reference, aligner="bwa").plan("local")
    assert again.stage("align").tasks[0].params != changed.stage("align").tasks[0].params
    assert "test-secret" not in _all_text(job.path)


def _all_text(folder: Path) -> str:
    """Return all that a run folder says: no secret may be in it."""
    kinds = (".json", ".jsonl", ".log", ".txt")
    files = (path for path in folder.rglob("*") if path.suffix in kinds and path.is_file())
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_objects_that_are_missing_or_forbidden_are_refused(data: Data, bucket: Any) -> None:
    rows = [
        {"sample": "a", "fastq_1": f"s3://{BUCKET}/no.fastq"},
        {"sample": "b", "fastq_1": "s3://no-such-bucket/x.fastq"},
        {"sample": "c", "fastq_1": "s3://Bad_Bucket"},
    ]
    with pytest.raises(RefusedError) as caught:
        helpers.Streams(rows, data.fasta).submit("local")
    texts = [str(problem) for problem in caught.value.problems]
    assert f"row 1, fastq_1: there is no file s3://{BUCKET}/no.fastq." in texts
    assert texts[2].startswith("row 3, fastq_1: s3://Bad_Bucket cannot be read: ")
    assert len(texts) == 3


class Broken:
    """A body whose connection breaks after some bytes."""

    def __init__(self, body: Any, after: int) -> None:
        self._body, self._left = body, after

    def read(self, size: int) -> bytes:
        if self._left <= 0:
            raise ConnectionResetError("connection reset by peer")
        data: bytes = self._body.read(min(size, self._left))
        self._left -= len(data)
        return data


def test_a_stream_goes_on_where_its_connection_broke(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3_000_000)
    bucket.put_object(Bucket=BUCKET, Key="reads", Body=content)
    breaks = iter([1_000_000, 500_000, 10**9])
    real = objects.client()

    class Client:
        def head_object(self, **words: Any) -> Any:
            return real.head_object(**words)

        def get_object(self, **words: Any) -> Any:
            answer = real.get_object(**words)
            return {**answer, "Body": Broken(answer["Body"], next(breaks))}

    monkeypatch.setattr(objects, "_clients", {"s3": Client()})
    monkeypatch.setattr(
        "labkit.workflows.alignment.task_code.objects.time.sleep", lambda seconds: None
    )
    with objects.open_bytes(f"s3://{BUCKET}/reads") as file:
        assert file.read() == content
    assert next(breaks, None) is None


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="reads", Body=b"a" * 3_000_000)
    reader = objects.ObjectReader(f"s3://{BUCKET}/reads")
    bucket.put_object(Bucket=BUCKET, Key="reads", Body=b"b" * 3_000_000)
    with pytest.raises(OSError, match="was replaced while it was read"):
        reader.readinto(bytearray(1000))


def test_a_json_of_the_run_has_the_version_of_each_object(data: Data, bucket: Any) -> None:
    bucket.upload_file(data.rows[0]["fastq_1"], BUCKET, "a.fastq.gz")
    rows = [{"sample": "a", "fastq_1": f"s3://{BUCKET}/a.fastq.gz"}]
    task = helpers.Streams(rows, data.fasta).plan("local").stage("align").tasks[0]
    (lane,) = task.params["sample"]["lanes"]
    assert lane["versions"] == [bucket.head_object(Bucket=BUCKET, Key="a.fastq.gz")["ETag"]]
    assert task.inputs == ()
