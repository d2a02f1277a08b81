"""What ``import labkit`` offers, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "before",
    ["import labkit", "import labkit, labkit.jobs.model", "from labkit.jobs.job import jobs"],
)
def test_jobs_is_a_function_and_a_package(before: str, tmp_path: Path) -> None:
    code = (
        f"{before}\nimport labkit\nassert list(labkit.jobs(limit=3)) == []\n"
        "import labkit.jobs.runs.index as index\nassert index.Index\n"
        "assert list(labkit.jobs()) == []"
    )
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
