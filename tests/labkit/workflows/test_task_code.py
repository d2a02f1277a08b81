"""What runs on a node: packages that need nothing but themselves and their environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.jobs.runs import drivers
from labkit.workflows import alignment, cellprofiler

PACKAGES = [
    Path(str(package.__file__)).parent / "task_code" for package in (alignment, cellprofiler)
]
# CellProfiler's own modules are in CellProfiler's environment alone.
NOT_HERE = {"probe", "__main__"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_a_copy_alone_can_be_imported(package: Path, tmp_path: Path) -> None:
    drivers.copy(package / "driver.py", tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    names = [
        ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        for path in tmp_path.rglob("*.py")
        if path.stem not in {"__init__", *NOT_HERE}
    ]
    assert "task_code.driver" in names and len(names) > 5
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from importlib import import_module\nfor name in {names!r}: import_module(name)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'labkit']"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True, env={"PATH": os.defpath})


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_a_driver_is_found_under_the_name_that_the_manifest_has(package: Path) -> None:
    assert drivers.module_name(package / "driver.py") == "task_code.driver"
    copied = dict(drivers.files(package / "driver.py"))
    assert {"driver.py", "__main__.py", "gather/gather.py"} <= set(copied)
