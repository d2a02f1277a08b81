"""Read what the tools wrote about one sample, as rows of tables.

samtools' columns are explained in its manual pages [1]_; GATK's report in [2]_.

.. [1] http://www.htslib.org/doc/samtools-stats.html
.. [2] Van der Auwera & O'Connor (2020), Genomics in the Cloud, O'Reilly.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]
_Reader = TypeVar("_Reader", bound=Callable[..., Any])


class MetricsError(Exception):
    """A report of a tool is not as it should be; the text names the file."""


def names_file(read: _Reader) -> _Reader:
    """Let what a reader of a file (its first argument, or that one's ``path``) raises name it."""

    @functools.wraps(read)
    def named(source: Any, *rest: Any) -> Any:
        try:
            return read(source, *rest)
        except (LookupError, ValueError, TypeError, ArithmeticError) as error:
            path = getattr(source, "path", source)
            text = f"{path} cannot be read: {type(error).__name__}: {error}"
            raise MetricsError(text) from error

    return named  # type: ignore[return-value]


@names_file
def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise MetricsError(f"{path} holds no object")
    return content


@names_file
def read_flagstat(path: Path) -> Row:
    """Return counts of reads: mapped, paired, duplicates (primary alignments alone count)."""
    content = read_json(path)
    passed, failed = (content[f"QC-{how} reads"] for how in ("passed", "failed"))
    names = {
        "reads": "primary",
        "mapped": "primary mapped",
        "paired": "paired in sequencing",
        "properly_paired": "properly paired",
        "singletons": "singletons",
        "duplicates": "primary duplicates",
        "secondary": "secondary",
        "supplementary": "supplementary",
    }
    counts = {column: passed[name] + failed[name] for column, name in names.items()}
    counts["mapped_fraction"] = share(counts["mapped"], counts["reads"])
    counts["properly_paired_fraction"] = share(counts["properly_paired"], counts["paired"])
    return counts


class Stats:
    """``samtools stats``.

    Parameters
    ----------
    path : Path
        Its output.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sections: dict[str, list[list[str]]] = {}
        with path.open() as file:
            for line in file:
                if not line.startswith("#"):
                    section, *values = line.rstrip("\n").split("\t")
                    self.sections.setdefault(section, []).append(values)
        if "SN" not in self.sections:
            raise MetricsError(f"{path} has no summary: samtools stats did not come to its end")
        self._summary = {values[0].rstrip(":"): values[1] for values in self.sections["SN"]}

    def number(self, name: str) -> float:
        """Return a summary number."""
        if name not in self._summary:
            raise MetricsError(f"{self.path} has no {name!r}")
        return float(self._summary[name])

    @names_file
    def summary(self) -> Row:
        """Return bases, errors, lengths, qualities and insert sizes over all reads.

        ``error_rate`` is mismatches over aligned bases; insert sizes are of mapped pairs.
        """
        sizes = [(row["insert_size"], row["pairs"]) for row in self.insert_sizes()]
        paired = bool(sum(pairs for _, pairs in sizes))
        return {
            "bases": int(self.number("total length")),
            "bases_mapped": int(self.number("bases mapped (cigar)")),
            "mismatches": int(self.number("mismatches")),
            "error_rate": self.number("error rate"),
            "mean_length": share(self.number("total length"), self.number("sequences")),
            "longest": int(self.number("maximum length")),
            "mean_quality": self.number("average quality"),
            "insert_size_mean": self.number("insert size average") if paired else math.nan,
            "insert_size_sd": self.number("insert size standard deviation") if paired else math.nan,
            "insert_size_median": weighted_median(sizes),
        }

    @names_file
    def insert_sizes(self) -> list[Row]:
        """Return pairs by insert size (bases, of the whole fragment) and orientation."""
        names = ("insert_size", "pairs", "inward", "outward", "other")
        return [
            dict(zip(names, map(int, values), strict=True))
            for values in self.sections.get("IS", ())
            if values[1] != "0"
        ]

    @names_file
    def depth_histogram(self) -> list[Row]:
        """Return how many bases have which depth; the last row is all that is deeper."""
        return [{"depth": int(v[1]), "bases": int(v[2])} for v in self.sections.get("COV", ())]

    @names_file
    def cycles(self) -> list[Row]:
        """Return bases, mean quality and mismatches by cycle, both mates together."""
        rows: dict[int, Row] = {}
        qualities: dict[int, float] = {}
        for section in ("FFQ", "LFQ"):
            for cycle, *counts in self.sections.get(section, ()):
                numbers = list(map(int, counts))
                number = int(cycle)
                row = rows.setdefault(number, {"cycle": number, "bases": 0, "mismatches": 0})
                row["bases"] += sum(numbers)
                total = sum(quality * count for quality, count in enumerate(numbers))
                qualities[number] = qualities.get(number, 0.0) + total
        for cycle, _unknown, *counts in self.sections.get("MPC", ()):
            if int(cycle) in rows:
                rows[int(cycle)]["mismatches"] = sum(map(int, counts))
        return [
            {
                **row,
                "mean_quality": share(qualities[number], row["bases"]),
                "error_rate": share(row["mismatches"], row["bases"]),
            }
            for number, row in sorted(rows.items())
            if row["bases"]
        ]


@names_file
def read_markdup(path: Path) -> Row:
    """Return duplicates as ``samtools markdup -f`` counts them.

    ``duplicate_fraction`` is of the primary mapped reads, as picard's PERCENT_DUPLICATION.
    Beside several libraries the counts are of all.
    """
    counts: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(": ")
        if value.isdecimal():
            counts[name] = counts.get(name, 0) + int(value)
    if "EXAMINED" not in counts:
        raise MetricsError(f"{path} says nothing of duplicates")
    optical = counts["DUPLICATE PAIR OPTICAL"] + counts["DUPLICATE SINGLE OPTICAL"]
    return {
        "duplicate_fraction": share(counts["DUPLICATE PRIMARY TOTAL"], counts["EXAMINED"]),
        "optical_duplicates": optical,
        "library_size": counts.get("ESTIMATED_LIBRARY_SIZE") or math.nan,
    }


@names_file
def read_contigs(coverage: Path, idxstats: Path) -> list[Row]:
    """Return reads and coverage of each contig (``samtools coverage`` and ``idxstats``).

    Coverage leaves duplicates and secondary alignments out, ``mapped`` counts them.
    """
    mapped = {}
    for line in idxstats.read_text().splitlines():
        contig, _, count, unmapped = line.split("\t")
        mapped[contig] = (int(count), int(unmapped))
    lines = coverage.read_text().splitlines()
    rows = []
    for line in lines[1:]:
        contig, _, end, reads, covered, percent, depth, quality, mapping = line.split("\t")
        rows.append(
            {
                "contig": contig,
                "length": int(end),
                "mapped": mapped[contig][0],
                "counted": int(reads),
                "covered_bases": int(covered),
                "covered_fraction": float(percent) / 100,
                "mean_depth": float(depth),
                "mean_base_quality": float(quality),
                "mean_mapping_quality": float(mapping),
            }
        )
    return rows


def genome_coverage(contigs: list[Row]) -> Row:
    """Return mean depth and covered share over all contigs."""
    length = sum(row["length"] for row in contigs)
    covered = sum(row["covered_bases"] for row in contigs)
    depth = sum(row["mean_depth"] * row["length"] for row in contigs)
    return {"mean_depth": share(depth, length), "covered_fraction": share(covered, length)}


@names_file
def read_windows(path: Path, contigs: list[Row]) -> list[Row]:
    """Return depth by window, those without reads included."""
    windows: dict[str, dict[int, tuple[float, int]]] = {}
    size = 0
    with path.open() as file:
        next(file, None)
        for line in file:
            contig, first, last, mean, covered = line.rstrip("\n").split("\t")
            size = max(size, int(last) - int(first))
            windows.setdefault(contig, {})[int(first)] = (float(mean), int(covered))
    rows = []
    for row in contigs:
        here = windows.get(row["contig"], {})
        step = size or row["length"]
        for start in range(0, row["length"], step):
            depth, bases = here.get(start, (0.0, 0))
            end = min(start + step, row["length"])
            place = {"contig": row["contig"], "start": start, "end": end}
            rows.append({**place, "mean_depth": depth, "covered_bases": bases})
    return rows


@names_file
def read_cutadapt(path: Path) -> Row:
    """Return what cutadapt found in a lane: reads with adapters, dropped reads, bases."""
    report = read_json(path)
    reads, bases = report["read_counts"], report["basepair_counts"]
    mates = 2 if report["input"]["paired"] else 1
    counts = [reads[f"read{mate}_with_adapter"] for mate in range(1, mates + 1)]
    # none is told where no adapters were looked for
    with_adapter = None if None in counts else sum(counts)
    return {
        "reads": reads["input"] * mates,
        "with_adapter": with_adapter,
        "adapter_fraction": (
            None if with_adapter is None else share(with_adapter, reads["input"] * mates)
        ),
        "kept": reads["output"] * mates,
        "too_short": (reads["filtered"]["too_short"] or 0) * mates,
        "too_many_n": (reads["filtered"]["too_many_n"] or 0) * mates,
        "bases": bases["input"],
        "bases_kept": bases["output"],
        "bases_low_quality": bases["quality_trimmed"] or 0,
    }


@names_file
def read_recalibration(path: Path) -> list[Row]:
    """Return reported and empirical quality by read group, of a report of BaseRecalibrator.

    ``empirical`` is ``-10 log10((errors + 1) / (bases + 2))``, from the counts themselves: GATK's
    own column is a posterior that starts at the reported quality.
    """
    rows = []
    for row in gatk_table(path, "RecalTable1"):
        if row["EventType"] != "M":
            continue
        bases, errors = int(row["Observations"]), float(row["Errors"])
        rows.append(
            {
                "read_group": row["ReadGroup"],
                "reported": int(row["QualityScore"]),
                "empirical": -10 * math.log10((errors + 1) / (bases + 2)),
                "recalibrated": float(row["EmpiricalQuality"]),
                "bases": bases,
                "errors": errors,
            }
        )
    return rows


def gatk_table(path: Path, name: str) -> Iterator[dict[str, str]]:
    """Give the rows of a table in a GATK report."""
    lines = iter(path.read_text().splitlines())
    for line in lines:
        if line.startswith(f"#:GATKTable:{name}:"):
            break
    else:
        raise MetricsError(f"{path} has no table {name}")
    columns = next(lines).split()
    for line in lines:
        if not line.strip():
            return
        yield dict(zip(columns, line.rsplit(None, len(columns) - 1), strict=True))


@names_file
def read_checksums(path: Path) -> dict[str, str]:
    """Return SHA-256 by file name, of what sha256sum wrote."""
    pairs = (line.split("  ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def weighted_median(values: list[tuple[int, int]]) -> float:
    """Return the median of values with counts; NaN where there are none."""
    total = sum(count for _, count in values)
    seen = 0
    for value, count in sorted(values):
        seen += count
        if total and seen * 2 >= total:
            return float(value)
    return math.nan


def share(part: float, whole: float) -> float:
    """Return a part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan
