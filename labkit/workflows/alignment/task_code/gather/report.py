"""One MultiQC report over all samples of a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import layout

REPORT = "multiqc_report.html"
_TAIL = 800  # characters of MultiQC's last words
_TIMEOUT = 1800  # seconds
# MultiQC takes a sample's name from the file's; these ends are no part of it.
_ENDS = (".stats", ".idxstats", ".coverage", ".markdup", ".cutadapt", ".recalibration", ".calls")


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
    config = tmp / "multiqc_config.json"
    ends = [{"type": "truncate", "pattern": f"{end}."} for end in _ENDS]
    settings = {
        "title": title,
        "extra_fn_clean_exts": ends,
        "use_filename_as_sample_name": True,
        "show_analysis_paths": False,  # a folder that is gone by then
        "no_ai": True,  # its buttons would send the samples' numbers to others
    }
    config.write_text(json.dumps(settings))  # JSON is YAML too
    argv = [str(Path(sys.executable).with_name("multiqc")), str(inputs), "--outdir", str(out)]
    argv += ["--filename", REPORT, "--config", str(config), "--no-version-check", "--no-data-dir"]
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
    if done.returncode or not (out / REPORT).is_file():
        text = f"MultiQC ended with code {done.returncode}: {done.stdout[-_TAIL:].strip()}"
        return {"made": False, "text": text}
    return {"made": True, "file": REPORT}


def sources(name: str, folder: Path) -> list[tuple[Path, str]]:
    """Return a sample's reports that MultiQC reads, and the names they are given."""
    found = [
        (folder / layout.STATS, f"{name}.stats.txt"),
        (folder / layout.IDXSTATS, f"{name}.idxstats.txt"),
        (folder / layout.COVERAGE, f"{name}.coverage.txt"),
        (folder / layout.METRICS / "calls.stats.txt", f"{name}.calls.txt"),
        (folder / layout.RECALIBRATION / "recalibration.table", f"{name}.recalibration.table"),
    ]
    suffix = ".cutadapt.txt"
    for path in sorted((folder / layout.METRICS).glob(f"*{suffix}")):
        lane = path.name[: -len(suffix)]
        found.append((path, f"{name}_{lane}{suffix}"))
    return [(source, target) for source, target in found if source.is_file()]
