"""Metrics in picard's own formats, for programs and people who know those files."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from . import programs

FOLDER = "metrics/picard"
_HISTOGRAM = Path(__file__).with_name("histogram.py")
_LEAST_HEAP = 512  # MB


def collect(
    tools: Any, alignment: Path, fasta: Path, out: Path, tmp: Path, *, paired: bool, memory: int
) -> None:
    """Write metrics of an alignment whose duplicates are marked.

    Parameters
    ----------
    tools : Tools
        Runs the programs.
    alignment, fasta : Path
        BAM or CRAM, and the reference.
    out, tmp : Path
        The sample's folder, and one for temporary files.
    paired : bool
        Whether there are mates: else there are no insert sizes.
    memory : int
        Bytes of Java's heap.

    Raises
    ------
    Failed
        picard is not installed, or ended with an error.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True)
    start = folder / alignment.stem
    jar = programs.picard_jar(tools.env)
    java = ["java", f"-Xmx{max(_LEAST_HEAP, memory // 1024**2)}m", f"-Djava.io.tmpdir={tmp}"]
    common = ["--INPUT", str(alignment), "--REFERENCE_SEQUENCE", str(fasta)]
    # an unmapped mate at its mate's place, as aligners write it, is no fault
    common += ["--VALIDATION_STRINGENCY", "SILENT", "--TMP_DIR", str(tmp)]

    def run(program: str, *more: str) -> None:
        tools.run(program, [*java, "-jar", jar, program, *common, *more])

    run("CollectAlignmentSummaryMetrics", "--OUTPUT", f"{start}.alignment_summary_metrics.txt")
    run("CollectDuplicateMetrics", "--METRICS_FILE", f"{start}.duplicate_metrics.txt")
    if paired:
        before = tools.env["PATH"]
        tools.env["PATH"] = f"{_rscript(tmp / 'picard-r')}{os.pathsep}{before}"
        try:
            pdf = f"{start}.insert_size_histogram.pdf"
            metrics = f"{start}.insert_size_metrics.txt"
            run("CollectInsertSizeMetrics", "--OUTPUT", metrics, "--Histogram_FILE", pdf)
        finally:
            tools.env["PATH"] = before


def _rscript(folder: Path) -> Path:
    """Return a folder with an ``Rscript`` that draws picard's histogram: nodes have no R.

    picard asks whether it is there with a script alone, and then gives script, metrics, PDF, title.
    """
    folder.mkdir()
    draw = shlex.join([sys.executable, "-I", str(_HISTOGRAM)])
    script = folder / "Rscript"
    script.write_text(f'#!/bin/sh\n[ $# -ge 3 ] || exit 0\nshift\nexec {draw} "$@"\n')
    script.chmod(0o755)
    return folder
