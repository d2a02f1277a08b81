"""Requests written for other queues: Cell Painting Batch's messages, Distributed-CellProfiler's."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import storage
from labkit.base.problems import Problem, RefusedError, refuse, unknown_name
from labkit.base.units import MB
from labkit.jobs.job import Job
from labkit.storage.address import ObjectAddress
from labkit.storage.errors import AddressError
from labkit.workflows.cellprofiler.loaddata import channels_of, complete
from labkit.workflows.cellprofiler.remote import to_path
from labkit.workflows.cellprofiler.sources import read_table
from labkit.workflows.cellprofiler.workflow import CellProfiler

_FIELDS = ("pipeline", "input", "output", "job_memory", "job_vcpu", "job_definition", "job_queue")
_WHOLE = 10**9  # image sets: all in one task
_MOST = 100  # requests of one message
_SHOWN = 5
#: Where Distributed-CellProfiler's machines have the bucket.
_MOUNTS = ("/home/ubuntu/bucket", "/root/bucket")


@dataclass(frozen=True)
class Request:
    """One run of a pipeline over images, with results for a place in S3.

    Attributes
    ----------
    pipeline : str
        Address of the ``.cppipe``.
    images : str or DataFrame
        Address of a folder, or a table in LoadData's format.
    output : str
        Address of the folder for the results.
    group_by : tuple of str
        Metadata whose image sets stay in one task.
    options : mapping
        Of the submit: ``cpu``, ``memory`` (bytes), ``batch_queue``.
    """

    pipeline: str
    images: str | pd.DataFrame = field(repr=False)
    output: str
    group_by: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def submit(self, backend: str | None = None, **options: Any) -> Job:
        """Submit it; the same request again finds the same job.

        Parameters
        ----------
        backend : str, optional
            ``"batch"``, ``"local"``, …; None: ``$LABKIT_BACKEND``, else local.
        options
            Of the submit; they go before the request's own.

        Raises
        ------
        RefusedError
            With all problems; nothing was started.
        StorageError
            S3 cannot be asked.
        """
        own = {
            k: v for k, v in self.options.items() if k in ("cpu", "memory") or backend == "batch"
        }
        with self._fetched() as file:
            return self._workflow(file).submit(backend, **{**own, **options})

    def check(self) -> list[Problem]:
        """Return what would keep it from running; nothing is started.

        Raises
        ------
        StorageError
            S3 cannot be asked.
        """
        try:
            with self._fetched() as file:
                problems = self._workflow(file).check()
        except RefusedError as error:
            problems = list(error.problems)
        return [problem for problem in problems if not problem.warning]

    @contextlib.contextmanager
    def _fetched(self) -> Iterator[Path]:
        """Have the pipeline as a file."""
        with tempfile.TemporaryDirectory(prefix="labkit-request-") as folder:
            file = Path(folder) / self.pipeline.rpartition("/")[2]
            try:
                storage.copy(self.pipeline, file)
            except storage.NotFoundError as error:
                raise RefusedError([Problem("pipeline", str(error))]) from error
            yield file

    def _workflow(self, file: Path) -> CellProfiler:
        """Return it in tasks; in one, as its own queue runs it, where it cannot be split."""
        split = CellProfiler(file, self.images, group_by=self.group_by)
        if not any(not problem.warning for problem in split.check()):
            return split
        whole = CellProfiler(file, self.images, group_by=self.group_by, chunk_size=_WHOLE)
        return split if any(not problem.warning for problem in whole.check()) else whole


def import_cpb(message: str | Mapping[str, Any] | Sequence[Any], bucket: str) -> list[Request]:
    """Read a message of Cell Painting Batch's queue.

    Parameters
    ----------
    message : str, mapping or sequence
        JSON, or what it holds: ``pipeline``, ``input`` and ``output`` as keys of the bucket;
        ``job_memory`` (MB), ``job_vcpu``, ``job_queue`` if wished. ``job_definition`` is taken no
        notice of: labkit has one of its own for each image.
    bucket : str
        The bucket; a message cannot name another.

    Returns
    -------
    list of Request

    Raises
    ------
    RefusedError
        With all problems of all its requests.

    Examples
    --------
    >>> for request in labkit.import_cpb(message, "our-lab"):  # doctest: +SKIP
    ...     request.submit("batch")
    """
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except ValueError as error:
            raise RefusedError([Problem("message", f"is no JSON: {error}.")]) from error
    items = [message] if isinstance(message, Mapping) else message
    if not isinstance(items, list | tuple) or not items:
        raise RefusedError([Problem("message", "must be one request, or a list of them.")])
    if len(items) > _MOST:
        raise RefusedError([Problem("message", f"has {len(items)} requests; at most {_MOST}.")])
    problems: list[Problem] = []
    requests = []
    for number, item in enumerate(items, start=1):
        where = f"request {number}, " if len(items) > 1 else ""
        if not isinstance(item, Mapping):
            problems.append(Problem(f"request {number}", "must hold names and values."))
            continue
        own: list[Problem] = []
        request = _cpb(item, bucket, own)
        problems += [Problem(where + p.where, p.text, p.hint) for p in own]
        requests += [request] if request is not None else []
    refuse(problems)
    return requests


def _cpb(item: Mapping[str, Any], bucket: str, problems: list[Problem]) -> Request | None:
    problems += [unknown_name("field", str(name), _FIELDS) for name in item if name not in _FIELDS]
    pipeline = _key(item, "pipeline", bucket, problems)
    images = _key(item, "input", bucket, problems)
    output = _key(item, "output", bucket, problems)
    if pipeline and not pipeline.endswith((".cppipe", ".json")):
        problems.append(Problem("pipeline", f"{pipeline} is no .cppipe or .json file."))
    options: dict[str, Any] = {}
    if (memory := _number(item, "job_memory", problems)) is not None:
        options["memory"] = int(memory * MB)
    if (cpu := _number(item, "job_vcpu", problems)) is not None:
        options["cpu"] = cpu
    if queue := item.get("job_queue"):
        options["batch_queue"] = queue
    if problems:
        return None
    return Request(pipeline, images.rstrip("/") + "/", output.rstrip("/") + "/", (), options)


def _key(item: Mapping[str, Any], name: str, bucket: str, problems: list[Problem]) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value.strip("/"):
        problems.append(Problem(name, "is missing: a key of the bucket."))
        return ""
    try:
        return str(ObjectAddress(bucket).child(value.removeprefix(f"s3://{bucket}/").lstrip("/")))
    except AddressError as error:
        problems.append(Problem(name, str(error)))
        return ""


def _number(item: Mapping[str, Any], name: str, problems: list[Problem]) -> float | None:
    value = item.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
        if isinstance(value, bool) or not 0 < number < 10**9:
            raise ValueError
    except (TypeError, ValueError):
        problems.append(Problem(name, f"must be a number above zero, not {value!r}."))
        return None
    return number


def import_dcp(job: str | Path | Mapping[str, Any], bucket: str) -> Request:
    """Read a job file of Distributed-CellProfiler.

    Its groups are compared with the LoadData CSV that it names: only they run, each in one task.

    Parameters
    ----------
    job : str, Path or mapping
        The job file (JSON), or what it holds: ``pipeline``, ``data_file``, ``output``, ``groups``.
    bucket : str
        The bucket whose keys it names.

    Raises
    ------
    RefusedError
        With all problems; groups that are not in the CSV are named, with what is nearly the same.
    """
    if not isinstance(job, Mapping):
        try:
            job = json.loads(Path(job).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RefusedError([Problem("job file", f"{error}.")]) from error
    if not isinstance(job, Mapping):
        raise RefusedError([Problem("job file", "must hold names and values.")])
    problems: list[Problem] = []
    keys = {name: _key(job, name, bucket, problems) for name in ("pipeline", "data_file", "output")}
    groups = _groups(job.get("groups"), problems)
    refuse(problems)
    table, _ = read_table(to_path(keys["data_file"]), "data_file")
    table = _from_bucket(table, bucket)
    chosen = _chosen(table, groups)
    names = tuple(name.removeprefix("Metadata_") for name in groups[0])
    output = keys["output"].rstrip("/") + "/"
    return Request(keys["pipeline"], complete(chosen), output, names)


def _groups(given: Any, problems: list[Problem]) -> list[dict[str, str]]:
    """Return the groups: ``{"Metadata": "Metadata_Plate=P1,Metadata_Well=A01"}`` or by name."""
    groups: list[dict[str, str]] = []
    if not isinstance(given, list | tuple) or not given:
        problems.append(Problem("groups", "are missing: a list of them."))
        return groups
    for number, item in enumerate(given, start=1):
        if isinstance(item, Mapping) and isinstance(item.get("Metadata"), str):
            pairs = [part.partition("=") for part in item["Metadata"].split(",")]
            group = {name.strip(): value.strip() for name, _, value in pairs if name.strip()}
        elif isinstance(item, Mapping):
            group = {str(name): str(value) for name, value in item.items()}
        else:
            group = {}
        if not group or (groups and list(group) != list(groups[0])):
            problems.append(
                Problem(f"group {number}", "must name the same metadata as the others.")
            )
            continue
        groups.append(group)
    return groups


def _from_bucket(table: pd.DataFrame, bucket: str) -> pd.DataFrame:
    """Return the table with the folders where machines had the bucket as addresses."""
    table = table.rename(columns=lambda name: str(name).removeprefix("Image_"))
    for name in channels_of(table):
        column = f"PathName_{name}"
        folders = table[column] if column in table else pd.Series("", index=table.index)
        for mount in _MOUNTS:
            folders = folders.str.replace(f"{mount}/", f"s3://{bucket}/", regex=False)
        table[column] = folders
    return table


def _chosen(table: pd.DataFrame, groups: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    names = list(groups[0])
    if unknown := [name for name in names if name not in table]:
        columns = [str(name) for name in table if str(name).startswith("Metadata_")]
        refuse([unknown_name("metadata of the CSV", name, columns) for name in unknown])
    there = list(zip(*(table[name] for name in names), strict=True))
    known = {", ".join(key) for key in there}
    wanted = [tuple(group[name] for name in names) for group in groups]
    missing = [", ".join(key) for key in wanted if key not in set(there)]
    problems = [unknown_name("group in the CSV", key, known) for key in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        problems.append(Problem("groups", f"{len(missing) - _SHOWN} more are not in the CSV."))
    refuse(problems)
    rows = [key in set(wanted) for key in there]
    return table[rows].reset_index(drop=True)
