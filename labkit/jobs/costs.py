"""What my jobs have cost, from the records of their attempts."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labkit.base.units import GB
from labkit.jobs.job import jobs
from labkit.jobs.prices import Prices
from labkit.jobs.runs.store import Run

if TYPE_CHECKING:
    import pandas as pd

_HOUR = 3600.0  # seconds
_MOST = 10_000  # jobs


def costs(by: str = "job") -> pd.DataFrame:
    """Return what my jobs have cost.

    Every attempt counts, failed ones too, by the cores and the memory that it asked for.

    Parameters
    ----------
    by : {"job", "month", "backend"}
        What a row stands for.

    Returns
    -------
    DataFrame
        ``core_hours``, ``gb_hours`` and ``amount`` in ``currency``; ``amount`` is missing where the
        backend has no price.

    Raises
    ------
    ValueError
        There are no such rows.
    """
    import pandas as pd

    if by not in ("job", "month", "backend"):
        raise ValueError(f"by must be 'job', 'month' or 'backend', not {by!r}")
    prices = Prices.here()
    rows = [row for job in jobs(_MOST) for row in _uses(job.run, prices)]
    names = ["job", "month", "backend", "core_hours", "gb_hours", "amount"]
    table = pd.DataFrame(rows, columns=names).astype({"amount": float})
    # Of rows with and without a price the sum is not known: min_count keeps it missing.
    grouped = table.groupby(by, sort=True)
    found = grouped[["core_hours", "gb_hours"]].sum()
    found["amount"] = grouped["amount"].agg(lambda values: values.sum(skipna=False))
    return found.reset_index().assign(currency=prices.currency)


def _uses(run: Run, prices: Prices) -> list[dict[str, Any]]:
    backends = {one.number: one.backend for one in run.submissions()}
    used: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for info in run.manifest.stages:
        for index, attempt in run.folder.attempts("tasks", info.name):
            record = _read(run, info.name, index, attempt)
            seconds = record.get("seconds") or 0.0
            ended = datetime.fromtimestamp(record.get("ended") or 0.0, UTC)
            where = (ended.strftime("%Y-%m"), backends.get(record.get("submission", 1), ""))
            used[where][0] += record.get("cpu", 0.0) * seconds
            used[where][1] += record.get("memory", 0) * seconds
    return [
        {
            "job": run.path.name,
            "month": month,
            "backend": backend,
            "core_hours": cores / _HOUR,
            "gb_hours": size / GB / _HOUR,
            "amount": prices.amount(backend, cores, size),
        }
        for (month, backend), (cores, size) in used.items()
    ]


def _read(run: Run, stage: str, index: int, attempt: int) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(run.folder.record(stage, index, attempt).read_bytes())
    except (OSError, ValueError):
        return {}
    return record
