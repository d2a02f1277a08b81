"""FastQC in the environment of alignments, as the how-to calls it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

import labkit
from labkit.jobs.model import State
from tests.conftest import needs_env
from tests.labkit.workflows.alignment.conftest import Data


@needs_env("alignment")
@pytest.mark.slow
def test_fastqc_counts_the_reads(data: Data, lab_home: Path, tmp_path: Path) -> None:
    reads = data.rows[0]["fastq_1"]
    job = labkit.Command(
        "fastqc --quiet -o {out} {reads}",
        over=[{"reads": reads}],
        inputs=["reads"],
        outputs=["*_fastqc.zip"],
        environment="alignment",
        output=tmp_path,
    ).submit()
    assert job.wait(300).state is State.SUCCEEDED, job.logs()
    assert len(job.results("*_fastqc.html")) == 1
    (packed,) = job.results("*_fastqc.zip")["path"]
    with zipfile.ZipFile(packed) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("fastqc_data.txt")]
        found = archive.read(name).decode()
    assert re.search(r"Total Sequences\t3000\n", found)
