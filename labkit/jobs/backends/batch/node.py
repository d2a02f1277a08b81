"""One task on a node that sees no disk of ours: fetch, run the worker, store, record.

What runs here came with the payload, beside it: this module, labkit.storage and the worker. The
record is the commit: it is put if absent, after all that it names has been stored.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from labkit.base import process_tree
from labkit.jobs.worker import commit, intent
from labkit.jobs.worker.folder import Folder, parse_name, read_json, write_json
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.copying import copy
from labkit.storage.errors import StorageError
from labkit.storage.store import ObjectStore

_BEAT = 10.0  # seconds between two heartbeats
_SILENT = 60.0  # seconds without a heartbeat after which an attempt of another job is lost
_AT_ONCE = 8  # objects that are fetched
# After these the same submission may try once more; all others are the task's end.
_AGAIN = frozenset({"LOST", "NODE_FAIL", "PREEMPTED", "SPOT_RECLAIM"})
_RUN_FOLDERS = ("tasks", "running", "logs", "attempts", "results")


class Node:
    """One element of an array, on its node.

    Parameters
    ----------
    place : Path
        Where the payload was unpacked.
    address : ObjectAddress
        The run folder in S3.
    stage : str
        The stage.
    number : int
        The submission.
    index : int
        The task.
    job : str
        What Batch calls this job; the same for all its attempts.
    """

    def __init__(
        self, place: Path, address: ObjectAddress, stage: str, number: int, index: int, job: str
    ) -> None:
        self._folder = Folder(place / "run")
        self._address, self._store = address, ObjectStore(address)
        self._stage, self._number, self._index, self._job = stage, number, index, job
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = self._succeeded = False
        asked = self._read(self._folder.submission(number))
        work = next(one for one in asked["stages"] if one["name"] == stage)
        self._since = intent.success_since(work, number, index)
        for info in self._manifest()["stages"]:
            for kind in _RUN_FOLDERS:
                (self._folder.path / kind / info["name"]).mkdir(parents=True, exist_ok=True)

    def run(self) -> bool:
        """Run the task unless it is done; return whether it has succeeded.

        Raises
        ------
        StorageError
            Nothing can be read or recorded.
        """
        attempt = self._claim()
        if attempt is None:
            return self._succeeded
        try:
            self._fetch_results()
        except StorageError as error:
            return self._commit(attempt, self._failed(attempt, "STORAGE", str(error)))
        stop = threading.Event()
        beats = threading.Thread(target=self._beat, args=(attempt, stop), daemon=True)
        beats.start()
        code = self._work(attempt)
        stop.set()
        beats.join()
        record = read_json(self._folder.record(self._stage, self._index, attempt))
        if record is None:
            text = f"the worker ended with code {code} and left no record"
            record = self._failed(attempt, "LOST", text)
        return self._commit(attempt, record)

    def terminated(self) -> None:
        """Answer a SIGTERM: cancelled by somebody, or the machine is taken away."""
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        self._ending = True
        try:
            wish = self._store.read(f"submissions/{self._number:04d}.cancelled.json")
        except StorageError:
            wish = None
        if wish is not None:
            write_json(self._folder.cancelled(self._number), json.loads(wish))
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)

    def _manifest(self) -> dict[str, Any]:
        return self._read(self._folder.manifest)

    def _read(self, path: Path) -> dict[str, Any]:
        content = read_json(path)
        if content is None:
            raise StorageError(f"{self._address}: the payload has no {path.name}")
        return content

    def _records(self, stage: str, index: int | None = None) -> list[dict[str, Any]]:
        prefix = f"tasks/{stage}/" + ("" if index is None else f"{index}.")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            contents = pool.map(self._store.read, self._store.list(prefix))
            return [json.loads(content) for content in contents if content is not None]

    def _claim(self) -> int | None:
        """Return the number of our attempt, claimed; None where the task has ended."""
        while True:
            records = {
                record["attempt"]: record for record in self._records(self._stage, self._index)
            }
            ends = [one for one in records.values() if one["submission"] >= self._number]
            self._succeeded = any(commit.succeeded(one, self._since) for one in records.values())
            # Its machine may have been taken away between the record and its end.
            if self._succeeded or any(one.get("reason") not in _AGAIN for one in ends):
                return None
            taken = set(records) | self._known()
            for name in self._store.list(f"claims/{self._stage}/{self._index}."):
                attempt = int(name.rsplit(".", 2)[1])
                taken.add(attempt)
                if attempt not in records:
                    self._settle(attempt, name)
            number = max(taken, default=0) + 1
            claim = json.dumps({"job": self._job, "host": os.uname().nodename}).encode()
            if any(attempt not in records for attempt in taken - self._known()):
                continue  # what was settled may have succeeded
            if self._store.put_new(f"claims/{self._stage}/{self._index}.{number}.json", claim):
                return number

    def _known(self) -> set[int]:
        """Return the attempts whose records came with the payload: those of other backends."""
        names = map(parse_name, os.listdir(self._folder.path / "tasks" / self._stage))  # noqa: PTH208
        return {name[1] for name in names if name is not None and name[0] == self._index}

    def _settle(self, attempt: int, claim: str) -> None:
        """See to it that an earlier attempt has its record, and waits for one that lives."""
        mine = json.loads(self._store.read(claim) or b"{}").get("job") == self._job
        name = f"{self._stage}/{self._index}.{attempt}.json"
        before, since = b"", time.monotonic()
        while not mine and time.monotonic() - since < _SILENT:
            if self._store.read(f"tasks/{name}") is not None:
                return
            beat = self._store.read(f"running/{name}") or b""
            if beat != before:
                before, since = beat, time.monotonic()
            time.sleep(1.0)
        # Batch starts the same job again only where its machine was taken away.
        reason, text = (
            ("SPOT_RECLAIM", "its machine was taken away") if mine else ("LOST", "it is silent")
        )
        content = json.dumps(self._failed(attempt, reason, text)).encode()
        self._store.put_new(f"tasks/{name}", content)
        self._store.delete(f"running/{name}")

    def _fetch_results(self) -> None:
        """Fetch results that the task may need: of stages before it, and its own partial one."""
        info = next(one for one in self._manifest()["stages"] if one["name"] == self._stage)
        for stage in info["depends_on"]:
            self._fetch(self._records(stage))
        mine = self._records(self._stage, self._index)
        self._fetch(mine)
        for record in mine:  # the worker looks for units that failed before
            write_json(self._folder.record(self._stage, self._index, record["attempt"]), record)

    def _fetch(self, records: Iterable[dict[str, Any]]) -> None:
        """Fetch the newest result of each task that has one, be it a partial one."""
        last: dict[int, dict[str, Any]] = {}
        for record in records:
            before = last.get(record["index"])
            if record.get("result") and (before is None or _age(record) > _age(before)):
                last[record["index"]] = record
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._fetch_result, last.values()))

    def _fetch_result(self, record: dict[str, Any]) -> None:
        target = self._folder.path / record["result"]
        target.mkdir(parents=True, exist_ok=True)
        if record.get("outputs"):
            copy(f"{self._address}{record['outputs']}", f"{target}/")

    def _work(self, attempt: int) -> int:
        self._child = subprocess.Popen(
            [
                *(sys.executable, str(self._folder.path / "worker")),
                *(self._stage, str(self._index), "--attempt", str(attempt)),
                *("--submission", str(self._number), "--on-term", "SPOT_RECLAIM"),
            ],
            start_new_session=True,
            preexec_fn=process_tree.die_with_parent,
        )
        if self._ending:
            self._child.send_signal(signal.SIGTERM)
        return self._child.wait()

    def _beat(self, attempt: int, stop: threading.Event) -> None:
        place = self._folder.running(self._stage, self._index, attempt)
        sent = 0.0
        while not stop.wait(0.2):
            if time.monotonic() - sent < _BEAT and sent:
                continue
            beat = read_json(place)
            if beat is not None:
                content = json.dumps({**beat, "sent": time.time()}).encode()
                try:
                    self._store.put(f"running/{self._stage}/{self._index}.{attempt}.json", content)
                except StorageError as error:
                    print(f"labkit: no heartbeat: {error}", file=sys.stderr)
                sent = time.monotonic()

    def _failed(self, attempt: int, reason: str, text: str) -> dict[str, Any]:
        now = round(time.time(), 3)
        return {
            "stage": self._stage,
            "index": self._index,
            "key": self._folder.task(self._stage, self._index)["key"],
            "attempt": attempt,
            "submission": self._number,
            "state": "FAILED",
            "reason": reason,
            "text": text,
            "host": os.uname().nodename,
            "ended": now,
            "by": "worker",
        }

    def _commit(self, attempt: int, record: dict[str, Any]) -> bool:
        """Store what the record names, then the record; return whether the task has succeeded."""
        name = f"{self._stage}/{self._index}.{attempt}"
        log = self._folder.log(self._stage, self._index, attempt)
        if log.is_file():
            self._store.store(log, f"logs/{name}.log")
        result = record.get("result")
        if result and any((self._folder.path / result).rglob("*")):
            outputs = f"outputs/{name}/"
            copy(f"{self._folder.path / result}/", f"{self._address}{outputs}")
            record = {**record, "outputs": outputs}
        mine = self._store.put_new(f"tasks/{name}.json", json.dumps(record).encode())
        self._store.delete(f"running/{name}.json")
        if not mine:
            print(f"labkit: {name} was given up as lost meanwhile", file=sys.stderr)
        return mine and record["state"] == "SUCCEEDED"


def _age(record: dict[str, Any]) -> tuple[int, int]:
    return record.get("submission", 0), record["attempt"]


def main(place: str) -> int:
    """Run the task that the environment names; return the exit code.

    Parameters
    ----------
    place : str
        Where the payload was unpacked.
    """
    stage, start = os.environ["LABKIT_STAGE"], int(os.environ["LABKIT_START"])
    element = int(os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "0"))
    layout = json.loads((Path(place) / "tasks.json").read_text(encoding="utf-8"))
    address = parse(os.environ["LABKIT_RUN_ADDRESS"])
    if not isinstance(address, ObjectAddress):
        raise StorageError(f"{address} is no address in S3")
    node = Node(
        Path(place),
        address,
        stage,
        layout["submission"],
        layout["stages"][stage][start + element],
        os.environ["AWS_BATCH_JOB_ID"],
    )
    signal.signal(signal.SIGTERM, lambda *_: node.terminated())
    succeeded = node.run()
    # A stage that tolerates failures waits for the end of those before it, however they ended.
    return 0 if succeeded or os.environ.get("LABKIT_TOLERATED") == "1" else 1
