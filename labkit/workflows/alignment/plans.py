"""Make the plan of an alignment job: the reference, one task per sample, the gather."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.base.problems import refuse
from labkit.base.units import format_size
from labkit.jobs.backends import base as backends
from labkit.jobs.model import Environment, Resources, Stage, Task, literal, safe_key
from labkit.jobs.plan import Plan
from labkit.workflows.alignment import aligners, checks, molecules, pairing
from labkit.workflows.alignment.gather_stage import DRIVER, gather_stage
from labkit.workflows.alignment.prepared import Prepared
from labkit.workflows.alignment.samplesheet import Lane, Sample
from labkit.workflows.alignment.task_code import layout, objects, regions, sizes

#: Bases that an aligner takes at once. Fixed, so that neither cores nor backend change a result.
BATCH = 20_000_000
_CORES = 8
_WINDOWS = 10_000  # of a genome, about
_REGION_BYTES = 10  # per base of a target: its depth, and what is made of it at the end
_SMALL = 50_000_000  # bases of a genome whose depth is kept for each base


def make_plan(prepared: Prepared, backend: str) -> Plan:
    """Return the plan of a workflow whose check found nothing but warnings.

    Raises
    ------
    RefusedError
        This machine's scratch disk is too small for a sample.
    """
    settings = _settings(prepared)
    length = sum(prepared.contigs.values())
    limits = backends.get(backend).limits()
    cpu = float(max(1, min(_CORES, math.floor(limits.cpu))))
    tasks = [_task(prepared, i, sample) for i, sample in enumerate(prepared.samples)]
    largest = max(checks.read_bytes([sample], prepared.files) for sample in prepared.samples)
    scratch = sizes.scratch(largest, bool(prepared.known_sites))
    if backend == "local":
        place = Path(tempfile.gettempdir())
        refuse(checks.check_disk(place, scratch, "temporary files of the largest sample"))
    if backend == "slurm":
        scratch = 0  # most clusters do not say what disk their nodes have, and refuse --tmp
    memory = sizes.task_memory(prepared.aligner, length, cpu, largest)
    memory += sum(_REGION_BYTES * (end - start) for listed in prepared.regions.values()
                  for _, start, end in regions.merge(listed))  # fmt: skip
    environment = prepared.environment
    where = Environment(environment) if isinstance(environment, str) else environment
    align = Stage(
        layout.ALIGN_STAGE,
        tuple(tasks),
        Resources(cpu, memory, scratch=scratch),
        where,
        depends_on=(layout.REFERENCE_STAGE,),
        driver=DRIVER,
    )
    stages = [_reference_stage(prepared, length, where), align, gather_stage(where)]
    files: dict[str, str | bytes | Path] = {
        "alignment.json": json.dumps(settings),
        "samples.json": json.dumps([_describe(sample) for sample in prepared.samples]),
    }
    if prepared.alt:
        files[layout.ALT] = prepared.alt
    for kind, listed in prepared.regions.items():
        files[layout.REGIONS[kind]] = "".join(
            "\t".join(map(str, region)) + "\n" for region in listed
        )
    return Plan(
        name=safe_key(prepared.name or "alignment")[:60],
        tool=f"alignment {prepared.aligner}",
        stages=tuple(stages),
        parameters={
            "reference": _version(prepared.reference.fasta),
            "samples": len(prepared.samples),
            "lanes": sum(len(sample.lanes) for sample in prepared.samples),
            "aligner": prepared.aligner,
            "library": prepared.library,
        },
        files=files,
        notes=(_note(prepared, tasks, length),),
    )


def _settings(prepared: Prepared) -> dict[str, Any]:
    """Return what all tasks share."""
    options = prepared.options
    length = sum(prepared.contigs.values())
    marks = options["mark_duplicates"]
    depth = options["depth"]
    folder, store = prepared.reference.stores
    return {
        "reference": prepared.reference.fasta,
        "cache": folder,
        "remote": store,
        "aligner": prepared.aligner,
        "preset": prepared.preset,
        "library": prepared.library,
        "adapters": prepared.adapters,
        **aligners.filters(options, bool(prepared.adapters)),
        "mark_duplicates": prepared.library != "long" if marks is None else marks,
        "uq": options["uq"],
        "picard_metrics": options["picard_metrics"],
        "format": options["format"],
        "known_sites": prepared.known_sites,
        "batch": BATCH,
        "window": window_size(length),
        "depth": length <= _SMALL if depth is None else depth,
    }


def window_size(length: int) -> int:
    """Return the bases of a window: 1, 2 or 5 times a power of ten, about 10,000 windows."""
    wanted = max(100, length / _WINDOWS)
    power = 10 ** math.floor(math.log10(wanted))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= wanted))


def _reference_stage(prepared: Prepared, length: int, environment: Any) -> Stage:
    ready = prepared.reference.ready(prepared.aligner, prepared.preset)
    memory = 2**30 if ready else sizes.building_memory(prepared.aligner, length)
    fasta = prepared.reference.fasta
    task = Task(
        layout.REFERENCE_KEY,
        0,
        inputs=() if objects.is_object(fasta) else (literal(fasta),),
        outputs=("reference.json",),
        params={"program": "index"},
    )
    return Stage(
        layout.REFERENCE_STAGE,
        (task,),
        Resources(1.0, memory),
        environment,
        driver=DRIVER,
    )


def _task(prepared: Prepared, index: int, sample: Sample) -> Task:
    platform = aligners.PRESETS.get(prepared.preset, "ILLUMINA")
    heads = {lane.lane: prepared.files[lane.fastq_1].head for lane in sample.lanes}
    groups = {
        lane.lane: lane.read_group(heads[lane.lane].names[0], platform) for lane in sample.lanes
    }
    optical = prepared.options["optical_distance"]
    if optical is None:
        first = sample.lanes[0].lane
        optical = aligners.optical_distance(heads[first].names[0], groups[first]["PL"])
    paths = [path for lane in sample.lanes for path in lane.files]
    inputs = [*paths, *(lane.fastq_umi for lane in sample.lanes)]
    name = layout.alignment_name(sample.name, prepared.options["format"])
    return Task(
        sample.name,
        index,
        inputs=tuple(literal(path) for path in inputs if path and not objects.is_object(path)),
        outputs=(literal(name), layout.SAMPLE, layout.COMMANDS, layout.CHECKSUMS, layout.STATS),
        units=sum(prepared.files[path].reads for path in paths),
        params={
            "program": "align",
            "key": sample.name,
            "optical": optical,
            "longest": max(prepared.files[path].head.longest for path in paths),
            "sample": {
                "name": sample.name,
                "lanes": [_lane(prepared, lane, groups[lane.lane]) for lane in sample.lanes],
            },
            "row": {"sample": sample.name, "lanes": len(sample.lanes)},
        },
    )


def _lane(prepared: Prepared, lane: Lane, group: Mapping[str, str]) -> dict[str, Any]:
    # of objects the version belongs to the key; of files the manifest looks itself
    files = prepared.files
    way = pairing.of_lane(lane, prepared.pairings)
    umi = molecules.source(lane, prepared.options["umi"])
    rule = pairing.rule(lane, way, prepared.library == "long")
    versions = [files[path].version for path in lane.files if objects.is_object(path)]
    if objects.is_object(lane.fastq_umi):
        versions.append(objects.version(lane.fastq_umi))
    return {
        "lane": lane.lane,
        "fastq_1": lane.fastq_1,
        "fastq_2": lane.fastq_2,
        "interleaved": way.interleaved,
        "name_ends": [[end.decode() for end in ends] for ends in way.ends],
        "rule": rule._asdict(),
        "read_group": dict(group),
        "versions": versions,
        **({"umi": umi} if umi else {}),
    }


def _describe(sample: Sample) -> dict[str, Any]:
    named = {"sarek": said} if (said := sample.for_sarek) else {}
    return {"sample": sample.name, "lanes": [lane.lane for lane in sample.lanes], **named}


def _version(fasta: str) -> str:
    return objects.version(fasta) if objects.is_object(fasta) else fasta


def _note(prepared: Prepared, tasks: list[Task], length: int) -> str:
    reads = sum(task.units for task in tasks)
    needed = sizes.results(checks.read_bytes(prepared.samples, prepared.files))
    return (
        f"about {reads:,} reads of {len(tasks)} samples against {length:,} bases with "
        f"{prepared.aligner}; the results take about {format_size(needed)}"
    )
