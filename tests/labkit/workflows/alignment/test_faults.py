"""What goes wrong in the middle of a stream fails the task, with its cause and with numbers."""

from __future__ import annotations

import gzip
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from labkit.base import process_tree
from labkit.jobs.job import Job
from labkit.jobs.model import State
from labkit.jobs.worker.folder import mark
from labkit.workflows.alignment import checks
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import stepwise
from tests.labkit.workflows.alignment.conftest import Data
from tests.support.job_helpers import until

pytestmark = [needs_env("alignment"), pytest.mark.slow]


def run(data: Data, **options: Any) -> Job:
    rows = options.pop("rows", data.rows)
    return helpers.run(helpers.Streams(rows, data.fasta, aligner="bwa", **options), retries=0)


def failure(job: Job) -> tuple[str, str]:
    """Return reason and text of the only failed task; nothing of it may be committed."""
    failed = job.failed().to_dict("records")
    assert [row["stage"] for row in failed] == ["align"], failed
    assert not helpers.sample(job, "s").exists()
    return failed[0]["reason"], failed[0]["text"]


def test_an_aligner_that_is_given_fewer_reads_than_were_cut_is_seen(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 lines a read: 5,000 of the 6,000 reads of the first lane
    script = 'case "$1" in mem) cat >"$TMPDIR/all"; head -n 20000 "$TMPDIR/all" | "$REAL" "$@";; '
    script += '*) exec "$REAL" "$@";; esac'
    envs = helpers.environment(tmp_path, {"bwa": script})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    reason, text = failure(run(data))
    assert reason == "CHECK"
    assert text.startswith("1,000 reads differ: ") and text.endswith("(lane L1)")
    assert "6,000 reads went to the aligner, bwa counted 5,000" in text


def test_a_program_that_loses_records_and_ends_well_is_seen_by_the_counts(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'case "$1" in fixmate) "$REAL" view -h --no-PG - | awk "NR <= 11000" | "$REAL" "$@";; '
    envs = helpers.environment(tmp_path, {"samtools": script + '*) exec "$REAL" "$@";; esac'})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    reason, text = failure(run(data))
    assert reason == "CHECK"
    assert "reads were lost: 12,000 reads went into the aligner, 10,99" in text
    assert "came out of the stream" in text


def test_what_was_measured_but_not_written_is_seen(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        'case "$*" in *--write-index*) "$REAL" "$@" --subsample 0.5;; *) exec "$REAL" "$@";; esac'
    )
    envs = helpers.environment(tmp_path, {"samtools": script})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    reason, text = failure(run(data))
    assert reason == "CHECK"
    assert "records came out of the stream" in text
    assert "are in s.bam" in text
    assert "are missing" in text


def test_a_member_that_is_killed_fails_the_task_and_is_named(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the aligner stands still in the middle, with records written already
    script = 'case "$1" in mem) "$REAL" "$@"; echo $$ >"$MARK"; exec sleep 100;; '
    script += '*) exec "$REAL" "$@";; esac'
    note = tmp_path / "pid"
    envs = helpers.environment(tmp_path, {"bwa": script.replace("$MARK", str(note))})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    job = helpers.Streams(data.rows, data.fasta, aligner="bwa").submit("local", retries=0)
    pid = int(str(until(lambda: note.is_file() and note.read_text().strip(), 60)))
    assert process_tree.start_time(pid)
    os.kill(pid, signal.SIGKILL)
    assert job.wait(60).state is State.FAILED
    reason, text = failure(job)
    assert reason == "EXIT"
    assert text.startswith("bwa of lane L1 was ended by signal 9 (SIGKILL)")
    left = mark(job.path, "align", 0, 1)
    assert until(lambda: not process_tree.marked("LABKIT_ATTEMPT", left))


def test_a_program_that_fails_is_told_with_its_own_words_and_a_retry_mends_it(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    script = f'if [ "$1" = sort ] && [ -e {broken} ]; then echo "no memory left" >&2; exit 4; fi\n'
    envs = helpers.environment(tmp_path, {"samtools": script + 'exec "$REAL" "$@"'})
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    job = run(data)
    reason, text = failure(job)
    assert reason == "EXIT"
    assert text.startswith("no memory left (sort ended with code 4)")
    broken.unlink()
    assert job.retry().wait(100).state is State.SUCCEEDED
    found = stepwise.records(helpers.sample(job, "s") / "s.bam")
    assert sum(record.primary for record in found) == 12_000


@pytest.mark.parametrize("how", ["cut off", "damaged"])
def test_a_file_that_is_broken_far_inside_is_found_while_it_is_read(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(checks, "_PROVED", 0)  # as if it were too large to be proved before
    one, other = (Path(row["fastq_1"]).read_bytes() for row in data.rows)
    content = one + other + one  # gzip files in a row are one
    middle = len(content) - len(one) // 2
    path = tmp_path / "s_L1_1.fastq.gz"
    path.write_bytes(content[:middle] + (b"" if how == "cut off" else b"\0" * 99 + one))
    mates = [Path(row["fastq_2"]).read_bytes() for row in (*data.rows, data.rows[0])]
    whole = tmp_path / "s_L1_2.fastq.gz"
    whole.write_bytes(b"".join(mates))
    row = {**data.rows[0], "fastq_1": str(path), "fastq_2": str(whole)}
    reason, text = failure(run(data, rows=[row]))
    assert reason == "INPUT"
    assert text.startswith(f"s_L1_1.fastq.gz is {how}")
    assert text.endswith(f"(lane L1, {path})")


def test_mates_of_which_one_has_fewer_reads_are_told(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = gzip.decompress(Path(data.rows[0]["fastq_2"]).read_bytes()).splitlines(keepends=True)
    path = tmp_path / "short_2.fastq.gz"
    path.write_bytes(gzip.compress(b"".join(lines[:-40])))
    row = {**data.rows[0], "fastq_2": str(path)}
    monkeypatch.setattr(checks, "_PROVED", 0)  # as if it were too large to be proved before
    for adapters in ("truseq", None):  # cutadapt tells other words, bwa only warns and ends well
        reason, text = failure(run(data, rows=[row], adapters=adapters))
        assert reason == "INPUT"
        assert text.startswith("they are no mates: short_2.fastq.gz has 2,990 reads, s_L1_1.fastq")


def test_adapters_that_are_not_cut_leave_nothing_to_cutadapt(data: Data, lab_home: Path) -> None:
    job = run(data, adapters=None)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    folder = helpers.sample(job, "s")
    assert not list(folder.glob("metrics/*cutadapt*"))
    assert sum(r.primary for r in stepwise.records(folder / "s.bam")) == 12_000


def test_an_environment_without_a_program_is_told_by_its_name(
    data: Data, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = helpers.environment(tmp_path, {})
    (envs / "alignment" / "bin" / "cutadapt").unlink()
    monkeypatch.setenv("LABHUB_ENVS", str(envs))
    reason, text = failure(run(data))
    assert reason == "EXIT"
    assert "the program 'cutadapt' is not installed in the environment" in text
