"""The card as text, for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.jobs.model import State
from labkit.jobs.notebook.view import View, view
from labkit.jobs.runs.watch import Snapshot

if TYPE_CHECKING:
    from labkit.jobs.job import Job

_BAR = 40
_SIGNS = {
    State.SUCCEEDED: "█",
    State.RUNNING: "▒",
    State.FAILED: "x",
    State.CANCELLED: "-",
}


def card(job: Job, snapshot: Snapshot | None = None) -> str:
    """Return the card of a job."""
    shown = view(job, snapshot or job.refresh())
    lines = [shown.title, f"  [{bar(shown)}] {shown.headline}"]
    lines += [f"  {name:<9} {value}" for name, value in shown.facts]
    for failure in shown.failed:
        lines.append(f"  {failure.title}: {failure.text}")
        lines += [f"    | {line}" for line in failure.log.splitlines()]
    if shown.more_failed:
        lines.append(f"  … and {shown.more_failed:,} more")
    lines.append(f"  As of {shown.when}. {shown.hint}")
    return "\n".join(lines)


def bar(shown: View, width: int = _BAR) -> str:
    """Return the bar."""
    text = "".join(_SIGNS[state] * round(share * width) for state, share in shown.shares)
    return text[:width].ljust(width, "·")


def line(job: Job, snapshot: Snapshot) -> str:
    """Return one line that fits the terminal."""
    shown = view(job, snapshot)
    left = next((value for name, value in shown.facts if name == "Time"), "")
    text = f"[{bar(shown, 20)}] {shown.headline}; {left}"
    return text[: shutil.get_terminal_size().columns - 1]


def listing(jobs: Sequence[Job]) -> str:
    """Return jobs as a table."""
    rows = [("job", "state", "done", "where", "created")]
    for job in jobs:
        snapshot = job.refresh()
        done = f"{snapshot.count(State.SUCCEEDED):,}/{snapshot.tasks:,}"
        state = str(snapshot.state) + ("" if snapshot.known else " ?")
        rows.append((job.name, state, done, job.backend, job.run.manifest.created))
    if len(rows) == 1:
        return "No jobs yet."
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
