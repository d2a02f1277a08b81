"""Gather a job of variant calls: ``variants``, ``calls`` (per sample), ``vcfs``, one report.

Writes into the task's folder ``<table>.parquet``, ``multiqc_report.html`` and ``gather.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from .. import layout
from . import gather, metrics, schemas

STAGE = "calls"
Rows = list[dict[str, Any]]
_TRANSITIONS = {frozenset("AG"), frozenset("CT")}


def main(task: Any) -> None:
    """Gather a job.

    Raises
    ------
    Failed
        Not one sample is good, or none can be read.
    """
    gather.gather(task, STAGE, schemas.CALLS, readers)


def readers(folder: Path, results: Path) -> dict[str, Callable[[], Rows]]:
    """Return what reads a sample's rows of each table."""
    variants = cache(lambda: metrics.names_file(_variants)(folder / "variants.tsv"))
    return {
        "variants": variants,
        "calls": lambda: [call_row(variants())],
        "vcfs": lambda: [file_row(folder, results)],
        **gather.command_readers(folder),
    }


def file_row(folder: Path, results: Path) -> dict[str, Any]:
    """Return where a sample's VCF is, relative to the folder of results."""
    about = metrics.read_json(folder / layout.SAMPLE)
    vcf = folder / about["vcf"]
    return {
        "path": str(vcf.relative_to(results)),
        "index": str((folder / about["index"]).relative_to(results)),
        "bytes": vcf.stat().st_size,
        "sha256": metrics.read_checksums(folder / layout.CHECKSUMS)[vcf.name],
        "alignment": about["alignment"],
    }


def _variants(path: Path) -> Rows:
    return [variant_row(line) for line in path.read_text().splitlines()]


def variant_row(line: str) -> dict[str, Any]:
    """Return a line of ``variants.tsv`` as a row."""
    contig, position, ref, alt, quality, passed, kind, genotype, depth, first, other = line.split(
        "\t"
    )
    return {
        "contig": contig,
        "position": int(position),
        "ref": ref,
        "alt": alt,
        "type": kind.lower(),
        "quality": float(quality),
        "filter": passed,
        "genotype": genotype,
        "depth": _whole(depth),
        "ref_depth": _whole(first),
        "alt_depth": _whole(other),
    }


def call_row(variants: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a sample's calls are in numbers; all but ``variants`` of those that passed."""
    good = [row for row in variants if row["filter"] == "PASS"]
    kinds = Counter(row["type"] for row in good)
    snps = [row for row in good if row["type"] == "snp"]
    transitions = sum(frozenset((row["ref"], row["alt"])) in _TRANSITIONS for row in snps)
    zygosity = Counter(len(set(_alleles(row["genotype"]))) for row in good)
    return {
        "variants": len(variants),
        "passed": len(good),
        "snps": kinds["snp"],
        "indels": kinds["indel"],
        "other": len(good) - kinds["snp"] - kinds["indel"],
        "transitions": transitions,
        "transversions": len(snps) - transitions,
        "ts_tv": metrics.share(transitions, len(snps) - transitions),
        "heterozygous": zygosity[2],
        "homozygous": zygosity[1],
        "mean_quality": metrics.share(sum(row["quality"] for row in good), len(good)),
        "mean_depth": metrics.share(sum(row["depth"] or 0 for row in good), len(good)),
    }


def _alleles(genotype: str) -> list[str]:
    return genotype.replace("|", "/").split("/")


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
