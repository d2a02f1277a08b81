"""What a run folder exchanges by way of S3: few requests for many heartbeats, and its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit.jobs.backends.batch import exchange
from labkit.jobs.backends.batch.exchange import Exchange
from labkit.jobs.runs.store import Run
from labkit.jobs.worker.folder import read_json
from labkit.storage.address import ObjectAddress
from tests.support.aws_faults import FaultyEndpoint
from tests.support.job_helpers import Staged, stage

TASKS = 100


def beat(index: int, done: float) -> dict[str, Any]:
    return {"stage": "many", "index": index, "attempt": 1, "submission": 1, "units_done": done}


def shown(run: Run) -> list[float]:
    """Return how far each task is, as the run folder shows it."""
    beats = [read_json(run.folder.running("many", index, 1)) for index in range(TASKS)]
    return [told["units_done"] for told in beats if told is not None]


def test_a_look_reads_few_of_many_heartbeats(
    s3: Any, bucket: str, faulty: FaultyEndpoint, lab_home: Path, tmp_path: Path
) -> None:
    flow = Staged(stage("many", *["true"] * TASKS), output=tmp_path)
    run = Run.create(flow.build("batch"), tmp_path)
    address = ObjectAddress(bucket, "jobs/run/")

    def put(done: float) -> None:
        for index in range(TASKS):
            body = json.dumps(beat(index, done)).encode()
            s3.put_object(Bucket=bucket, Key=f"jobs/run/running/many/{index}.1.json", Body=body)

    def requests_of_a_look() -> int:
        faulty.requests = []
        Exchange(run, address).receive()
        return len(faulty.requests)

    put(0.0)
    lists = 2  # heartbeats and records
    assert requests_of_a_look() == lists + TASKS, "those that are new"
    assert shown(run) == [0.0] * TASKS
    put(0.5)
    again = exchange._BEATS_AGAIN
    for look in range(1, -(-TASKS // again) + 1):
        assert requests_of_a_look() == lists + again
        assert shown(run).count(0.5) == min(TASKS, look * again), "the oldest first"
    s3.delete_object(Bucket=bucket, Key="jobs/run/running/many/7.1.json")
    requests_of_a_look()
    assert len(shown(run)) == TASKS - 1

    s3.put_object(Bucket=bucket, Key="jobs/run-of-another/running/x", Body=b"x")
    Exchange(run, address).forget()
    left = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in left] == ["jobs/run-of-another/running/x"]
