"""The card: true, live while the kernel lives, and plain enough to survive everything else."""

from __future__ import annotations

import re
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.jobs.notebook import card, text
from labkit.jobs.notebook.card import COLOURS
from labkit.jobs.notebook.view import CELLS
from tests.support.backend_contract import Site
from tests.support.job_helpers import stage, until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


class Checked(HTMLParser):
    """Reads HTML: every tag closed, and which tags and attributes there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.text = ""
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_failed_job_says_what_and_why(site: Site) -> None:
    job = site.run(stage("mix", "true", "echo 'the reason is <b>this</b>' >&2; exit 4", "true"))
    shown = Checked(job._repr_html_())
    for part in (
        "FAILED: 2 succeeded, 1 failed of 3 tasks", "mix t1: EXIT", "sh ended with code 4",
        "the reason is <b>this</b>", "job.retry()", str(job.path), "Final, as of 20",
    ):  # fmt: skip
        assert part in shown.text, part
        assert part in text.card(job) or "Final" in part, part
    assert "b" not in shown.tags, "what a program says is text"


def test_only_what_a_notebook_keeps(site: Site) -> None:
    shown = Checked(site.run(stage("mix", "true", "exit 4"))._repr_html_())
    assert shown.tags <= {
        "div", "span", "strong", "table", "tbody", "tr", "th", "td", "code", "pre", "details",
        "summary",
    }  # fmt: skip
    assert shown.names <= {
        "style", "role", "title", "scope", "aria-label", "aria-hidden", "aria-valuemin",
        "aria-valuemax", "aria-valuenow",
    }  # fmt: skip


def test_names_cannot_write_html(tmp_path: Path, lab_home: Path) -> None:
    job = labkit.Command(
        "sh -c {x}",
        over=[{"x": "echo '<script>alert(1)</script>'; exit 1"}],
        output=tmp_path / "<i>&",
    ).submit()
    job.wait(20)
    assert not Checked(job._repr_html_()).tags & {"script", "i"}
    assert "<script>" not in labkit.jobs()._repr_html_()


def test_ten_thousand_tasks_fit(site: Site) -> None:
    job = site.submit(stage("many", *["sleep 60"] * 10_000))
    html = job._repr_html_()
    assert len(html) < 10_000
    grid = re.sub("<[^>]*>", "", html.split("role='img'")[1].split("</div>")[0].partition(">")[2])
    assert len(grid) <= CELLS
    assert "10,000 tasks" in html
    job.cancel()


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("state", list(State))
def test_signs_read_on_light_and_dark(state: State) -> None:
    for ground in ("#ffffff", "#111111"):
        assert contrast(COLOURS[state], ground) >= 3


def test_time_left_and_units(site: Site) -> None:
    hold = site.folder / "hold"
    script = f"echo 30 100 > $LABKIT_PROGRESS; while [ ! -e {hold} ]; do sleep 0.1; done"
    job = site.submit(stage("slow", script, "true", "true", "true"))
    until(lambda: job.refresh().count(State.SUCCEEDED) == 3)
    until(lambda: "about" in text.card(job))
    assert "3 succeeded, 1 running" in text.card(job)
    hold.touch()
    job.wait(20)
    assert "about" not in text.card(job)


def execute(folder: Path, *cells: str, allow_errors: bool = False) -> list[Any]:
    """Run cells in a real kernel and return them with their outputs, as they would be saved."""

    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells]
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=60, allow_errors=allow_errors, resources=place).execute()
    saved = folder / "saved.ipynb"
    nbformat.write(notebook, saved)
    again = nbformat.read(saved, as_version=4)
    return list(again.cells)


@pytest.fixture
def kernel_home(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(lab_home / "ipython"))
    return lab_home


def html_of(cell: Any) -> list[str]:
    return [out["data"]["text/html"] for out in cell.outputs if "text/html" in out.get("data", {})]


@pytest.mark.slow
def test_the_card_follows_and_is_saved(kernel_home: Path, tmp_path: Path) -> None:
    cells = execute(
        tmp_path,
        """
        import labkit, time
        job = labkit.Command("sleep {s}", over=[{"s": "0.2"}, {"s": "1"}]).submit()
        job
        """,
        "job.wait()",
        "job.failed()",
        "assert (await job) is job\njob",
        "labkit.jobs()",
        "time.sleep(4)",  # the kernel lives on, as a person's does: the first card follows
    )
    (first,) = html_of(cells[0])
    assert "SUCCEEDED: 2 succeeded of 2 tasks" in first, "updated after its cell had ended"
    (waited,) = html_of(cells[1])
    assert "SUCCEEDED: 2 succeeded" in waited
    plain = cells[1].outputs[0]["data"]["text/plain"]
    assert "SUCCEEDED" in plain
    assert len(html_of(cells[3])) == 1, "await and the value of the cell show one card"
    assert "SUCCEEDED" in html_of(cells[4])[0]


def test_a_card_that_is_left_says_how_old_it_is(kernel_home: Path, tmp_path: Path) -> None:
    cells = execute(
        tmp_path,
        """
        import labkit
        job = labkit.Command("sleep 30").submit()
        job
        """,
    )
    (left,) = html_of(cells[0])
    assert re.search(r"As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; updated while", left)
    (name,) = re.findall(r"open_job\(&quot;(.*?)&quot;\)|open_job\(\"(.*?)\"\)", left)
    job = open_job("".join(name))
    assert job.state in (State.PENDING, State.RUNNING), "the job outlives its kernel"
    job.cancel().wait(20)


def test_ctrl_c_detaches(kernel_home: Path, tmp_path: Path) -> None:
    cells = execute(
        tmp_path,
        """
        import labkit, os, signal, threading
        job = labkit.Command("sleep 2").submit()
        threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            job.wait()
        except KeyboardInterrupt as interrupt:
            print(interrupt)
        """,
        "print(job.wait().state)",
    )
    said = "".join(out.get("text", "") for out in cells[0].outputs)
    assert "Detached" in said
    assert "job.cancel()" in said
    assert "SUCCEEDED" in "".join(out.get("text", "") for out in cells[1].outputs)


def plain(lines: list[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))


@pytest.mark.slow
def test_a_notebook_shows_texts_for_people_whole_and_without_frames(
    kernel_home: Path, tmp_path: Path
) -> None:
    missing = "intensities-of-all-nuclei-on-the-first-plate-of-the-second-week.csv"
    refused, unknown, failed, column, log = execute(
        tmp_path,
        "import labkit\nlabkit.Command('wc', over='none.csv', outputs=['../x']).submit()",
        "labkit.open_job('nothing-of-this-name')",
        f"""
        over = [{{"sample": "Probe 1 (α)"}}, {{"sample": "Probe 2 (β)"}}]
        job = labkit.Command("echo {{sample}}", over, outputs=["{missing}"]).submit()
        while not job.state.final:
            pass
        job.failed()
        """,
        "print(job.failed())\njob.failed()['text']",
        "print(job.logs('Probe 2 (β)'))",
        allow_errors=True,
    )
    for cell, name, told in (
        (refused, "RefusedError", "Refused, nothing was started (2 problems):"),
        (unknown, "LabkitError", "nothing-of-this-name"),
    ):
        (error,) = [out for out in cell.outputs if out["output_type"] == "error"]
        assert error["ename"] == name
        assert told in plain(error["traceback"])
        assert "Traceback" not in plain(error["traceback"])
        assert ".py" not in plain(error["traceback"])
        assert len(error["traceback"]) <= 3
    (table,) = html_of(failed)
    assert missing in Checked(re.sub(r"<style.*?</style>", "", table, flags=re.DOTALL)).text
    shown = "".join(out.get("text", "") or out["data"]["text/plain"] for out in column.outputs)
    assert shown.count(missing) == 4, shown
    assert "Probe 2 (β)" in "".join(out.get("text", "") for out in log.outputs)


def test_listing_of_none(lab_home: Path) -> None:
    assert repr(labkit.jobs()) == "No jobs yet."
    assert card.listing([]) == "<em>No jobs yet.</em>"
