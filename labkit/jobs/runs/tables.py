"""Tables of a run: what failed, all tasks, results."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.base.problems import LabkitError
from labkit.jobs.model import State
from labkit.jobs.runs.store import Run
from labkit.jobs.runs.watch import Snapshot, Watch

if TYPE_CHECKING:
    import pandas as pd

    from labkit.jobs.runs.failed_table import FailedTable

_FAILED = ("stage", "key", "state", "reason", "text", "attempts", "log")


def failed(run: Run, snapshot: Snapshot) -> FailedTable:
    """Return one row per task, or per unit of it, that failed or was cancelled."""
    from labkit.jobs.runs.failed_table import FailedTable

    wrong = [task for task in snapshot.open if task.state in (State.FAILED, State.CANCELLED)]
    lines = _lines(run, {(task.stage, task.index) for task in wrong})
    rows: list[dict[str, Any]] = []
    for task in wrong:
        line = lines[task.stage, task.index]
        attempt = task.record.get("attempt", 0)
        row = {
            "stage": task.stage,
            "key": line["key"],
            **_about(line),
            "state": str(task.state),
            "reason": str(task.reason),
            "text": task.text,
            "attempts": task.attempts,
            "log": str(run.folder.log(task.stage, task.index, attempt)) if attempt else "",
        }
        units = task.record.get("units_failed", [])
        rows += [{**row, **unit} for unit in units] if units else [row]
    return FailedTable(rows) if rows else FailedTable(columns=list(_FAILED))


def tasks(watch: Watch, snapshot: Snapshot) -> pd.DataFrame:
    """Return one row per task."""
    import pandas as pd

    still = {(task.stage, task.index): task for task in snapshot.open}
    rows = []
    for name, view in watch.stages.items():
        for line in watch.run.folder.tasks(name):
            task = still.get((name, line["index"]))
            record = task.record if task else view.successes[line["index"]]
            rows.append(
                {
                    "stage": name,
                    "key": line["key"],
                    **_about(line),
                    "state": str(task.state) if task else "SUCCEEDED",
                    "reason": str(task.reason) if task else "",
                    "attempts": task.attempts if task else view.attempts[line["index"]],
                    "seconds": record.get("seconds"),
                    "cpu_seconds": record.get("cpu_seconds"),
                    "cpu": record.get("cpu"),
                    "peak_memory": record.get("peak_rss"),
                    "memory": record.get("memory"),
                    "host": record.get("host"),
                    "result": record.get("result", ""),
                }
            )
    return pd.DataFrame(rows)


def results(run: Run, name: str | None, engine: str) -> Any:
    """Return a gathered table, or the tasks' files that match a glob."""
    if engine not in ("pandas", "polars", "arrow"):
        raise LabkitError(f"engine must be pandas, polars or arrow, not {engine!r}.")
    if name is not None:
        for path in run.folder.results.glob(f"gather/*/{name}.parquet"):
            return _read(path, engine)
    rows = []
    for info in run.manifest.stages:
        for line in run.folder.tasks(info.name):
            folder = run.folder.result(info.name, line["key"])
            row = {"stage": info.name, "key": line["key"], **_about(line)}
            if name is None:
                if folder.is_dir():
                    rows.append({**row, "path": str(folder)})
                continue
            rows += [{**row, "path": str(path)} for path in sorted(folder.glob(name))]
    if not rows:
        raise LabkitError(_nothing(run, name))
    import pandas as pd

    return pd.DataFrame(rows)


def _read(path: Path, engine: str) -> Any:
    if engine == "polars":
        return import_module("polars").scan_parquet(path)
    if engine == "arrow":
        return import_module("pyarrow.parquet").read_table(path)
    import pandas as pd

    return pd.read_parquet(path)


def _nothing(run: Run, name: str | None) -> str:
    tables = sorted(path.stem for path in run.folder.results.glob("gather/*/*.parquet"))
    files: set[str] = set()
    for path in run.folder.results.glob("*/*/*"):
        files.add(path.name)
        if len(files) >= 10:
            break
    there = [f"tables: {', '.join(tables)}"] if tables else []
    there += [f"files: {', '.join(sorted(files))}"] if files else []
    what = "There are no results yet" if name is None else f"There is no result {name!r}"
    return f"{what} in {run.folder.results}. " + ("There are " + "; ".join(there) if there else "")


def _about(line: dict[str, Any]) -> dict[str, Any]:
    """Return the task's row of the user's table."""
    row: dict[str, Any] = line.get("params", {}).get("row", {})
    return {column: value for column, value in row.items() if column not in _FAILED}


def _lines(run: Run, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {
        (info.name, line["index"]): line
        for info in run.manifest.stages
        if any(stage == info.name for stage, _ in wanted)
        for line in run.folder.tasks(info.name)
        if (info.name, line["index"]) in wanted
    }
