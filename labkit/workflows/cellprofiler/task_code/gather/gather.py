"""Gather a CellProfiler job.

Writes into OUT:

``tables/<name>.parquet``
    Every table that the pipeline exported, over all image sets.
``images.parquet``
    Every image that was saved, by image set.
``profiles/``
    Well profiles, see ``profiles.py``.
``gather.json``
    What is there, what is missing and why.
"""

from __future__ import annotations

import csv
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import costs
from . import aggregates, saved, tables

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_REAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")


def main(run: Path, out: Path, memory: int) -> None:
    """Gather a run folder into ``out``, with at most about half of ``memory`` (bytes)."""
    settings = json.loads((run / "files" / "gather.json").read_text())
    rows = read_rows(run / "files" / "images.csv")
    parts, failed, facts = read_parts(run, settings)
    good = frozenset().union(*(part.good for part in parts)) if parts else frozenset()
    if not good:
        reasons = sorted({entry["text"] for entry in failed})
        raise tables.GatherError(
            f"not one of {len(rows)} image sets is good: {'; '.join(reasons[:3])}"
        )
    (out / "tables").mkdir()
    tables_found = tables.find(parts, settings["prefixes"])
    planned = planned_columns(rows)
    summary: dict[str, Any] = {}
    for done, (name, files) in enumerate(sorted(tables_found.items())):
        target = out / "tables" / f"{name}.parquet"
        count, seen = tables.gather(
            files,
            target,
            delimiter=settings["delimiter"],
            planned=planned,
            memory=memory // 4,
            may_skip=settings["may_skip"],
        )
        summary[name] = {"rows": count, "image_sets": len(seen)}
        if name == "Image" and seen != good:
            lost = sorted(good - seen)
            raise tables.GatherError(f"the Image table lacks image sets {lost[:5]} ({len(lost)})")
        print(f"GATHERED {done + 1}/{len(tables_found) + 1}", flush=True)
    unknown = aggregates.renew(out / "tables")
    if unknown:
        print(
            f"null, since the objects' tables lack what they need: {', '.join(unknown)}", flush=True
        )
    saved_images = gather_images(parts, rows, settings["saves"], out)
    result = {
        "image_sets": len(rows),
        "good": len(good),
        "failed": failed,
        "tables": summary,
        "saved_images": saved_images,
        "profiles": gather_profiles(run, out, rows, settings),
        "facts": facts,
        "gathered": time.time(),
    }
    (out / "gather.json").write_text(json.dumps(result))
    remember(facts, settings["fingerprint"], Path(settings["costs"]))
    print(f"GATHERED {len(tables_found) + 1}/{len(tables_found) + 1}", flush=True)


def remember(facts: list[dict[str, Any]], fingerprint: str, file: Path) -> None:
    """Keep what the pipeline costs for the next plan; nothing depends on it."""
    cost = costs.combine(facts)
    if cost is not None:
        try:
            costs.remember(fingerprint, cost, file)
        except OSError as error:
            print(f"the cost is not remembered: {error}", flush=True)


def read_rows(path: Path) -> dict[int, dict[str, str]]:
    """Return the job's image sets by ImageNumber."""
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["ImageNumber"]): row for row in csv.DictReader(file)}


def read_parts(
    run: Path, settings: dict[str, Any]
) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of all tasks, the image sets that are not good, and the tasks' costs."""
    parts, failed, facts = [], [], []
    for index, task in enumerate(settings["tasks"]):
        folder = run / "results" / "analysis" / task["key"]
        numbers = from_ranges(task["rows"])
        records = records_of(run / "tasks" / "analysis", index)
        record = records[-1] if records else {}
        facts += [
            {**each["facts"], "memory": each.get("peak_rss", 0)}
            for each in records
            if "facts" in each
        ]
        good: set[int] = set()
        if (folder / "parts.json").is_file():
            for part in json.loads((folder / "parts.json").read_text()):
                here = frozenset(part["good"])
                if here & good:
                    raise tables.GatherError(f"{folder} has image sets twice")
                good |= here
                place = folder / part["folder"]
                parts.append(tables.Part(place, tuple(part["numbers"]), here))
        if good - set(numbers):
            raise tables.GatherError(f"{folder} has image sets that were not planned for it")
        units = {int(unit["key"]): unit for unit in record.get("units_failed", ())}
        for number in sorted(set(numbers) - good):
            unit = units.get(number, record)
            reason, text = unit.get("reason", "LOST"), unit.get("text", "its task left no record")
            failed.append({"ImageNumber": number, "reason": reason, "text": text})
    return parts, failed, facts


