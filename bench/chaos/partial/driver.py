"""Four units a task: one of them fails until an earlier attempt has been committed."""

from __future__ import annotations

import shutil
from typing import Any

UNITS = 4


def run(task: Any) -> None:
    """Make the units that are missing; the last one only after a retry."""
    if task.earlier is not None:
        for path in task.earlier.glob("unit.*"):
            shutil.copy(path, task.out)
    for unit in range(UNITS):
        place = task.out / f"unit.{unit}"
        if place.exists():
            continue
        if unit == UNITS - 1 and not task.failed_before:
            task.unit_failed(f"{task.key}.{unit}", "EXIT", "fails once", site=unit)
            continue
        if task.call(["sh", "-euc", f": > unit.{unit}.new; echo {unit} > unit.{unit}"]):
            task.fail("EXIT", f"unit {unit} failed")
        task.progress(unit + 1, UNITS)
    if code := task.call(task.argv):
        task.fail("EXIT", f"ended with code {code}")
