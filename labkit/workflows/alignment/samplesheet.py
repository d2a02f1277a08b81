"""The sample sheet: one row per lane of a sample."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem, unknown_name
from labkit.workflows import sample_table
from labkit.workflows.alignment.folder import read_folder
from labkit.workflows.alignment.task_code import objects

REQUIRED = ("sample", "fastq_1")
OPTIONAL = (
    *("lane", "fastq_2", "fastq_umi", "library", "platform", "platform_unit", "center", "date"),
    *("patient", "sex", "status"),
)
#: What nf-core/sarek asks of each sample, kept for :meth:`AlignmentJob.to_sarek`.
SAREK = {"patient": r"\S+", "sex": "XX|XY|NA", "status": "0|1"}
COLUMNS = (*REQUIRED, *OPTIONAL)
#: Values of @RG PL (SAM specification, 1.3).
PLATFORMS = (
    *("CAPILLARY", "DNBSEQ", "ELEMENT", "HELICOS", "ILLUMINA", "IONTORRENT", "LS454"),
    *("ONT", "PACBIO", "SINGULAR", "SOLID", "ULTIMA"),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# Of a read group's fields: what aligners, samtools and picard carry unchanged.
_FIELD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+=,@#()-]{0,119}")
_ILLUMINA = re.compile(rb"[^:]+:[^:]+:([A-Za-z0-9-]+):(\d+):\d+:\d+:\d+")


@dataclass(frozen=True)
class Lane:
    """One row of the sheet.

    Attributes
    ----------
    row : int
        Number of the row, from 1.
    sample, lane : str
        Names.
    fastq_1, fastq_2 : str
        Absolute paths or ``s3://``; ``fastq_2`` is empty for single-end and long reads.
    library, platform, platform_unit, center, date : str
        The read group's LB, PL, PU, CN and DT; empty where the sheet does not say.
    fastq_umi : str
        FASTQ of the UMIs, one for each read or pair; empty where there is none.
    patient, sex, status : str
        Whose the sample is, for nf-core/sarek; empty where the sheet does not say.
    """

    row: int
    sample: str
    lane: str
    fastq_1: str
    fastq_2: str = ""
    library: str = ""
    platform: str = ""
    platform_unit: str = ""
    center: str = ""
    date: str = ""
    fastq_umi: str = ""
    patient: str = ""
    sex: str = ""
    status: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Its FASTQ files, one or two."""
        return tuple(filter(None, (self.fastq_1, self.fastq_2)))

    def read_group(self, first_read: bytes, platform: str) -> dict[str, str]:
        """Return the complete read group: ID, SM, LB, PL and PU always.

        Parameters
        ----------
        first_read : bytes
            Name of a read: Illumina's tells flow cell and lane, for PU.
        platform : str
            PL where the sheet does not say.
        """
        unit = self.platform_unit
        if not unit:
            known = _ILLUMINA.match(first_read)
            unit = f"{known[1].decode()}.{known[2].decode()}" if known else ""
        group = {
            "ID": f"{self.sample}.{self.lane}",
            "SM": self.sample,
            "LB": self.library or self.sample,
            "PL": self.platform or platform,
            "PU": unit or f"{self.sample}.{self.lane}",
        }
        return group | {k: v for k, v in (("CN", self.center), ("DT", self.date)) if v}


@dataclass(frozen=True)
class Sample:
    """A sample with its lanes, in the order of the sheet."""

    name: str
    lanes: tuple[Lane, ...]

    @property
    def for_sarek(self) -> dict[str, str]:
        """``patient``, ``sex`` and ``status``, as far as the sheet says them."""
        said = {name: {getattr(lane, name) for lane in self.lanes} - {""} for name in SAREK}
        return {name: min(values) for name, values in said.items() if values}


def read_sheet(sheet: Any) -> tuple[list[Sample], list[Problem]]:
    """Read a sample sheet and return everything that is wrong with it.

    Parameters
    ----------
    sheet : path of a CSV or TSV, or of a folder of FASTQ files, DataFrame, or list of dict
        Columns ``sample`` and ``fastq_1``, and what is known of ``lane``, ``fastq_2``,
        ``library``, ``platform``, ``platform_unit``, ``center`` and ``date``, ``fastq_umi``,
        ``patient``, ``sex`` and ``status``. Relative paths count from the file's folder, else from
        here. Of a folder see :func:`labkit.workflows.alignment.folder.read_folder`.
    """
    table: list[dict[str, Any]]
    folder: Path | None = None
    if isinstance(sheet, str | os.PathLike) and (place := Path(sheet).expanduser()).is_dir():
        rows, found = read_folder(place.absolute())
        table = [dict(row) for row in rows]
    else:
        table, folder, found = sample_table.read(sheet)
    problems = [replace(p, where=p.where.replace("over", "samples")) for p in found]
    if not table:
        if not problems:
            problems.append(Problem("samples", "the sample sheet has no rows."))
        return [], problems
    problems += _check_columns(table[0])
    if any(not problem.warning for problem in problems):
        return [], problems
    lanes = []
    for number, row in enumerate(table, start=1):
        lane, wrong = _lane(number, {k: str(v).strip() for k, v in row.items()}, folder)
        problems += wrong
        lanes.append(lane)
    lanes, unnamed = _name_lanes(lanes)
    problems += unnamed + _check_doubles(lanes)
    samples: dict[str, list[Lane]] = {}
    for lane in lanes:
        samples.setdefault(lane.sample, []).append(lane)
    problems += _check_sarek(samples)
    return [Sample(name, tuple(members)) for name, members in samples.items()], problems


