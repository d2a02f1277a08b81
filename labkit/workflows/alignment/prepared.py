"""What an alignment job was asked for, and what was read of it before the submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.base.problems import Problem
from labkit.jobs.model import Container
from labkit.workflows.alignment.checks import File
from labkit.workflows.alignment.pairing import Pairing
from labkit.workflows.alignment.reference import Reference
from labkit.workflows.alignment.samplesheet import Sample
from labkit.workflows.alignment.task_code.regions import Region


@dataclass
class Prepared:
    """What was asked for and read, once for check, plan and submit.

    Attributes
    ----------
    reference : Reference
        To align to.
    options : mapping
        As given: ``quality``, ``uq``, ``format``, ...
    known_sites : sequence of str
        VCF files.
    environment : str or Container
        That has the programs.
    name : str or None
        Of the job, as given.
    problems : list of Problem
        Everything that is wrong.
    samples : list of Sample
        Of the sheet.
    files : dict of str to File
        What is known of each FASTQ.
    pairings : dict of str to Pairing
        How the mates of each lane lie, by its first file.
    contigs : dict of str to int
        Of the reference: name to length in bases.
    alt : bytes
        Content of the ``.alt`` file beside the reference, where the aligner reads one.
    regions : dict of str to list of Region
        ``targets`` and ``baits``, of those that are given.
    adapters : list of (str, str)
        As sequences.
    aligner, preset, library : str
        As chosen: ``library`` is ``paired``, ``single`` or ``long``.
    """

    reference: Reference
    options: Mapping[str, Any]
    known_sites: Sequence[str]
    environment: str | Container
    name: str | None
    problems: list[Problem] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    pairings: dict[str, Pairing] = field(default_factory=dict)
    contigs: dict[str, int] = field(default_factory=dict)
    alt: bytes = b""
    regions: dict[str, list[Region]] = field(default_factory=dict)
    adapters: list[tuple[str, str]] = field(default_factory=list)
    aligner: str = ""
    preset: str = ""
    library: str = ""
