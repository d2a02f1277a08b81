"""A failure's text begins with the cause: the first fifty characters are what a table shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.workflows.alignment.task_code import causes
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment.conftest import Data

BANNER = (
    "This is cutadapt 5.2 with Python 3.11.2\n"
    "Command line parameters: -j 1 --json /scratch/x/metrics/L1.cutadapt.json -a AGATCGGAAGAGC "
    "-A AGATCGGAAGAGC --minimum-length 20 --max-n 0.1 --pair-filter=any --interleaved a b\n"
    "Processing paired-end reads on 1 core ...\n"
)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            BANNER + 'ERROR: Traceback (most recent call last):\n  File "x.py", line 1, in run\n'
            "dnaio.exceptions.FastqFormatError: Error in FASTQ file at line 7\n\n"
            "ERROR: Error in FASTQ file at line 7: bad\n",
            "Error in FASTQ file at line 7: bad",
        ),
        (BANNER + "cutadapt: error: There are more reads\n", "There are more reads"),
        (
            "[M::bwa_idx_load_from_disk] read 0 ALT contigs\n[M::process] read 20 sequences\n"
            '[mem_sam_pe] paired reads have different names: "a", "b"\n',
            'paired reads have different names: "a", "b"',
        ),
        (
            "[E::hts_open_format] Failed to open file x\nsamtools view: failed\n",
            "Failed to open file x",
        ),
        (
            "Picked up JDK_JAVA_OPTIONS: -Xmx1g\nINFO\t2026-01-01 SetNmMdAndUqTags\n"
            'Exception in thread "main" htsjdk.samtools.SAMException: No dictionary\n'
            "\tat htsjdk.A.b(A.java:7)\n\t... 3 more\n",
            "SAMException: No dictionary",
        ),
        ("samtools sort: couldn't allocate memory\n", "samtools sort: couldn't allocate memory"),
        ("[M::process] read 20 sequences\n", ""),
        ("", ""),
    ],
)
def test_the_cause_is_found_among_banners_and_frames(said: str, wanted: str) -> None:
    assert causes.cause(said) == wanted


@needs_env("alignment")
@pytest.mark.slow
def test_a_program_in_a_job_is_told_by_its_cause(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text(BANNER + "cutadapt: error: Line 7 is no quality\n")
    script = f"cat {tmp_path / 'said'} >&2; exit 1"
    monkeypatch.setenv("LABHUB_ENVS", str(helpers.environment(tmp_path, {"cutadapt": script})))
    job = helpers.run(helpers.Streams(data.rows, data.fasta, aligner="bwa"), retries=0)
    (failed,) = job.failed().to_dict("records")
    assert failed["text"] == "Line 7 is no quality (cutadapt of lane L1 ended with code 1)"