def _check_sarek(samples: Mapping[str, list[Lane]]) -> list[Problem]:
    """Return samples, and patients, of which the sheet says two things."""
    problems = []
    sexes: dict[str, str] = {}
    for sample, lanes in samples.items():
        for name in SAREK:
            values = sorted({getattr(lane, name) for lane in lanes} - {""})
            if len(values) > 1:
                text = f"{name} is {' and '.join(values)}."
                problems.append(Problem(f"sample {sample}", text, "Say one in all its rows."))
        patient, sex = (next(filter(None, (getattr(lane, n) for lane in lanes)), "")
                        for n in ("patient", "sex"))  # fmt: skip
        if sex and sexes.setdefault(patient or sample, sex) != sex:
            text = f"sex is {sex}, and {sexes[patient or sample]} in another of its samples."
            problems.append(Problem(f"patient {patient or sample}", text))
    return problems


def _check_columns(row: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem("samples", f"has no column {name!r}.", f"Columns: {', '.join(COLUMNS)}.")
        for name in REQUIRED
        if name not in row
    ]
    for name in row:
        if name not in COLUMNS:
            problem = unknown_name("column of a sample sheet", name, COLUMNS)
            text = f"{problem.text} It is not used."
            problems.append(replace(problem, where=f"samples, {name}", text=text, warning=True))
    return problems


def _lane(number: int, row: dict[str, str], folder: Path | None) -> tuple[Lane, list[Problem]]:
    where = f"row {number}"
    problems = [Problem(f"{where}, {name}", "is empty.") for name in REQUIRED if not row.get(name)]
    for name in ("sample", "lane"):
        value = row.get(name, "")
        if value and not _NAME.fullmatch(value):
            hint = "Use letters, digits, '.', '_' and '-'; begin with a letter or digit."
            problems.append(Problem(f"{where}, {name}", f"{value!r} cannot be a name.", hint))
    for name in ("library", "platform_unit", "center"):
        value = row.get(name, "")
        if value and not _FIELD.fullmatch(value):
            text = f"{value!r} cannot stand in a read group."
            problems.append(Problem(f"{where}, {name}", text, "Use plain letters and digits."))
    platform = row.get("platform", "").upper()
    if platform and platform not in PLATFORMS:
        problem = unknown_name("platform", platform, PLATFORMS)
        problems.append(replace(problem, where=f"{where}, platform {platform}"))
    if day := row.get("date", ""):
        try:
            date.fromisoformat(day)
        except ValueError:
            problems.append(Problem(f"{where}, date", f"{day!r} is no date.", "Write 2026-11-21."))
    for name, pattern in SAREK.items():
        value = row.get(name, "")
        if value and not re.fullmatch(pattern, value):
            text = "holds spaces." if name == "patient" else f"is {pattern.replace('|', ', ')}."
            problems.append(Problem(f"{where}, {name}", f"{value!r}: it {text}"))
    files = {}
    for name in ("fastq_1", "fastq_2", "fastq_umi"):
        files[name], text = _place(row.get(name, ""), folder)
        if text:
            problems.append(Problem(f"{where}, {name}", text))
    given = {name: row.get(name, "") for name in OPTIONAL if name not in (*files, "platform")}
    return Lane(number, row.get("sample", ""), platform=platform, **files, **given), problems


def _place(path: str, folder: Path | None) -> tuple[str, str]:
    if not path or path.startswith("s3://"):
        return path, ""
    if text := objects.address_problem(path):
        return path, f"{text}."
    if any(ord(char) < 32 for char in path):
        return path, "holds a control character."
    place = Path(path).expanduser()
    return os.path.normpath((folder or Path.cwd()).absolute() / place), ""


def _name_lanes(lanes: list[Lane]) -> tuple[list[Lane], list[Problem]]:
    """Name the lane of samples that have one row; the others must say."""
    counts: dict[str, int] = {}
    for lane in lanes:
        counts[lane.sample] = counts.get(lane.sample, 0) + 1
    problems = [
        Problem(f"row {lane.row}, lane", "is empty, and its sample has several rows.")
        for lane in lanes
        if not lane.lane and counts[lane.sample] > 1
    ]
    return [lane if lane.lane else replace(lane, lane="L1") for lane in lanes], problems


def _check_doubles(lanes: Iterable[Lane]) -> list[Problem]:
    problems = []
    seen: dict[tuple[str, str], int] = {}
    used: dict[str, str] = {}
    for lane in lanes:
        key = (lane.sample, lane.lane)
        if key in seen and all(key):
            text = f"sample {lane.sample}, lane {lane.lane} stands in row {seen[key]} already."
            problems.append(Problem(f"row {lane.row}", text))
        seen.setdefault(key, lane.row)
        for name in ("fastq_1", "fastq_2", "fastq_umi"):
            path = getattr(lane, name)
            where = f"row {lane.row}, {name}"
            if path and path in used:
                text = f"{path} is given twice: it is {used[path]} as well."
                problems.append(Problem(where, text))
            used.setdefault(path, where)
    return problems