def records_of(folder: Path, index: int) -> list[dict[str, Any]]:
    """Return the records of a task's attempts, the last one last."""
    records: list[dict[str, Any]] = []
    while (path := folder / f"{index}.{len(records) + 1}.json").is_file():
        records.append(json.loads(path.read_text()))
    return records


def from_ranges(text: str) -> list[int]:
    """Return the numbers of ``"1-4,7"``."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def planned_columns(rows: dict[int, dict[str, str]]) -> dict[str, pa.Array]:
    """Return groups and metadata by ImageNumber - 1, each with one type over the whole job.

    A part of the images may look like numbers where the whole does not; and groups are counted
    over the whole.
    """
    names = [
        name
        for name in next(iter(rows.values()))
        if name.startswith("Metadata_") or name in tables.PLANNED
    ]
    columns = {}
    for name in names:
        values = [rows[number][name] for number in range(1, len(rows) + 1)]
        columns[name] = typed(values)
    return columns


def typed(values: list[str]) -> pa.Array:
    """Return texts as whole or real numbers where all are; ``01`` and ``A1`` stay texts."""
    filled = [value for value in values if value != ""]
    if filled and all(_WHOLE.fullmatch(value) for value in filled):
        return pa.array([int(v) if v else None for v in values], pa.int64())
    if filled and all(_WHOLE.fullmatch(v) or _REAL.fullmatch(v) for v in filled):
        return pa.array([float(v) if v else None for v in values], pa.float64())
    return pa.array([value or None for value in values], pa.string())


def gather_images(parts: list[Any], rows: dict[int, dict[str, str]], saves: Any, out: Path) -> int:
    """Write the index of saved images; paths are relative to the run folder's ``results``."""
    entries = []
    for part in parts:
        results = part.folder.parents[2]
        for entry in saved.index(part.folder, part.numbers, rows, saves):
            number = entry["ImageNumber"]
            if number is not None and number not in part.good:
                continue
            row = rows.get(number, {})
            place = {name: row.get(name, "") for name in ("plate", "well", "site")}
            path = os.path.relpath(entry["path"], results)
            entries.append({**entry, **place, "path": path})
    entries.sort(key=lambda entry: (entry["ImageNumber"] or 0, entry["path"]))
    schema = pa.schema(
        [("ImageNumber", pa.int64())]
        + [(name, pa.string()) for name in ("image", "path", "plate", "well", "site")]
    )
    pq.write_table(pa.Table.from_pylist(entries, schema=schema), out / "images.parquet")
    return len(entries)


def gather_profiles(
    run: Path, out: Path, rows: dict[int, dict[str, str]], settings: dict[str, Any]
) -> dict[str, Any]:
    """Make the profiles; what stands against them is told, and costs nobody the tables."""
    if not settings["profiles"]:
        return {"made": False, "text": "not asked for (profiles=False)"}
    from . import profiles  # pandas and pycytominer, which not every job needs

    plate_map = run / "files" / "platemap.csv"
    try:
        made = profiles.make(
            out / "tables", out / "profiles", rows, plate_map if plate_map.is_file() else None
        )
    except profiles.ProfileError as error:
        return {"made": False, "text": str(error)}
    except ImportError as error:
        return {"made": False, "text": f"the notebook environment lacks {error.name}"}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"made": False, "text": f"{type(error).__name__}: {error}"}
    return {"made": True, **made}


def command(run: Path, out: Path, memory: int) -> int:
    """Gather, and return the exit code; what went wrong is printed for the driver."""
    try:
        main(run, out, memory)
    except tables.GatherError as problem:
        print(f"ERROR {problem}", flush=True)
        return 1
    return 0
