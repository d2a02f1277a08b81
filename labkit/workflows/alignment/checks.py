"""Everything about reads, known sites and disks that can be known before anything is started."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.workflows.alignment import pairing
from labkit.workflows.alignment.samplesheet import Lane, Sample
from labkit.workflows.alignment.task_code import fastq, objects, records, sizes

_READERS = 16
_PROVED = 32 * 1024**2  # bytes of a file that is small enough to be read whole
_VARIANTS = 1000  # of a VCF that are looked at
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class File:
    """What is known of one FASTQ.

    Attributes
    ----------
    size : int
        Bytes.
    version : str
        Changes when the content does.
    head : Head
        Its first reads.
    packed : bool
        Whether it is compressed.
    """

    size: int
    version: str
    head: fastq.Head
    packed: bool

    @property
    def reads(self) -> int:
        """Reads in it, estimated from the first."""
        return max(1, round(self.size / self.head.bytes_per_read))


def look_at_files(samples: Iterable[Sample]) -> tuple[dict[str, File], list[Problem]]:
    """Look at the first reads of all files, and prove the small ones whole.

    Returns
    -------
    dict of str to File
        Those that are well.
    list of Problem
        With row and column of each that is not.
    """
    wanted = [
        (f"row {lane.row}, fastq_{mate}", path)
        for sample in samples
        for lane in sample.lanes
        for mate, path in enumerate(lane.files, start=1)
        if not objects.address_problem(path)  # told with the sheet
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        looks = list(readers.map(lambda item: _look(item[1]), wanted))
    files = {}
    problems = []
    for (where, path), result in zip(wanted, looks, strict=True):
        if isinstance(result, File):
            files[path] = result
        else:
            problems.append(Problem(where, result))
    return files, problems


def _look(path: str) -> File | str:
    """Return what is known of a file, or what is wrong with it."""
    try:
        if not objects.is_object(path) and Path(path).is_dir():
            return f"{path} is a folder."
        size = objects.size(path)
        head = fastq.look(path)
        wrong = fastq.end_problem(path)
        if wrong:
            return f"{path} {wrong}."
        with objects.open_bytes(path) as file:
            packed = file.read(2) == _GZIP
        return File(size, objects.version(path), head, packed)
    except fastq.FastqError as error:
        return f"{path} {error}."
    except FileNotFoundError:
        return f"there is no file {path}."
    except PermissionError:
        return f"no permission to read {path}."
    except OSError as error:
        return f"{path} cannot be read: {error}."


def read_pairings(
    samples: Iterable[Sample], files: Mapping[str, File]
) -> tuple[dict[str, pairing.Pairing], list[Problem]]:
    """Return how the mates of each lane lie, by its first file; and lanes where they are wrong."""
    pairings, problems = {}, []
    for lane in (lane for sample in samples for lane in sample.lanes):
        if all(path in files for path in lane.files):
            heads = [files[path].head for path in lane.files]
            way, wrong = pairing.read_pairing(lane, heads)
            problems += wrong
            if not wrong:
                pairings[lane.fastq_1] = way
    return pairings, problems


def check_whole(
    samples: Iterable[Sample],
    files: dict[str, File],
    pairings: Mapping[str, pairing.Pairing],
    long: bool,
) -> list[Problem]:
    """Read all records of lanes whose files are small; what large ones hold, their tasks see.

    ``files`` is told the longest read of each, and its qualities. Lanes that are known to be
    wrong are left out.
    """

    def small(path: str) -> bool:
        if path not in files or objects.is_object(path) or files[path].size > _PROVED:
            return False
        return long or files[path].head.longest <= records.LONGEST_SHORT

    lanes = [
        lane
        for sample in samples
        for lane in sample.lanes
        if (long or lane.fastq_1 in pairings) and all(map(small, lane.files))
    ]

    def prove(lane: Lane) -> list[records.Checker] | str:
        way = pairing.of_lane(lane, pairings)
        rule = pairing.rule(lane, way, long)
        try:
            return records.read_whole(lane.files, rule, way.ends, way.interleaved)
        except (fastq.FastqError, OSError) as error:
            return f"{error}."

    problems = []
    with ThreadPoolExecutor(_READERS) as readers:
        for lane, result in zip(lanes, readers.map(prove, lanes), strict=True):
            if isinstance(result, str):
                problems.append(Problem(f"row {lane.row}", result))
                continue
            for path, checker in zip(lane.files, result, strict=True):
                head = files[path].head._replace(longest=checker.longest)
                if checker.qualities:
                    lowest, highest = min(checker.qualities), max(checker.qualities)
                    head = head._replace(lowest=lowest, highest=highest)
                files[path] = replace(files[path], head=head)
    return problems


def check_library(
    samples: Iterable[Sample], files: Mapping[str, File], long: bool, aligner: str
) -> list[Problem]:
    """Return reads that do not fit the aligner: long ones, or with letters it does not know."""
    problems = []
    for lane in (lane for sample in samples for lane in sample.lanes):
        if long and lane.fastq_2:
            text = "long reads have no mates."
            problems.append(Problem(f"row {lane.row}, fastq_2", text, "Leave it empty."))
        for mate, path in enumerate(lane.files, 1):
            if path in files:
                where = f"row {lane.row}, fastq_{mate}"
                problems += _check_reads(where, files[path].head, long, aligner)
    return problems


def _check_reads(where: str, head: fastq.Head, long: bool, aligner: str) -> list[Problem]:
    problems = []
    if not long and head.longest > records.LONGEST_SHORT:
        text = f"has reads of {head.longest:,} bases."
        hint = "Say preset='map-ont' or preset='map-hifi': minimap2 aligns them."
        problems.append(Problem(where, text, hint))
    if not long and (text := fastq.old_qualities(head.lowest, head.highest)):
        hint = "Convert them to Phred+33, e.g. seqtk seq -Q64 -V reads.fq.gz."
        problems.append(Problem(where, f"{text}.", hint))
    if head.rna and aligner != "minimap2":
        text = f"has U and no T: {aligner} reads each U as N, and finds no place for such reads."
        problems.append(Problem(where, text, "Write T for U.", warning=True))
    return problems


def check_known_sites(path: str, contigs: Mapping[str, int]) -> list[Problem]:
    """Return why a VCF of known sites does not belong to a reference.

    Parameters
    ----------
    path : str
        ``.vcf`` or ``.vcf.gz``.
    contigs : mapping of str to int
        Of the reference: name and length.
    """
    where = f"known_sites, {Path(path).name}"
    if text := objects.address_problem(path):
        return [Problem("known_sites", f"{text}.")]
    try:
        headed, used = _vcf_contigs(path)
    except FileNotFoundError:
        return [Problem(where, f"there is no file {path}.")]
    except (OSError, EOFError, ValueError) as error:
        return [Problem(where, f"is no VCF that can be read: {error}.")]
    hint = f"The reference has {', '.join(list(contigs)[:3])}{', …' if len(contigs) > 3 else ''}."
    other = [name for name in used if name not in contigs]
    if other or (headed and not set(headed) & set(contigs)):
        name = (other or list(headed))[0]
        return [Problem(where, f"has sites on {name}, which the reference has not.", hint)]
    return [
        Problem(
            where,
            f"was made for another reference: {name} has {length:,} bases there and "
            f"{contigs[name]:,} here.",
        )
        for name, length in headed.items()
        if length and name in contigs and contigs[name] != length
    ][:1]


def _vcf_contigs(path: str) -> tuple[dict[str, int], list[str]]:
    """Return a VCF's contigs: those of its head with lengths (0: unsaid), those of its sites."""
    headed: dict[str, int] = {}
    used: dict[str, None] = {}
    with Path(path).open("rb") as raw:
        packed = raw.peek(2)[:2] == _GZIP
        stream: Any = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw
        if not stream.readline().startswith(b"##fileformat=VCF"):
            raise ValueError("it does not begin with ##fileformat=VCF")
        count = 0
        for line in stream:
            if line.startswith(b"##contig=<"):
                fields = dict(
                    part.partition("=")[::2]
                    for part in line.decode().strip()[len("##contig=<") : -1].split(",")
                )
                length = fields.get("length", "")
                headed[fields.get("ID", "")] = int(length) if length.isdigit() else 0
            elif not line.startswith(b"#"):
                used[line.split(b"\t", 1)[0].decode()] = None
                count += 1
                if count >= _VARIANTS:
                    break
    return headed, list(used)


def read_bytes(samples: Iterable[Sample], files: Mapping[str, File]) -> float:
    """Return the bytes of the reads of samples, as if all were compressed."""
    return sum(
        files[path].size / (1.0 if files[path].packed else sizes.PLAIN)
        for sample in samples
        for lane in sample.lanes
        for path in lane.files
    )


def check_disk(folder: Path, needed: int, what: str) -> list[Problem]:
    """Return a problem where a disk has not the room for an estimate.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        What they are for.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= needed:
        return []
    text = f"{what} will take about {format_size(needed)}, {format_size(free)} are free."
    return [Problem(os.fspath(folder), text, "Free some, or choose another folder.")]
