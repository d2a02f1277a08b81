"""What a look at a job on AWS Batch costs: ``python -m bench.batch_looks [TASKS]``.

Records of tasks that have ended lie in S3 (moto's); the run folder here has none of them. The first
look brings them all, the second finds nothing new. Requests are what would be paid for on AWS.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from labkit.jobs.backends.batch.exchange import Exchange
from labkit.jobs.model import Stage, Task
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run
from labkit.storage.address import ObjectAddress
from labkit.storage.client import client
from labkit.testing.moto import MotoServer

_BUCKET = "bench"
_KEY = "jobs/run/"


def main(words: list[str]) -> int:
    """Measure with so many tasks.

    Parameters
    ----------
    words : list of str
        Number of tasks; 2,000 without.
    """
    tasks = int(words[0]) if words else 2000
    with MotoServer() as moto, tempfile.TemporaryDirectory() as folder:
        os.environ.update(moto.environment)
        s3 = client("s3")
        s3.create_bucket(Bucket=_BUCKET)
        stage = Stage("many", tuple(Task(f"t{i}", i, ("true",)) for i in range(tasks)))
        run = Run.create(Plan("bench", "bench", (stage,)), Path(folder))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: _put(s3, index), range(tasks)))
        sent = 0

        def count(**_: Any) -> None:
            nonlocal sent
            sent += 1

        s3.meta.events.register("before-send.s3.*", count)
        for name in ("first", "second"):
            sent, wall, cpu = 0, time.perf_counter(), time.process_time()
            Exchange(run, ObjectAddress(_BUCKET, _KEY)).receive()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{name} look, {tasks:,} tasks: {sent:,} requests, {wall:.1f} s, {cpu:.1f} CPU s")
    return 0


def _put(s3: Any, index: int) -> None:
    record = {"submission": 1, "state": "SUCCEEDED", "seconds": 1.0, "started": 1.0, "ended": 2.0}
    key = f"{_KEY}tasks/many/{index}.1.json"
    s3.put_object(Bucket=_BUCKET, Key=key, Body=json.dumps(record).encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
