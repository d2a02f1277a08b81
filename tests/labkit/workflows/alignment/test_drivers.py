"""Each stage brings all modules that its programs import: nodes have no labkit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labkit.jobs.model import Environment
from labkit.workflows.alignment import gather_stage, plans, variants

HOME = Path(plans.__file__).parent
SIBLINGS = {path.stem for name in ("task_code", "gather") for path in (HOME / name).glob("*.py")}
_IMPORTS = re.compile(r"(?:import_module|_sibling)\(\"(\w+)\"\)")
_STAGE = Environment("alignment")
_STAGES: dict[str, tuple[Path, ...]] = {
    "reference": plans._REFERENCE_DRIVER,
    "align": plans._ALIGN_DRIVER,
    "calls": variants._DRIVER,
    "gather": gather_stage.gather_stage(_STAGE).driver,
    "gather of calls": gather_stage.gather_calls_stage(_STAGE).driver,
}


@pytest.mark.parametrize("name", _STAGES)
def test_a_stage_brings_what_its_programs_import(name: str) -> None:
    files = _STAGES[name]
    here = {path.stem for path in files}
    assert len(here) == len(files) and all(path.is_file() for path in files)
    wanted = {found for path in files for found in _IMPORTS.findall(path.read_text())}
    assert wanted & SIBLINGS <= here
    assert here - wanted <= {"driver", "index", "align", "call", "gather", "calls"}, (
        "brought in vain"
    )
