"""What you and the nodes exchange by way of S3: the payload there, records and results back."""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from typing import Any

from labkit.base import files
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker.folder import parse_name, read_json, write_json
from labkit.storage import objects
from labkit.storage.address import ObjectAddress
from labkit.storage.copying import copy
from labkit.storage.errors import AddressError, NotFoundError
from labkit.storage.store import ObjectStore

_AT_ONCE = 8
_LOCK_TIMEOUT = 600.0  # seconds; results may be large
_BEATS_AGAIN = 32  # heartbeats that one look reads again
_ENDS = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
Attempt = tuple[str, int, int]  # stage, index, number
# What runs on a node, by package; all of its modules where none are named.
_NODE: Mapping[str, tuple[str, ...]] = {
    "labkit.storage": (),
    "labkit.jobs.worker": (),
    "labkit.base": (
        "cgroups.py",
        "files.py",
        "problems.py",
        "process_tree.py",
        "remote.py",
        "units.py",
    ),
    "labkit.jobs.backends.batch": ("node.py",),
}


class Exchange:
    """A run folder's other half, in S3.

    Parameters
    ----------
    run : Run
        The run folder here.
    address : ObjectAddress
        Its place in S3, ending with ``/``.

    Raises
    ------
    AddressError
        It does not.
    """

    def __init__(self, run: Run, address: ObjectAddress) -> None:
        if not address.is_folder or not address.key:
            raise AddressError(f"{address} is no place for one run.")  # forget() empties it
        self.run, self.address = run, address
        self._store = ObjectStore(address)
        self._keys: dict[str, list[str]] = {}

    def send(self, submission: Submission) -> tuple[str, str]:
        """Store the payload of a submission, and earlier results that it needs.

        Returns
        -------
        tuple of str
            Its address and the SHA-256 of its content.
        """
        names = {work.name for work in submission.stages}
        needed = {name for info in self.run.manifest.stages for name in info.depends_on}
        for stage in sorted(needed - names):
            self._send_results(stage)
        data = self._payload(submission)
        digest = hashlib.sha256(data).hexdigest()
        # By its digest: after a crash it is made again, and jobs that are there have the first.
        name = f"payload/{submission.number:04d}-{digest[:16]}.tar.gz"
        self._store.put(name, data)
        return f"{self.address}{name}", digest

    def _payload(self, submission: Submission) -> bytes:
        folder, buffer = self.run.folder, io.BytesIO()
        layout = {work.name: list(work.tasks) for work in submission.stages}
        tasks = {"submission": submission.number, "stages": layout}
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as payload:
            _add(payload, "tasks.json", json.dumps(tasks).encode())
            for name in ("manifest.json", "stages", "files", "worker", "drivers", "fetcher"):
                if (self.run.path / name).exists():
                    payload.add(self.run.path / name, f"run/{name}", filter=_plain)
            intent = folder.submission(submission.number)
            payload.add(intent, f"run/submissions/{intent.name}", filter=_plain)
            for stage, indices in layout.items():
                wanted = set(indices)
                for index, attempt in folder.attempts("tasks", stage):
                    if index in wanted:  # its number is taken
                        record = folder.record(stage, index, attempt)
                        payload.add(record, f"run/tasks/{stage}/{record.name}", filter=_plain)
            for package, modules in _NODE.items():
                for module in resources.files(package).iterdir():
                    if module.name in modules or (not modules and module.name.endswith(".py")):
                        place = f"node/{package.replace('.', '/')}/{module.name}"
                        _add(payload, place, module.read_bytes())
            for package in ("labkit", "labkit/jobs", "labkit/base", "labkit/jobs/backends"):
                _add(payload, f"node/{package}/__init__.py", b"")
            _add(payload, "node/labkit/jobs/backends/batch/__init__.py", b"")
        return buffer.getvalue()

    def _send_results(self, stage: str) -> None:
        """Store results that were made elsewhere, e.g. on this machine, and their records."""
        known = {name.rpartition("/")[2] for name in self._store.list(f"tasks/{stage}/")}
        for index, attempt in self.run.folder.attempts("tasks", stage):
            path = self.run.folder.record(stage, index, attempt)
            record = read_json(path)
            if path.name in known or not record or not record.get("result"):
                continue
            result = self.run.path / record["result"]
            if any(result.rglob("*")):
                record["outputs"] = f"outputs/{stage}/{index}.{attempt}/"
                copy(f"{result}/", f"{self.address}{record['outputs']}")
            self._store.put_new(f"tasks/{stage}/{path.name}", json.dumps(record).encode())

    def cancel(self, submissions: Iterable[Submission]) -> None:
        """Tell the nodes that what they run is cancelled."""
        wish = json.dumps({"by": getpass.getuser()}).encode()
        for submission in submissions:
            self._store.put(f"submissions/{submission.number:04d}.cancelled.json", wish)

    def receive(self) -> None:
        """Bring records that are new, with logs and results, and the heartbeats as they are.

        A record appears here when all that it names is here. One process brings at a time.

        Raises
        ------
        StorageError
            S3 cannot be asked.
        OSError
            The run folder cannot be written, or another process is at it for too long.
        """
        with files.locked(self.run.path / ".receiving", _LOCK_TIMEOUT, "what comes from S3"):
            beats = self._beats()
            ended = {
                (info.name, *name)
                for info in self.run.manifest.stages
                for name in self.run.folder.attempts("tasks", info.name)
            }
            new = (n for n in self._store.list("tasks/") if self._where(n) not in ended)
            records = self._read(new)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._take, records, records.values()))
            self._show(beats, ended | set(records))

    def _beats(self) -> dict[Attempt, dict[str, Any]]:
        """Return the heartbeats: those that are not known here, and of the others the oldest.

        Each costs a request, and thousands may beat: what is shown of one may be some looks old.
        """
        names = list(self._store.list("running/"))
        known: dict[str, tuple[float, dict[str, Any]]] = {}
        for name in names:
            if (where := self._where(name)) is None:
                continue
            place = self.run.folder.running(*where)
            if (beat := read_json(place)) is not None:
                known[name] = place.stat().st_mtime, beat
        again = sorted(known, key=lambda name: known[name][0])[:_BEATS_AGAIN]
        read = self._read([*(name for name in names if name not in known), *again])
        for name, (_, beat) in known.items():
            where = self._where(name)
            if where is not None and name not in again:
                read[where] = beat
        for name in again:  # also where it says the same: it was asked for now
            where = self._where(name)
            if where is not None:
                with suppress(FileNotFoundError):
                    os.utime(self.run.folder.running(*where))
        return read

    def forget(self) -> None:
        """Delete all that was exchanged for this run."""
        # By their keys: outputs have any names.
        start = f"s3://{self.address.bucket}/"
        keys = [entry.address.removeprefix(start) for entry in objects.pages(self.address)]
        objects.delete([ObjectAddress(self.address.bucket, key) for key in keys])

    def _where(self, name: str) -> Attempt | None:
        """Return the attempt of ``tasks/<stage>/<index>.<n>.json``; None of any other name."""
        _, stage, file = name.split("/", 2) if name.count("/") == 2 else ("", "", "")
        found = parse_name(file)
        info = next((one for one in self.run.manifest.stages if one.name == stage), None)
        if found is None or info is None or not 0 <= found[0] < info.tasks:
            return None
        return (stage, *found)

    def _read(self, names: Iterable[str]) -> dict[Attempt, dict[str, Any]]:
        """Return what is said of attempts, several read at once; what is broken says nothing."""
        wanted = {name: where for name in names if (where := self._where(name)) is not None}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            contents = dict(zip(wanted, pool.map(self._store.read, wanted), strict=True))
        told = {}
        for name, content in contents.items():
            try:
                data = json.loads(content or b"")
            except ValueError:
                continue
            if isinstance(data, dict) and isinstance(data.get("submission"), int):
                told[wanted[name]] = data
        return told

    def _take(self, where: Attempt, told: Mapping[str, Any]) -> None:
        """Bring one record with what it names.

        Whoever may write there, such as a job, says what it says of its own attempt; where things
        are put here, only the name that it has and our own task table say.
        """
        stage, index, attempt = where
        folder = self.run.folder
        record = {**told, "stage": stage, "index": index, "attempt": attempt}
        record["key"] = self._key(stage, index)
        record["state"] = str(record.get("state") if record.get("state") in _ENDS else "FAILED")
        with suppress(NotFoundError):  # it never started
            self._store.fetch(f"logs/{stage}/{index}.{attempt}.log", folder.log(*where))
        for name in ("result", "outputs"):
            record.pop(name, None)
        if told.get("result"):
            record["result"] = f"results/{stage}/{record['key']}"
            record["outputs"] = f"outputs/{stage}/{index}.{attempt}/"
            self._take_result(where, record, bool(told.get("outputs")))
        self.run.write_record(record)

    def _key(self, stage: str, index: int) -> str:
        if stage not in self._keys:
            self._keys[stage] = [task["key"] for task in self.run.folder.tasks(stage)]
        return self._keys[stage][index]

    def _take_result(self, where: Attempt, record: Mapping[str, Any], has_outputs: bool) -> None:
        place = self.run.folder.result(where[0], record["key"])
        coming = self.run.folder.attempt(*where)
        shutil.rmtree(coming, ignore_errors=True)  # half of an earlier try
        coming.mkdir(parents=True)
        if has_outputs:
            copy(f"{self.address}{record['outputs']}", f"{coming}/")
        if place.exists():
            number = 0
            while (aside := coming.with_name(f"{coming.name}.before{number or ''}")).exists():
                number += 1
            place.rename(aside)
        coming.rename(place)

    def _show(self, beats: Mapping[Attempt, Mapping[str, Any]], ended: set[Attempt]) -> None:
        """Put the heartbeats of attempts that run into their place, and take the others away."""
        folder = self.run.folder
        for info in self.run.manifest.stages:
            for name in folder.attempts("running", info.name):
                where = (info.name, *name)
                if where not in beats or where in ended:
                    folder.running(*where).unlink(missing_ok=True)
        for where, told in beats.items():
            beat = {**told, "stage": where[0], "index": where[1], "attempt": where[2]}
            if where not in ended and read_json(folder.running(*where)) != beat:
                write_json(folder.running(*where), beat)


def _add(payload: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    payload.addfile(info, io.BytesIO(content))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out whose it is, and compiled files."""
    if info.name.endswith(".pyc") or "__pycache__" in info.name:
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
