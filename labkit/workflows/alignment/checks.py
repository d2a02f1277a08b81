"""Everything about reads, known sites and disks that can be known before anything is started."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.workflows.alignment.samplesheet import Lane, Sample
from labkit.workflows.alignment.task_code import fastq, objects, sizes

_READERS = 16
_PROVED = 32 * 1024**2  # bytes of a file that is small enough to be read whole
_LONG = 1000  # bases: no short-read instrument's reads are as long
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
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda item: _look(item[1]), wanted))
    files = {}
    problems = []
    for (where, path), result in zip(wanted, found, strict=True):
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
        if size <= _PROVED and not objects.is_object(path):
            fastq.prove(path)
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


def check_mates(samples: Iterable[Sample], files: Mapping[str, File]) -> list[Problem]:
    """Return lanes whose two files are no mates, or the wrong way round."""
    problems = []
    for lane in (lane for sample in samples for lane in sample.lanes):
        if not lane.fastq_2 or any(path not in files for path in lane.files):
            continue
        first, second = (files[path].head for path in lane.files)
        where = f"row {lane.row}"
        if first.mates == {2} and second.mates == {1}:
            text = "fastq_1 holds the second mates and fastq_2 the first: they are swapped."
            problems.append(Problem(where, text, "Exchange the two."))
            continue
        problems += _check_mate_numbers(lane, first.mates, second.mates)
        for number, (one, other) in enumerate(zip(first.names, second.names, strict=False), 1):
            if one != other:
                text = (
                    f"read {number} is {_show(one)} in fastq_1 and {_show(other)} in fastq_2: "
                    "they are not mates of each other."
                )
                problems.append(Problem(where, text, "Give the two files of one lane."))
                break
    return problems


def _check_mate_numbers(lane: Lane, first: set[int], second: set[int]) -> list[Problem]:
    return [
        Problem(f"row {lane.row}, fastq_{mate}", f"holds reads of mate {min(said - {mate})}.")
        for mate, said in ((1, first), (2, second))
        if said - {mate}
    ]


def check_library(
    samples: Iterable[Sample], files: Mapping[str, File], long: bool
) -> list[Problem]:
    """Return reads that do not fit the aligner: too long ones, or long ones with mates."""
    problems = []
    for lane in (lane for sample in samples for lane in sample.lanes):
        if long and lane.fastq_2:
            text = "long reads have no mates."
            problems.append(Problem(f"row {lane.row}, fastq_2", text, "Leave it empty."))
        file = files.get(lane.fastq_1)
        if file and not long and file.head.longest > _LONG:
            text = f"has reads of {file.head.longest:,} bases."
            hint = "Say preset='map-ont' or preset='map-hifi': minimap2 aligns them."
            problems.append(Problem(f"row {lane.row}, fastq_1", text, hint))
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


def _show(name: bytes) -> str:
    return repr(name[:60].decode("ascii", "replace"))
