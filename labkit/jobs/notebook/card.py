"""The card as plain HTML: no script, so that it survives saving, reloading and sharing.

Text takes the colour around it and the signals are mid-tones, so that it reads on light and dark;
each state has its own sign beside its colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from labkit.jobs.model import State
from labkit.jobs.notebook.view import Cells, View, view
from labkit.jobs.runs.watch import Snapshot

if TYPE_CHECKING:
    from labkit.jobs.job import Job

COLOURS = {
    State.SUCCEEDED: "#2e8b57",
    State.RUNNING: "#2f7fd0",
    State.PENDING: "#8c8c8c",
    State.FAILED: "#d0453a",
    State.CANCELLED: "#a8761c",
}
_SIGNS = {
    State.SUCCEEDED: "■",
    State.RUNNING: "▶",
    State.PENDING: "□",
    State.FAILED: "✕",
    State.CANCELLED: "–",
}
_BOX = (
    "border:1px solid #8c8c8c;border-radius:8px;padding:12px 16px;max-width:52rem;"
    "font-family:sans-serif;line-height:1.5"
)
_CELL = "text-align:left;padding:0 1rem 0 0;vertical-align:top"


def card(job: Job, snapshot: Snapshot | None = None, *, live: bool = False) -> str:
    """Return the card of a job; every value is escaped.

    Parameters
    ----------
    live : bool
        Whether it will be updated while the kernel lives.
    """
    seen = snapshot or job.refresh()
    shown = view(job, seen)
    facts = "".join(
        f"<tr><th scope='row' style='{_CELL}'>{escape(name)}</th>"
        f"<td style='{_CELL}'>{escape(value)}</td></tr>"
        for name, value in shown.facts
    )
    return (
        f"<div style='{_BOX}' role='region' aria-label='Job {escape(shown.title, quote=True)}'>"
        f"<div><strong>{escape(shown.title)}</strong> "
        f"{_sign(shown.state)} {escape(shown.headline)}</div>"
        f"{_bar(shown)}{_grids(shown)}"
        f"<table style='margin:4px 0;color:inherit'><tbody>{facts}</tbody></table>"
        f"{_failures(shown)}{job.figure_html(seen)}"
        f"<div style='font-size:90%'>{_when(shown, live)} <code>{escape(shown.hint)}</code></div>"
        "</div>"
    )


def _sign(state: State) -> str:
    """Return a state's sign: colour alone tells nothing to everybody."""
    return f"<span aria-hidden='true' style='color:{COLOURS[state]}'>{_SIGNS[state]}</span>"


def _bar(shown: View) -> str:
    done = sum(share for state, share in shown.shares if state is not State.RUNNING)
    parts = "".join(
        f"<div style='float:left;height:10px;width:{share * 100:.2f}%;"
        f"background-color:{COLOURS[state]}'></div>"
        for state, share in shown.shares
    )
    return (
        f"<div role='progressbar' aria-valuemin='0' aria-valuemax='100' "
        f"aria-valuenow='{done * 100:.0f}' aria-label='{escape(shown.headline, quote=True)}' "
        f"style='height:10px;overflow:hidden;border:1px solid #8c8c8c;border-radius:5px;"
        f"margin:6px 0'>{parts}</div>"
    )


def _grids(shown: View) -> str:
    return "".join(
        f"<div style='font-size:80%'>{escape(stage)}</div>"
        f"<div role='img' aria-label='{escape(_said(stage, cells), quote=True)}' "
        f"style='font-family:monospace;line-height:1.2;word-break:break-all'>"
        + "".join(_run(run) for run in cells)
        + "</div>"
        for stage, cells in shown.grids
    )


def _run(run: Cells) -> str:
    tasks = f"task {run.first}" if run.first == run.last else f"tasks {run.first}–{run.last}"
    return (
        f"<span style='color:{COLOURS[run.state]}' title='{tasks}: {run.state}'>"
        f"{_SIGNS[run.state] * run.count}</span>"
    )


def _said(stage: str, cells: list[Cells]) -> str:
    failed = sum(run.last - run.first + 1 for run in cells if run.state is State.FAILED)
    return f"Task grid of {stage}" + (f": failures among {failed} tasks" if failed else "")


def _failures(shown: View) -> str:
    parts = [
        f"<details><summary>{_sign(State.FAILED)} {escape(failure.title)}: "
        f"{escape(failure.text)}</summary>"
        f"<pre style='margin:4px 0 4px 16px;white-space:pre-wrap'>"
        f"{escape(failure.log) or '(its log is empty)'}</pre></details>"
        for failure in shown.failed
    ]
    if shown.more_failed:
        parts.append(f"<div>… and {shown.more_failed:,} more in <code>job.failed()</code></div>")
    return "".join(parts)


def _when(shown: View, live: bool) -> str:
    if shown.state.final:
        return f"Final, as of {escape(shown.when)}."
    later = f'<code>labkit.open_job("{escape(shown.title)}")</code> shows it as it is now.'
    if live:
        return f"As of {escape(shown.when)}; updated while this kernel lives. Long ago? {later}"
    return f"As of {escape(shown.when)}. {later}"


def listing(jobs: Sequence[Job]) -> str:
    """Return jobs as an HTML table."""
    rows = ""
    for job in jobs:
        snapshot = job.refresh()
        state = snapshot.state
        unknown = "" if snapshot.known else " (as last known)"
        values = (
            f"<code>{escape(job.name)}</code>",
            f"{_sign(state)} {state}{unknown}",
            f"{snapshot.count(State.SUCCEEDED):,} of {snapshot.tasks:,}",
            escape(job.backend),
            escape(job.run.manifest.created),
        )
        rows += "<tr>" + "".join(f"<td style='{_CELL}'>{v}</td>" for v in values) + "</tr>"
    if not rows:
        return "<em>No jobs yet.</em>"
    head = "".join(
        f"<th scope='col' style='{_CELL}'>{name}</th>"
        for name in ("job", "state", "succeeded", "where", "created")
    )
    return (
        f"<table style='color:inherit'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
