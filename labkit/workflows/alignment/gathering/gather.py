"""Gather an alignment job: every sample's reports into tables, one report, one picture.

Writes into the task's folder:

``<table>.parquet``
    See ``schemas.py``.
``multiqc_report.html``
    MultiQC's report over all samples.
``summary.png``
    What the card shows: insert sizes, coverage, duplicates.
``gather.json``
    Which samples are there, which failed and why, and whether the report was made.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # isolated mode leaves it out

import pyarrow as pa
import pyarrow.parquet as pq

layout = import_module("layout")
metrics = import_module("metrics")
pipe = import_module("pipe")
plots = import_module("plots")
report = import_module("report")
request = import_module("request")
schemas = import_module("schemas")

_ROW_GROUP = 200_000


def main(task: Any) -> None:
    """Gather a job.

    Raises
    ------
    Failed
        Not one sample is good, or a report is not whole.
    """
    samples, failed = find(task, layout.ALIGN_STAGE)
    steps = len(samples) + 2
    written = Tables(task.out, schemas.ALIGNMENT)
    try:
        for done, (name, folder) in enumerate(samples.items(), 1):
            for table, rows in sample_tables(folder, task.results).items():
                written.add(table, name, rows)
            task.progress(done, steps)
    except (metrics.MetricsError, OSError, KeyError, ValueError) as error:
        raise pipe.Failed(f"a report cannot be read: {error}", "CHECK") from error
    finally:
        counts = written.close()
    made = report.make(samples, task.out, task.tmp, task.files.parent.name)
    task.progress(steps - 1, steps)
    plots.draw(task.out, ()).savefig(task.out / "summary.png", dpi=90, transparent=True)
    content = {
        "samples": list(samples),
        "failed": failed,
        "tables": counts,
        "report": made,
        "gathered": time.time(),
    }
    (task.out / "gather.json").write_text(json.dumps(content, indent=1) + "\n")
    task.progress(steps, steps)


def find(task: Any, stage: str) -> tuple[dict[str, Path], list[dict[str, str]]]:
    """Return the folders of a stage's good samples by name, and the others with their reasons.

    Raises
    ------
    Failed
        Not one sample is good.
    """
    run = task.files.parent
    samples: dict[str, Path] = {}
    failed = []
    lines = (run / "stages" / f"{stage}.jsonl").read_text().splitlines()
    for index, line in enumerate(lines):
        planned = json.loads(line)
        name = planned["params"]["sample"]["name"]
        folder = task.results / stage / planned["key"]
        if (folder / layout.SAMPLE).is_file():
            samples[name] = folder
            continue
        records = sorted(
            (run / "tasks" / stage).glob(f"{index}.*.json"),
            key=lambda path: int(path.name.split(".")[1]),
        )
        last = json.loads(records[-1].read_text()) if records else {}
        text = last.get("text", "its task left no record")
        failed.append({"sample": name, "reason": last.get("reason", "LOST"), "text": text})
    if not samples:
        reasons = "; ".join(sorted({entry["text"] for entry in failed})[:3])
        raise pipe.Failed(f"not one of {len(failed)} samples is good: {reasons}", "CHECK")
    return samples, failed


def sample_tables(folder: Path, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return a sample's rows of each table."""
    about = json.loads((folder / layout.SAMPLE).read_text())
    stats = metrics.Stats(folder / layout.STATS)
    contigs = metrics.read_contigs(folder / layout.COVERAGE, folder / layout.IDXSTATS)
    lanes = lane_rows(about, folder)
    flags = metrics.read_flagstat(folder / layout.FLAGSTAT)
    marked = (folder / layout.MARKDUP).is_file()
    duplicates = metrics.read_markdup(folder / layout.MARKDUP) if marked else {}
    sequenced = sum(row["reads"] for row in lanes)
    cut = [row["with_adapter"] for row in lanes if row["with_adapter"] is not None]
    alignment = {
        "lanes": len(lanes),
        "reads_sequenced": sequenced,
        "adapter_fraction": metrics.share(sum(cut), sequenced) if cut else math.nan,
        **flags,
        **(duplicates if marked else {"duplicates": None}),
        **stats.summary(),
        **metrics.genome_coverage(contigs),
        "aligner": about["aligner"],
        "recalibrated": about["recalibrated"],
        "seconds": about["seconds"],
    }
    table = folder / layout.RECALIBRATION / "recalibration.table"
    return {
        "alignment": [alignment],
        "bams": [bam_row(about, folder, results, marked, table)],
        "lanes": lanes,
        "insert_sizes": stats.insert_sizes(),
        "contigs": contigs,
        "coverage": list(metrics.read_windows(folder / layout.WINDOWS, contigs)),
        "depth_histogram": stats.depth_histogram(),
        "cycles": stats.cycles(),
        "recalibration": metrics.read_recalibration(table) if table.is_file() else [],
        **command_rows(folder),
    }


def command_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the exact command lines of a sample, and the versions of the programs."""
    used = json.loads((folder / layout.COMMANDS).read_text())
    return {
        "commands": [
            {"step": c["name"], "command": shlex.join(c["argv"]), "seconds": c.get("seconds")}
            for c in used["commands"]
        ],
        "versions": [{"tool": t, "version": v} for t, v in used["versions"].items()],
    }


def bam_row(about: Any, folder: Path, results: Path, marked: bool, table: Path) -> dict[str, Any]:
    """Return where a sample's alignment is, relative to the folder of results."""
    alignment = folder / about["alignment"]
    checksums = metrics.read_checksums(folder / layout.CHECKSUMS)
    return {
        "path": str(alignment.relative_to(results)),
        "index": str((folder / about["index"]).relative_to(results)),
        "format": about["format"],
        "bytes": alignment.stat().st_size,
        "sha256": checksums[about["alignment"]],
        "reads": about["reads"]["final"],
        "duplicates_marked": marked,
        "recalibrated": about["recalibrated"],
        "recalibration_table": str(table.relative_to(results)) if table.is_file() else None,
    }


def lane_rows(about: Any, folder: Path) -> list[dict[str, Any]]:
    """Return a sample's lanes; what cutadapt counts is empty where nothing was cut."""
    rows = []
    for lane in about["lanes"]:
        path = folder / layout.lane_metrics(lane["lane"], "cutadapt", "json")
        cut = metrics.read_cutadapt(path) if path.is_file() else {"with_adapter": None}
        files = {name: lane[name] or None for name in ("fastq_1", "fastq_2")}
        rows.append({"lane": lane["lane"], "kept": lane["trimmed"], **cut, **files})
        rows[-1]["reads"] = lane["reads"]
    return rows


class Tables:
    """Writes tables sample by sample, so that memory does not grow with their number.

    Parameters
    ----------
    folder : Path
        Where the files go.
    tables : dict of str to Schema
        All of them; one without rows is written too.
    """

    def __init__(self, folder: Path, tables: dict[str, pa.Schema]) -> None:
        self._tables = tables
        self._counts = dict.fromkeys(tables, 0)
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", schema)
            for name, schema in tables.items()
        }

    def add(self, table: str, sample: str, rows: list[dict[str, Any]]) -> None:
        """Add a sample's rows."""
        if rows:
            full = [{"sample": sample, **row} for row in rows]
            made = pa.Table.from_pylist(full, schema=self._tables[table])
            self._writers[table].write_table(made, _ROW_GROUP)
            self._counts[table] += len(rows)

    def close(self) -> dict[str, int]:
        """End the files; return how many rows each has."""
        for writer in self._writers.values():
            writer.close()
        return self._counts


if __name__ == "__main__":
    request.serve(main)
