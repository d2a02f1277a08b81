"""Plates that arrive in a folder or S3 prefix: each starts a job when it is complete.

A plate is a folder with a file ``manifest.csv`` (columns ``file``, ``size`` in bytes): it is
complete when all files that this names are there in that size. The manifest may come first or last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

from labkit import storage
from labkit.base import files
from labkit.base.problems import LabkitError, Problem, RefusedError
from labkit.jobs import jobfile
from labkit.storage.address import parse
from labkit.storage.errors import StorageError

_log = logging.getLogger("intake")
_MANIFEST = "manifest.csv"
_LARGEST = 64 << 20  # bytes of a manifest
_LOCK_TIMEOUT = 600.0


class Plates:
    """A folder that plates arrive in.

    Parameters
    ----------
    place : str
        A folder, or ``s3://bucket/prefix``.
    job_file : str
        The job file that each plate starts; ``{plate}`` in its texts is the plate's address.
    folder : Path
        Where it is noted which plates were started.

    Raises
    ------
    RefusedError
        The job file names no ``{plate}``, or cannot be read.
    """

    def __init__(self, place: str, job_file: str, folder: Path) -> None:
        self._place = f"{place.rstrip('/')}/"
        parse(self._place)
        try:
            self._template = jobfile.read(job_file)
        except LabkitError as error:
            raise RefusedError([Problem(job_file, str(error))]) from error
        if "{plate}" not in json.dumps(self._template):
            raise RefusedError([Problem(job_file, "names no {plate}: every plate would be one.")])
        self._notes = folder / "plates"
        self._notes.mkdir(parents=True, exist_ok=True, mode=0o700)

    def watch(self, stop: threading.Event, every: float) -> None:
        """Look again and again until told to stop.

        Parameters
        ----------
        stop : threading.Event
            Set by another thread or a signal.
        every : float
            Seconds between two looks.
        """
        while not stop.is_set():
            try:
                self.look()
            except StorageError as error:
                _log.warning("later again: %s", error)
            stop.wait(every)

    def look(self) -> list[str]:
        """Start the job of each plate that has become complete; return their addresses.

        Raises
        ------
        StorageError
            The folder cannot be listed.
        """
        started = []
        for entry in storage.entries(self._place):
            if not entry.is_folder:
                continue
            try:
                manifest = storage.peek(f"{entry.address}{_MANIFEST}", _LARGEST)
            except storage.NotFoundError:
                continue
            note = self._notes / _note(entry.address, manifest)
            if note.exists():
                continue
            try:
                wanted = _wanted(manifest)
                if not _is_complete(entry.address, wanted):
                    continue
                if self._start(entry.address, note):
                    started.append(entry.address)
            except RefusedError as error:
                problems = [str(problem) for problem in error.problems]
                files.write_atomic(note, json.dumps({"problems": problems}).encode(), sync=True)
                _log.error("%s is refused: %s", entry.address, error)
            except LabkitError as error:
                _log.warning("%s: later again: %s", entry.address, error)
        return started

    def _start(self, plate: str, note: Path) -> bool:
        with files.locked(note.with_suffix(".lock"), _LOCK_TIMEOUT, "the plate"):
            if note.exists():
                return False
            job = jobfile.parse(_filled(self._template, plate)).submit()
            told = {"plate": plate, "run": str(job.path)}
            files.write_atomic(note, json.dumps(told).encode(), sync=True)
            _log.info("%s: %s", plate, job.path)
            return True


def _note(plate: str, manifest: bytes) -> str:
    """Return the note's name: a manifest that was changed makes the plate new."""
    digest = hashlib.sha256(plate.encode() + b"\0" + manifest).hexdigest()
    return f"{digest[:32]}.json"


def _wanted(manifest: bytes) -> dict[str, int]:
    try:
        rows = list(csv.DictReader(io.StringIO(manifest.decode("utf-8-sig"))))
        wanted = {row["file"]: int(row["size"]) for row in rows}
    except (UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        text = f"needs the columns file and size (bytes): {error!r}."
        raise RefusedError([Problem(_MANIFEST, text)]) from error
    if not wanted:
        raise RefusedError([Problem(_MANIFEST, "names no file.")])
    return wanted


def _is_complete(plate: str, wanted: dict[str, int]) -> bool:
    sizes = {
        entry.address.removeprefix(plate): entry.size for entry in storage.entries(plate, deep=True)
    }
    return all(sizes.get(name) == size for name, size in wanted.items())


def _filled(data: Any, plate: str) -> Any:
    if isinstance(data, str):
        return data.replace("{plate}", plate)
    if isinstance(data, list):
        return [_filled(item, plate) for item in data]
    if isinstance(data, dict):
        return {key: _filled(value, plate) for key, value in data.items()}
    return data
