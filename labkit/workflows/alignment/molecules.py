"""Where the UMIs of a lane are, and whether its first reads have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labkit.base.problems import Problem
from labkit.workflows.alignment.checks import File
from labkit.workflows.alignment.samplesheet import Lane, Sample
from labkit.workflows.alignment.task_code import fastq, objects, records, umis


def source(lane: Lane, option: str | None) -> str:
    """Return where a lane's UMIs are: ``"name"``, a file, or empty."""
    return lane.fastq_umi or option or ""


def check_umis(
    samples: Iterable[Sample], files: Mapping[str, File], option: str | None
) -> list[Problem]:
    """Return lanes whose first reads have no UMI where they should.

    Parameters
    ----------
    option : str or None
        ``umi`` of the workflow.
    """
    problems = []
    for sample in samples:
        where = {bool(source(lane, option)) for lane in sample.lanes}
        if len(where) > 1:
            text = "some lanes have UMIs and some have none."
            problems.append(Problem(f"sample {sample.name}", text, "Give them all, or none."))
    for lane in (lane for sample in samples for lane in sample.lanes):
        if lane.fastq_1 not in files:
            continue
        names = files[lane.fastq_1].head.names
        if lane.fastq_umi:
            problems += _check_file(lane, names)
        elif option == "name":
            problems += _check_names(lane, names)
    return problems


def _check_names(lane: Lane, names: Iterable[bytes]) -> list[Problem]:
    bare = next((name for name in names if not umis.of_name(name)), None)
    if bare is None:
        return []
    text = f"umi='name', and {records.show(bare)} does not end with a UMI (':ACGT' or '_ACGT')."
    hint = "UMIs in a file of their own are the sheet's column fastq_umi."
    return [Problem(f"row {lane.row}, fastq_1", text, hint)]


def _check_file(lane: Lane, names: list[bytes]) -> list[Problem]:
    where, path = f"row {lane.row}, fastq_umi", lane.fastq_umi
    try:
        if objects.address_problem(path):
            return []  # told with the sheet
        head = fastq.look(path)
    except fastq.FastqError as error:
        return [Problem(where, f"{path} {error}.")]
    except FileNotFoundError:
        return [Problem(where, f"there is no file {path}.")]
    except OSError as error:
        return [Problem(where, f"{path} cannot be read: {error}.")]
    if head.longest > umis.LONGEST:
        return [Problem(where, f"has reads of {head.longest} bases: these are no UMIs.")]
    mates = list(dict.fromkeys(names))  # in turn, each pair has one UMI
    for number, (name, other) in enumerate(zip(mates, head.names, strict=False), 1):
        if name != other:
            text = records.out_of_step(number, name, other, ("fastq_1", "fastq_umi"))
            return [Problem(where, f"{text}.", "Give the UMIs of this lane.")]
    return []
