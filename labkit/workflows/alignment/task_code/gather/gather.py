"""Gather an alignment job: every sample's reports into tables, one report, one picture.

Writes into the task's folder:

``<table>.parquet``
    See ``schemas.py``.
``multiqc_report.html``
    MultiQC's report over all samples.
``summary.png``
    What the card shows: insert sizes, coverage, duplicates.
``gather.json``
    Which samples are there, which failed and why, which are doubtful, and whether the report was
    made.

A report of a sample that cannot be read costs only the tables that are made of it: they lack the
sample, and the table ``problems`` tells why. It also has the samples whose tasks failed.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import layout, pipe
from . import metrics, plots, quality, report, schemas, targets

_ROW_GROUP = 200_000
# What a file may raise that is cut off, damaged, or of a program of another version.
_UNREADABLE = (metrics.MetricsError, OSError, LookupError, ValueError, TypeError, ArithmeticError)

Rows = list[dict[str, Any]]
Readers = Mapping[str, Callable[[], Rows]]


def main(task: Any) -> None:
    """Gather a job.

    Raises
    ------
    Failed
        Not one sample is good, or none can be read.
    """
    gather(task, layout.ALIGN_STAGE, schemas.ALIGNMENT, readers, doubts)
    figure = plots.draw(task.out, ())
    figure.savefig(task.out / "summary.png", dpi=90, transparent=True)


def gather(
    task: Any,
    stage: str,
    tables: dict[str, pa.Schema],
    read: Callable[[Path, Path], Readers],
    doubt: Callable[[Path, Path], list[str]] = lambda *_: [],
) -> None:
    """Write the tables, the report and ``gather.json`` of a stage's samples.

    Parameters
    ----------
    stage : str
        Its tasks are the samples.
    tables : dict of str to Schema
        What is written.
    read : callable
        Gets a sample's folder and the folder of all results; returns what reads each table.
    doubt : callable
        Gets the same of a sample whose reports can be read; returns what makes it doubtful.

    Raises
    ------
    Failed
        Not one sample is good, or none can be read.
    """
    samples, failed = find(task, stage)
    whole = {}
    warnings = []
    with contextlib.closing(Tables(task.out, tables)) as written:
        for done, (name, folder) in enumerate(samples.items(), 1):
            if written.add_sample(name, read(folder, task.results)):
                whole[name] = folder
                warnings += [
                    {"sample": name, "reason": "WARNING", "text": text}
                    for text in doubt(folder, task.results)
                ]
            task.progress(done, len(samples) + 1)
        if not any(written.counts.values()):
            text = "; ".join(row["text"] for row in written.problems[:3])
            raise pipe.Failed(f"{text}; not one of {len(samples)} samples can be read", "CHECK")
        page = report.make(whole, task.out, task.tmp, task.files.parent.name)
        lacking = [
            {
                "sample": name.split(" ")[0],
                "reason": "CHECK",
                "text": f"MultiQC's report does not show {name}",
                "tables": "report",
            }
            for name in page.get("missing", ())
        ]
        for row in (*failed, *written.problems, *lacking, *warnings):
            written.add("problems", row["sample"], [{"tables": None, **row}])
    content = {
        "samples": list(samples),
        "failed": failed,
        "warnings": warnings,
        "tables": written.counts,
        "report": page,
        "gathered": time.time(),
    }
    (task.out / "gather.json").write_text(json.dumps(content, indent=1) + "\n")


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
        raise pipe.Failed(f"{reasons}; not one of {len(failed)} samples is good", "CHECK")
    return samples, failed


def readers(folder: Path, results: Path) -> Readers:
    """Return what reads a sample's rows of each table."""
    sample = Sample(folder, results)
    return {
        "alignment": lambda: [sample.summary()],
        "bams": lambda: [sample.file()],
        "lanes": lambda: sample.lanes,
        "insert_sizes": lambda: sample.stats.insert_sizes(),
        "contigs": lambda: sample.contigs,
        "coverage": lambda: metrics.read_windows(folder / layout.WINDOWS, sample.contigs),
        "depth_histogram": lambda: sample.stats.depth_histogram(),
        "cycles": lambda: sample.stats.cycles(),
        "recalibration": sample.recalibration,
        "on_target": lambda: targets.read_sums(folder),
        "regions": lambda: targets.read_regions(folder),
        **command_readers(folder),
    }


def doubts(folder: Path, results: Path) -> list[str]:
    """Return what makes a sample's result doubtful."""
    sample = Sample(folder, results)
    texts: list[str] = quality.warnings(sample.about, sample.summary())
    return texts + targets.doubts(folder)


