"""A shortened ``python -m bench.chaos``: one minute of kills, always the same ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.job_faults import ROOT


@pytest.mark.slow
def test_a_minute_of_kills_loses_and_doubles_nothing(tmp_path: Path) -> None:
    words = ["-m", "bench.chaos", "local", "--seed", "8", "--kills", "60", "--seconds", "40"]
    done = subprocess.run(
        [sys.executable, *words, "--keep", str(tmp_path / "rounds")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    kills = re.search(r"\| \*\*kills\*\* \| \*\*(\d+)\*\* \|", done.stdout)
    assert kills and int(kills[1]) >= 15, done.stdout
    for fault in ("lost", "doubled", "records replaced", "orphans", "leftovers"):
        assert f"| {fault} | 0 |" in done.stdout
