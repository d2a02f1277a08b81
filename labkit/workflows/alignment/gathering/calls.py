"""Gather a job of variant calls: ``variants``, ``calls`` (per sample), ``vcfs``, one report.

Writes into the task's folder ``<table>.parquet``, ``multiqc_report.html`` and ``gather.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # isolated mode leaves it out

gather = import_module("gather")
layout = import_module("layout")
metrics = import_module("metrics")
pipe = import_module("pipe")
report = import_module("report")
request = import_module("request")
schemas = import_module("schemas")

STAGE = "calls"
_TRANSITIONS = {frozenset("AG"), frozenset("CT")}


def main(task: Any) -> None:
    """Gather a job.

    Raises
    ------
    Failed
        Not one sample is good.
    """
    samples, failed = gather.find(task, STAGE)
    written = gather.Tables(task.out, schemas.CALLS)
    try:
        for done, (name, folder) in enumerate(samples.items(), 1):
            for table, rows in sample_tables(folder, task.results).items():
                written.add(table, name, rows)
            task.progress(done, len(samples) + 1)
    except (metrics.MetricsError, OSError, KeyError, ValueError) as error:
        raise pipe.Failed(f"a report cannot be read: {error}", "CHECK") from error
    finally:
        counts = written.close()
    content = {
        "samples": list(samples),
        "failed": failed,
        "tables": counts,
        "report": report.make(samples, task.out, task.tmp, task.files.parent.name),
        "gathered": time.time(),
    }
    (task.out / "gather.json").write_text(json.dumps(content, indent=1) + "\n")


def sample_tables(folder: Path, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return a sample's rows of each table."""
    about = json.loads((folder / layout.SAMPLE).read_text())
    variants = [variant_row(line) for line in _lines(folder / "variants.tsv")]
    vcf = folder / about["vcf"]
    checksums = metrics.read_checksums(folder / layout.CHECKSUMS)
    file = {
        "path": str(vcf.relative_to(results)),
        "index": str((folder / about["index"]).relative_to(results)),
        "bytes": vcf.stat().st_size,
        "sha256": checksums[about["vcf"]],
        "alignment": about["alignment"],
    }
    return {
        "variants": variants,
        "calls": [call_row(variants)],
        "vcfs": [file],
        **gather.command_rows(folder),
    }


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


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


if __name__ == "__main__":
    request.serve(main)