class Sample:
    """What one sample's task has left; each part is read when it is asked for.

    Parameters
    ----------
    folder, results : Path
        The sample's folder, and the folder of all results.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder = folder
        self.results = results
        self.table = folder / layout.RECALIBRATION / "recalibration.table"

    @cached_property
    def about(self) -> dict[str, Any]:
        """``sample.json``."""
        content: dict[str, Any] = metrics.read_json(self.folder / layout.SAMPLE)
        return content

    @cached_property
    def stats(self) -> Any:
        """``samtools stats``."""
        return metrics.Stats(self.folder / layout.STATS)

    @cached_property
    def contigs(self) -> Rows:
        """Reads and coverage of each contig."""
        coverage, idxstats = (self.folder / name for name in (layout.COVERAGE, layout.IDXSTATS))
        rows: Rows = metrics.read_contigs(coverage, idxstats)
        return rows

    @cached_property
    def lanes(self) -> Rows:
        """Rows of lanes; what cutadapt counts is empty where nothing was cut."""
        rows = []
        for lane in self.about["lanes"]:
            path = self.folder / layout.lane_metrics(lane["lane"], "cutadapt", "json")
            cut = metrics.read_cutadapt(path) if path.is_file() else {"with_adapter": None}
            files = {name: lane[name] or None for name in ("fastq_1", "fastq_2")}
            rows.append({"lane": lane["lane"], "kept": lane["trimmed"], **cut, **files})
            rows[-1]["reads"] = lane["reads"]
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the row of numbers over all lanes and contigs."""
        marked = (self.folder / layout.MARKDUP).is_file()
        duplicates: dict[str, Any] = {"duplicates": None}
        if marked:
            duplicates = metrics.read_markdup(self.folder / layout.MARKDUP)
        sequenced = sum(row["reads"] for row in self.lanes)
        cut = [row["with_adapter"] for row in self.lanes if row["with_adapter"] is not None]
        return {
            "lanes": len(self.lanes),
            "reads_sequenced": sequenced,
            "adapter_fraction": metrics.share(sum(cut), sequenced) if cut else math.nan,
            **metrics.read_flagstat(self.folder / layout.FLAGSTAT),
            **duplicates,
            **self.stats.summary(),
            **metrics.genome_coverage(self.contigs),
            "aligner": self.about["aligner"],
            "recalibrated": self.about["recalibrated"],
            "seconds": self.about["seconds"],
        }

    def file(self) -> dict[str, Any]:
        """Return the row of where the alignment is, relative to the folder of results."""
        about = self.about
        alignment, index = (self.folder / about[name] for name in ("alignment", "index"))
        table = self.table if self.table.is_file() else None
        return {
            "path": str(alignment.relative_to(self.results)),
            "index": str(index.relative_to(self.results)),
            "format": about["format"],
            "bytes": alignment.stat().st_size,
            "sha256": metrics.read_checksums(self.folder / layout.CHECKSUMS)[alignment.name],
            "reads": about["reads"]["final"],
            "duplicates_marked": (self.folder / layout.MARKDUP).is_file(),
            "recalibrated": about["recalibrated"],
            "recalibration_table": str(table.relative_to(self.results)) if table else None,
        }

    def recalibration(self) -> Rows:
        """Return reported and empirical qualities, where they were recalibrated."""
        return metrics.read_recalibration(self.table) if self.table.is_file() else []


def command_readers(folder: Path) -> Readers:
    """Return what reads a sample's exact command lines, and the versions of the programs."""

    def commands() -> Rows:
        used = metrics.read_json(folder / layout.COMMANDS)["commands"]
        took = ("seconds", "cpu_seconds")
        return [
            {"step": c["name"], "command": shlex.join(c["argv"]), **{n: c.get(n) for n in took}}
            for c in used
        ]

    def versions() -> Rows:
        used = metrics.read_json(folder / layout.COMMANDS)["versions"]
        return [{"tool": tool, "version": version} for tool, version in used.items()]

    return {"commands": commands, "versions": versions}


class Tables:
    """Writes tables sample by sample, so that memory does not grow with their number.

    Parameters
    ----------
    folder : Path
        Where the files go.
    tables : dict of str to Schema
        All of them; one without rows is written too.

    Attributes
    ----------
    counts : dict of str to int
        Rows of each.
    problems : list of dict
        What could not be read: ``sample``, ``reason``, ``text``, ``tables`` that lack it.
    """

    def __init__(self, folder: Path, tables: dict[str, pa.Schema]) -> None:
        self._tables = tables
        self.counts = dict.fromkeys(tables, 0)
        self.problems: Rows = []
        self._columns: dict[str, tuple[str, frozenset[str]]] = {}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", schema)
            for name, schema in tables.items()
        }

    def add_sample(self, sample: str, readers: Readers) -> bool:
        """Add a sample's rows to each table; False where some cannot be read."""
        lacking: dict[str, list[str]] = {}
        for table, read in readers.items():
            try:
                self.add(table, sample, read())
            except _UNREADABLE as error:
                known = isinstance(error, (metrics.MetricsError, OSError))
                text = str(error) if known else f"{type(error).__name__}: {error}"
                lacking.setdefault(text, []).append(table)
        self.problems += [
            {"sample": sample, "reason": "CHECK", "text": text, "tables": ", ".join(tables)}
            for text, tables in lacking.items()
        ]
        return not lacking

    def add(self, table: str, sample: str, rows: Rows) -> None:
        """Add rows to a table: all of them or, where one does not fit, none.

        Raises
        ------
        Failed
            Its columns are not those of the samples before: they are not parts of one table.
        """
        if rows:
            full = [{"sample": sample, **row} for row in rows]
            first, columns = self._columns.setdefault(table, (sample, frozenset(full[0])))
            for row in full:
                if odd := sorted(columns ^ set(row)):
                    text = f"{sample} and {first} differ in columns of {table}: {', '.join(odd)}"
                    raise pipe.Failed(text, "CHECK")
            if odd := sorted(columns - set(self._tables[table].names)):
                raise pipe.Failed(f"{table} has no columns {', '.join(odd)}", "CHECK")
            made = pa.Table.from_pylist(full, schema=self._tables[table])
            self._writers[table].write_table(made, _ROW_GROUP)
            self.counts[table] += len(rows)

    def close(self) -> None:
        """End the files."""
        for writer in self._writers.values():
            writer.close()
