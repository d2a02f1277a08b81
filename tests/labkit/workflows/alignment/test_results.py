"""What a finished job tells: tables against the truth, report, figures, the card."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.workflows.alignment import example
from labkit.workflows.alignment.job import AlignmentJob
from labkit.workflows.alignment.task_code.gather import metrics
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.support.portal import built_envs

pytestmark = needs_env("alignment")

SAMPLES = ("one", "two")
BROKEN = "broken"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> example.Example:
    return example.make(
        tmp_path_factory.mktemp("reads"),
        samples=(*SAMPLES, BROKEN),
        lanes=2,
        pairs=6000,
        contigs=(30_000, 10_000),
        snps=60,
        ploidy=2,
        duplicates=0.1,
        insert_size=(180.0, 60.0),
        read_length=100,
    )


@pytest.fixture(scope="module")
def job(
    module_home: Path, made: example.Example, tmp_path_factory: pytest.TempPathFactory
) -> AlignmentJob:
    """A job of which one sample fails: its aligner ends early, as if all was well."""

    import pandas as pd

    sheet = pd.read_csv(made.samples)
    folder = tmp_path_factory.mktemp("envs")
    fails = 'case " $* " in *" -R "*SM:broken*) exec head -c 0;; esac; exec "$REAL" "$@"'
    envs = helpers.environment(folder, {"bwa": fails})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABHUB_ENVS", str(envs))
        workflow = labkit.Alignment(sheet, made.reference, aligner="bwa")
        done = workflow.submit("local", retries=0).wait(150)
    assert done.state is State.FAILED
    found = open_job(done.path)
    assert isinstance(found, AlignmentJob)
    return found


def test_counts_are_those_of_the_truth(job: AlignmentJob, made: example.Example) -> None:
    table = job.results("alignment").set_index("sample")
    assert list(table.index) == list(SAMPLES)
    for sample in SAMPLES:
        row, truth = table.loc[sample], made.fragments[sample]
        assert row["reads_sequenced"] == 2 * len(truth) == 12_000
        assert row["reads"] == row["mapped"] == row["paired"] == 12_000
        assert row["properly_paired_fraction"] > 0.98
        copies = truth["duplicate"].sum()
        assert row["duplicates"] == pytest.approx(2 * copies, rel=0.03)
        assert row["duplicate_fraction"] == pytest.approx(row["duplicates"] / row["mapped"])
        lengths = truth["length"]
        assert row["insert_size_median"] == pytest.approx(lengths.median(), abs=3)
        assert row["insert_size_mean"] == pytest.approx(lengths.mean(), abs=4)
        assert row["insert_size_sd"] == pytest.approx(lengths.std(), abs=4)
        short = (lengths <= 97).mean()  # cutadapt wants three bases of the adapter
        chance = sum(4.0**-bases for bases in range(3, 10))  # that a read ends so by itself
        assert row["adapter_fraction"] == pytest.approx(short + (1 - short) * chance, abs=0.006)
        kept = np.minimum(lengths, 100)[~truth["duplicate"]]
        assert row["mean_depth"] == pytest.approx(2 * kept.sum() / 40_000, rel=0.02)
        assert 0.001 < row["error_rate"] < 0.02
        assert row["covered_fraction"] > 0.99 and row["lanes"] == 2


def test_tables_fit_each_other(job: AlignmentJob, made: example.Example) -> None:
    alignment = job.results("alignment").set_index("sample")
    lanes = job.results("lanes").groupby("sample")
    assert list(lanes["reads"].sum()) == list(alignment["reads_sequenced"])
    assert list(lanes["kept"].sum()) == list(alignment["reads"])
    sizes = job.results("insert_sizes")
    assert (sizes[["inward", "outward", "other"]].sum(axis=1) == sizes["pairs"]).all()
    contigs = job.results("contigs")
    assert list(contigs["contig"]) == ["contig1", "contig2"] * 2
    assert list(contigs.groupby("sample")["mapped"].sum()) == list(alignment["mapped"])
    windows = job.results("coverage")
    assert list(windows.groupby(["sample", "contig"])["end"].max()) == [30_000, 10_000] * 2
    width = windows["end"] - windows["start"]
    depth = (windows["mean_depth"] * width).groupby(windows["sample"]).sum() / 40_000
    assert list(depth) == pytest.approx(list(alignment["mean_depth"]), rel=1e-3)
    cycles = job.results("cycles")
    assert cycles.groupby("sample")["cycle"].max().tolist() == [100, 100]
    bases = job.results("alignment").set_index("sample")["bases"]
    assert list(cycles.groupby("sample")["bases"].sum()) == list(bases)
    first, last = cycles[cycles["cycle"] <= 10], cycles[cycles["cycle"] > 90]
    assert last["error_rate"].mean() > 2 * first["error_rate"].mean()  # as they were made
    assert first["mean_quality"].mean() > last["mean_quality"].mean() + 5


def test_alignments_are_listed_with_their_checksums(job: AlignmentJob) -> None:
    table = job.results("bams")
    assert list(table["sample"]) == list(SAMPLES)
    for bam in table.to_dict("records"):
        assert hashlib.sha256(Path(bam["path"]).read_bytes()).hexdigest() == bam["sha256"]
        assert Path(bam["path"]).stat().st_size == bam["bytes"]
        head = subprocess.check_output(["samtools", "view", "-H", bam["path"]], text=True)
        assert f"SM:{bam['sample']}" in head and Path(bam["index"]).is_file()
        assert (bam["duplicates_marked"], bam["recalibrated"]) == (True, False)
        assert bam["recalibration_table"] is None


def test_command_lines_and_versions_are_told(job: AlignmentJob) -> None:
    commands = job.results("commands")
    aligner = commands[commands["step"].str.startswith("bwa of lane")]
    assert list(aligner["sample"]) == ["one", "one", "two", "two"]
    assert aligner["command"].str.contains(r"bwa mem -t \d+ .*SM:one").tolist()[:2] == [True, True]
    assert (commands["cpu_seconds"] > 0).any() and commands["seconds"].notna().all()
    versions = job.results("versions").pivot(index="sample", columns="tool", values="version")
    assert {"bwa", "cutadapt", "samtools"} <= set(versions)
    assert versions["samtools"].str.match(r"1\.\d+").all()


def test_what_failed_is_told_and_the_rest_is_there(job: AlignmentJob) -> None:
    assert job.summary["samples"] == list(SAMPLES)
    (failed,) = job.summary["failed"]
    assert failed["sample"] == BROKEN and failed["reason"] in ("EXIT", "CHECK")
    assert set(job.failed()["key"]) == {BROKEN}


def test_the_report_has_every_sample_and_tool(job: AlignmentJob) -> None:
    page = job.report.read_text()
    for sample in SAMPLES:
        assert f"{sample} L1" in page
    for section in ("Samtools", "Cutadapt", "samtools-stats", "samtools-markdup", "coverage"):
        assert section in page
    assert f"{BROKEN} L1" not in page
    assert job.name in page and "Summarize report" not in page  # nothing is sent to others
    assert "https://api.multiqc.info" not in job.logs("samples", stage="gather")


@pytest.mark.parametrize(
    "name", ["insert_size", "coverage", "duplicates", "depth", "mismatches", "recalibration"]
)
def test_figures_show_the_tables(job: AlignmentJob, name: str) -> None:
    from matplotlib.patches import Rectangle

    figure = job.plot(name)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    if name == "recalibration":  # nothing was
        assert [text.get_text() for text in axes.texts] == ["none"]
    elif name == "duplicates":
        table = job.results("alignment")
        widths = [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]
        unique = (table["mapped"] - table["duplicates"]) / table["reads"]
        assert widths[:2] == pytest.approx(list(unique))
    else:
        long = [line for line in axes.lines if np.size(line.get_xdata()) > 2]
        assert [line.get_label() for line in long] == [*SAMPLES]
    if name == "coverage":
        line = np.asarray(axes.lines[0].get_ydata(), float)
        assert line.mean() == pytest.approx(job.results("alignment")["mean_depth"][0], rel=0.02)
    if name == "insert_size":
        x, y = np.asarray(axes.lines[0].get_data(), float)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.03)
        assert x[y.argmax()] == pytest.approx(180, abs=40)


def test_a_figure_shows_itself_in_a_notebook(job: AlignmentJob) -> None:
    from IPython.core.formatters import DisplayFormatter

    formatter: Any = DisplayFormatter()
    data, _ = formatter.format(job.plot("insert_size", "coverage"))
    assert data["image/png"].startswith(b"\x89PNG")
    assert len(job.plot().axes) == 3  # as in the card


def test_the_card_shows_numbers_and_figures_once_it_has_ended(job: AlignmentJob) -> None:
    page = job._repr_html_()
    assert "data:image/png;base64," in page and "<script" not in page
    row = job.results("alignment").iloc[0]
    for text in ("one</th>", f"{row['reads']:,.0f}", f"{row['duplicate_fraction']:.1%}"):
        assert text in page
    assert f"mean depth {job.results('alignment')['mean_depth'].mean():.1f}" in page


def test_names_that_are_not_there_are_told_with_those_that_are(job: AlignmentJob) -> None:
    assert {"alignment", "bams", "coverage"} <= set(job.results()["table"])
    with pytest.raises(LabkitError, match="alignment"):
        job.results("alignments-of-yesterday")
    with pytest.raises(LabkitError, match="insert_size"):
        job.plot("inserts")


def test_a_finished_job_is_handed_on_to_sarek(job: AlignmentJob, tmp_path: Path) -> None:
    import pandas as pd

    sheet = job.to_sarek(tmp_path / "sarek.csv", status={"one": 1}, patient={"one": "two"})
    table = pd.read_csv(sheet.path)
    assert list(table["bam"]) == list(job.results("bams")["path"])
    assert sheet.step == "prepare_recalibration" and len(sheet.notes) == 1
    with pytest.raises(RefusedError, match="there is no such sample"):
        job.to_sarek(tmp_path / "sarek.csv", status={"three": 1})


def gather_again(run: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a run folder's own gather into a folder, without a scheduler."""
    (folder / "tmp").mkdir(parents=True)
    asked = {"params": {}, "cpu": 1, "memory": 2**31}
    where = {"files": run / "files", "results": run / "results"}
    where |= {"out": folder, "tmp": folder / "tmp"}
    request = folder / "tmp" / "task.json"
    request.write_text(json.dumps(asked | {name: str(path) for name, path in where.items()}))
    program = next(run.rglob("task_code/__main__.py")).parent
    python = built_envs() / "alignment" / "bin" / "python3"
    argv = [str(python), "-I", str(program), "gather.gather", str(request)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def test_a_report_that_cannot_be_read_costs_only_what_is_made_of_it(
    tmp_path: Path, job: AlignmentJob
) -> None:
    import pandas as pd

    run = tmp_path / job.name
    shutil.copytree(job.path, run)
    one, two = (run / "results" / "align" / sample for sample in SAMPLES)
    text = (one / "metrics" / "stats.txt").read_text()
    (one / "metrics" / "stats.txt").write_text(text.split("SN\t")[0])
    (two / "metrics" / "windows.tsv").write_bytes(b"contig\nbroken \xff\n")
    done = gather_again(run, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    tables = {path.stem: pd.read_parquet(path) for path in (tmp_path / "out").glob("*.parquet")}
    problems = tables["problems"].set_index("sample")
    assert list(problems.index) == [BROKEN, *SAMPLES]
    assert problems.loc[BROKEN, "tables"] is None  # its task failed: it is in none
    assert problems.loc["one", "tables"] == "alignment, insert_sizes, depth_histogram, cycles"
    assert f"{one}/metrics/stats.txt has no summary" in str(problems.loc["one", "text"])
    assert problems.loc["two", "tables"] == "coverage"
    assert f"{two}/metrics/windows.tsv cannot be read" in str(problems.loc["two", "text"])
    assert list(tables["alignment"]["sample"]) == ["two"]
    assert set(tables["coverage"]["sample"]) == {"one"}
    for table in ("bams", "lanes", "contigs", "commands", "versions"):
        assert set(tables[table]["sample"]) == set(SAMPLES)
    content = json.loads((tmp_path / "out" / "gather.json").read_text())
    assert content["tables"] == {name: len(table) for name, table in tables.items()}
    assert not content["report"]["made"] and "no sample" in content["report"]["text"]
    assert (tmp_path / "out" / "summary.png").stat().st_size > 1000
    for path in (*one.rglob("*.*"), *two.rglob("*.*")):
        path.write_bytes(b"\xff\xfe")
    done = gather_again(run, tmp_path / "nothing")
    assert done.returncode == 1
    assert "ERROR CHECK" in done.stdout and "not one of 2 samples can be read" in done.stdout


def test_samples_with_other_columns_are_no_parts_of_one_table(
    tmp_path: Path, job: AlignmentJob
) -> None:
    """Nulls in the place of what was never measured would look like results."""
    run = tmp_path / job.name
    shutil.copytree(job.path, run)
    (run / "results" / "align" / "two" / "metrics" / "L1.cutadapt.json").unlink()
    done = gather_again(run, tmp_path / "out")
    assert done.returncode == 1
    assert "ERROR CHECK" in done.stdout
    assert "differ in columns of lanes: adapter_fraction, bases, bases_kept" in done.stdout


def test_the_card_names_whose_reports_cannot_be_read(
    job: AlignmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    row = {"sample": "<one>", "reason": "CHECK", "text": "stats.txt is cut", "tables": "cycles"}
    assert "lacks results" not in job._repr_html_()  # the one that failed is told as a task
    real = AlignmentJob.results

    def results(self: AlignmentJob, name: str | None = None, **options: Any) -> Any:
        return pd.DataFrame([row]) if name == "problems" else real(self, name, **options)

    monkeypatch.setattr(AlignmentJob, "results", results)
    page = job._repr_html_()
    assert "1 sample lacks results" in page
    assert "<b>&lt;one&gt;</b>: stats.txt is cut" in page


def test_a_report_that_is_not_whole_is_named(tmp_path: Path, job: AlignmentJob) -> None:
    folder = tmp_path / "metrics"
    shutil.copytree(job.run.folder.results / "align" / "one" / "metrics", folder)
    text = (folder / "stats.txt").read_text().split("SN\t")[0]
    (folder / "stats.txt").write_text(text)
    with pytest.raises(metrics.MetricsError, match="did not come to its end"):
        metrics.Stats(folder / "stats.txt")
    (folder / "markdup.txt").write_text("COMMAND: samtools markdup\n")
    with pytest.raises(metrics.MetricsError, match="nothing of duplicates"):
        metrics.read_markdup(folder / "markdup.txt")
    (folder / "flagstat.json").write_text('{"QC-passed reads": {}}')
    with pytest.raises(metrics.MetricsError, match=r"flagstat\.json cannot be read: KeyError"):
        metrics.read_flagstat(folder / "flagstat.json")


def test_without_a_single_sample_there_is_no_gather(module_home: Path, tmp_path: Path) -> None:
    made = example.make(tmp_path, pairs=50, contigs=(3000,), snps=2)
    envs = helpers.environment(
        tmp_path, {"bwa": 'case $1 in mem) exit 7;; esac; exec "$REAL" "$@"'}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABHUB_ENVS", str(envs))
        workflow = labkit.Alignment(made.samples, made.reference, aligner="bwa")
        job: Any = workflow.submit("local", retries=0).wait(100)
    failed = job.failed().set_index("stage")
    assert "not one of 1 samples is good" in str(failed.loc["gather", "text"])
    assert "ended with code 7" in str(failed.loc["gather", "text"])
    with pytest.raises(LabkitError, match="has no gathered results"):
        job.results("bams")
    with pytest.raises(LabkitError, match="has no gathered results"):
        _ = job.report
    assert job.figure_html(job.refresh()) == ""


def test_reads_without_mates_adapters_and_duplicates(module_home: Path, tmp_path: Path) -> None:
    import pandas as pd

    made = example.make(tmp_path, pairs=1500, contigs=(8000,), snps=5, duplicates=0.0)
    sheet = pd.read_csv(made.samples).drop(columns="fastq_2")
    options: dict[str, Any] = {"adapters": None, "mark_duplicates": False, "format": "cram"}
    workflow = labkit.Alignment(sheet, made.reference, aligner="bwa", **options)
    job: Any = workflow.submit("local").wait(100)
    (row,) = job.results("alignment").to_dict("records")
    assert row["reads_sequenced"] == row["reads"] == row["mapped"] == 1500
    assert row["paired"] == row["properly_paired"] == 0
    missing = ("duplicates", "duplicate_fraction", "adapter_fraction", "insert_size_median")
    assert all(pd.isna(row[name]) for name in (*missing, "properly_paired_fraction"))
    assert row["mean_depth"] == pytest.approx(1500 * 100 / 8000, rel=0.05)
    assert job.results("lanes")["kept"].tolist() == [1500]
    assert not len(job.results("insert_sizes"))
    assert "–</td>" in job._repr_html_()
    for axes in job.plot("insert_size", "duplicates").axes:
        assert axes.texts or axes.patches
    (bam,) = job.results("bams").to_dict("records")
    assert bam["index"].endswith(".cram.crai") and not bam["duplicates_marked"]
    sheet = job.to_sarek(tmp_path / "sarek.csv")
    assert sheet.step == "markduplicates" and "crai" in sheet.path.read_text()
    assert job.report.is_file()


def test_run_folders_say_what_they_hold(job: AlignmentJob) -> None:
    import pandas as pd

    for table, rows in job.summary["tables"].items():
        assert len(pd.read_parquet(job.gathered / f"{table}.parquet")) == rows
