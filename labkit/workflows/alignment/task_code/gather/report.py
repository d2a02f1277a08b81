"""One MultiQC report over all samples of a job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import layout

REPORT = "multiqc_report.html"
_TAIL = 800  # characters of MultiQC's last words
_TIMEOUT = 1800  # seconds
# MultiQC takes a sample's name from the file's; these ends, and nothing else, are no part of it.
# Its own list of ends would make one sample of A, A.sorted and A.dedup.
_ENDS = (
    *(".stats.txt", ".idxstats.txt", ".coverage.txt", ".cutadapt.txt", ".calls.txt"),
    *(".markdup.json", ".recalibration.table"),
)


def make(samples: dict[str, Path], out: Path, tmp: Path, title: str) -> dict[str, Any]:
    """Make the report; what stands against it is told, and costs nobody the tables.

    Parameters
    ----------
    samples : dict of str to Path
        The samples' folders; only of those whose reports can be read.
    out, tmp : Path
        The report is written into ``out``.
    title : str
        Of the report.

    Returns
    -------
    dict
        ``made``; ``file`` and ``missing`` (what it should show, and does not), or ``text``.
    """
    if not samples:
        return {"made": False, "text": "no sample's reports can be read as a whole"}
    inputs = tmp / "multiqc"
    inputs.mkdir()
    for name, folder in samples.items():
        for source, target in sources(name, folder):
            (inputs / target).symlink_to(source)
        if (folder / layout.MARKDUP).is_file():
            # MultiQC 1.35 does not recognize markdup's text, but its JSON, which 1.16 cannot write.
            lines = (folder / layout.MARKDUP).read_text().splitlines()
            counts = dict(line.split(": ", 1) for line in lines if ": " in line)
            (inputs / f"{name}.markdup.json").write_text(json.dumps(counts, indent=1))
    wanted = {_without_end(path.name) for path in inputs.iterdir()}
    config = tmp / "multiqc_config.json"
    ends = [{"type": "regex", "pattern": f"{re.escape(end)}$"} for end in _ENDS]
    settings = {
        "title": title,
        "fn_clean_exts": ends,
        "fn_clean_trim": [],
        "data_format": "json",
        "use_filename_as_sample_name": True,
        "show_analysis_paths": False,  # a folder that is gone by then
        "no_ai": True,  # its buttons would send the samples' numbers to others
    }
    config.write_text(json.dumps(settings))  # JSON is YAML too
    made = tmp / "multiqc-report"
    argv = [str(Path(sys.executable).with_name("multiqc")), str(inputs), "--outdir", str(made)]
    argv += ["--filename", REPORT, "--config", str(config), "--no-version-check"]
    env = {**os.environ, "HOME": str(tmp), "MPLCONFIGDIR": str(tmp), "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp,
            env=env,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"made": False, "text": f"MultiQC did not run: {error}"}
    print(done.stdout, flush=True)
    if done.returncode or not (made / REPORT).is_file():
        text = f"MultiQC ended with code {done.returncode}: {done.stdout[-_TAIL:].strip()}"
        return {"made": False, "text": text}
    shutil.copyfile(made / REPORT, out / REPORT)
    shown = _shown(made)
    return {"made": True, "file": REPORT, "missing": sorted(wanted - shown)}


def _without_end(file: str) -> str:
    return next(file[: -len(end)] for end in _ENDS if file.endswith(end))


def _shown(made: Path) -> set[str]:
    """Return the names that a report shows, as MultiQC lists them beside it."""
    (sources,) = made.glob("*_data/multiqc_sources.json")
    content = json.loads(sources.read_text())
    return {name for sections in content.values() for names in sections.values() for name in names}


def sources(name: str, folder: Path) -> list[tuple[Path, str]]:
    """Return a sample's reports that MultiQC reads, and the names they are given."""
    files = [
        (folder / layout.STATS, f"{name}.stats.txt"),
        (folder / layout.IDXSTATS, f"{name}.idxstats.txt"),
        (folder / layout.COVERAGE, f"{name}.coverage.txt"),
        (folder / layout.METRICS / "calls.stats.txt", f"{name}.calls.txt"),
        (folder / layout.RECALIBRATION / "recalibration.table", f"{name}.recalibration.table"),
    ]
    suffix = ".cutadapt.txt"
    for path in sorted((folder / layout.METRICS).glob(f"*{suffix}")):
        lane = path.name[: -len(suffix)]
        # no name has a space: A_B's lane C is not A's lane B_C
        files.append((path, f"{name} {lane}{suffix}"))
    return [(source, target) for source, target in files if source.is_file()]
