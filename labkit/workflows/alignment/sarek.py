"""Hand alignments on to nf-core/sarek: its sample sheet, checked as its own schema does.

Columns and patterns are those of sarek's ``assets/schema_input.json`` (3.9), the steps those of
its documentation (https://nf-co.re/sarek/usage).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from labkit.base.problems import Problem, refuse

_NAME = re.compile(r"\S+")
_SEXES = ("XX", "XY", "NA")


@dataclass(frozen=True)
class SarekSheet:
    """A sample sheet that was written.

    Attributes
    ----------
    path : Path
        The CSV file.
    step : str
        Where sarek begins with it: ``markduplicates``, ``prepare_recalibration`` or
        ``variant_calling``.
    notes : tuple of str
        What else sarek needs.
    """

    path: Path
    step: str
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """How sarek is called; what to call with, and the genome, are yours to choose."""
        return (
            f"nextflow run nf-core/sarek --input {self.path} --step {self.step} "
            "--outdir results --genome <genome> --tools <callers> -profile <profile>"
        )

    def __repr__(self) -> str:
        first = f"SarekSheet({str(self.path)!r}, step={self.step!r})"
        return "\n".join((first, self.command, *self.notes))


class SheetWords(NamedTuple):
    """What a job's own sample sheet says for sarek; see :meth:`AlignmentJob.to_sarek`."""

    patient: dict[str, str]
    sex: dict[str, str]
    status: dict[str, int]


def sheet_words(
    sheet: Iterable[Mapping[str, Any]], samples: Iterable[str], patient: Mapping[str, str]
) -> SheetWords:
    """Return what a job's sample sheet says of some of its samples.

    Parameters
    ----------
    sheet : iterable of mapping
        ``samples.json`` of the job.
    samples : iterable of str
        Those that are wanted.
    patient : mapping of str to str
        Sample -> patient, where it is said otherwise than in the sheet.
    """
    wanted = set(samples)
    words = SheetWords({}, {}, {})
    for entry in sheet:
        name, said = entry["sample"], entry.get("sarek", {})
        if name not in wanted:
            continue
        if "patient" in said:
            words.patient[name] = said["patient"]
        if "sex" in said:
            words.sex[patient.get(name, words.patient.get(name, name))] = said["sex"]
        if "status" in said:
            words.status[name] = int(said["status"])
    return words


def write_sheet(
    bams: pd.DataFrame,
    path: str | Path,
    patient: Mapping[str, str] | None,
    sex: Mapping[str, str] | None,
    status: Mapping[str, int] | None,
) -> SarekSheet:
    """Write the sheet of alignments; see :meth:`AlignmentJob.to_sarek`.

    Parameters
    ----------
    bams : DataFrame
        ``job.results("bams")``.

    Raises
    ------
    RefusedError
        With all that sarek would not take.
    """
    patient, sex, status = dict(patient or {}), dict(sex or {}), dict(status or {})
    samples = list(bams["sample"])
    patients = {sample: patient.get(sample, sample) for sample in samples}
    problems = _check(bams, patients, sex, status)
    problems += _unknown("patient", patient, samples) + _unknown("status", status, samples)
    problems += _unknown("sex", sex, patients.values())
    target = Path(path).expanduser().absolute()
    if not re.fullmatch(r"\S+\.csv", str(target)):
        problems.append(
            Problem(str(target), "sarek takes a path without spaces that ends in .csv.")
        )
    refuse(problems)
    rows = []
    for bam in bams.to_dict("records"):
        sample, kind = bam["sample"], bam["format"]
        rows.append(
            {
                "patient": patients[sample],
                "sex": sex.get(patients[sample], "NA"),
                "status": status.get(sample, 0),
                "sample": sample,
                kind: bam["path"],
                {"bam": "bai", "cram": "crai"}[kind]: bam["index"],
            }
        )
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return SarekSheet(target, _step(bams), _notes(samples, patients, status))


def _notes(
    samples: list[str], patients: Mapping[str, str], status: Mapping[str, int]
) -> tuple[str, ...]:
    """Tell of Mutect2: sarek names it the normal sample as <patient>_<sample>."""
    tumors = {patients[sample] for sample in samples if status.get(sample) == 1}
    return tuple(
        f"For Mutect2 the read group of {sample} must say SM:{patients[sample]}_{sample}; "
        f"here it says SM:{sample}. samtools addreplacerg changes it."
        for sample in samples
        if patients[sample] in tumors and not status.get(sample)
    )


def _step(bams: pd.DataFrame) -> str:
    """Return the first step that was not done to all of the alignments."""
    if not bams["duplicates_marked"].all():
        return "markduplicates"
    return "variant_calling" if bams["recalibrated"].all() else "prepare_recalibration"


def _check(
    bams: pd.DataFrame,
    patients: Mapping[str, str],
    sex: Mapping[str, str],
    status: Mapping[str, int],
) -> list[Problem]:
    problems = []
    if bams.empty:
        problems.append(Problem("job", "it has no alignment to hand on."))
    if bams["format"].nunique() > 1:
        problems.append(Problem("format", "sarek takes BAM or CRAM, not both in one sheet."))
    for bam in bams.to_dict("records"):
        sample = bam["sample"]
        for name, value in (("sample", sample), ("patient", patients[sample])):
            if not _NAME.fullmatch(str(value)):
                problems.append(Problem(f"{name} {value!r}", "sarek takes no spaces in names."))
        for column, suffixes in (("path", (".bam", ".cram")), ("index", (".bai", ".crai"))):
            file = str(bam[column])
            if not _NAME.fullmatch(file):
                hint = "Submit with output= a folder without spaces."
                problems.append(Problem(file, "sarek takes no spaces in paths.", hint))
            elif not file.endswith(suffixes):
                hint = "Submit the alignment with format='cram'."
                problems.append(Problem(file, f"sarek reads {' and '.join(suffixes)}.", hint))
            elif not Path(file).is_file():
                problems.append(Problem(file, "is not there any more."))
    for name, value in sex.items():
        if value not in _SEXES:
            problems.append(Problem(f"sex of {name}", f"is one of {', '.join(_SEXES)}."))
    for name, number in status.items():
        if isinstance(number, bool) or number not in (0, 1):
            problems.append(Problem(f"status of {name}", "is 0 (normal) or 1 (tumor)."))
    return problems


def _unknown(what: str, given: Mapping[str, object], known: Iterable[str]) -> list[Problem]:
    names = set(known)
    return [
        Problem(f"{what} of {name}", "there is no such sample or patient in the job.")
        for name in given
        if name not in names
    ]
