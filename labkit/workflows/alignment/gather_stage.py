"""The last stage of alignment jobs: tables, one report, one picture."""

from __future__ import annotations

from pathlib import Path

from labkit.jobs.model import Container, Environment, Resources, Stage, Task
from labkit.workflows.alignment.task_code import layout

#: The driver of all stages of alignment jobs.
DRIVER = Path(__file__).parent / "task_code" / "driver.py"
_MEMORY = 2 * 1024**3


def gather_stage(environment: Environment | Container) -> Stage:
    """Return the stage that gathers the samples of an alignment job."""
    return _stage("gather.gather", layout.ALIGN_STAGE, environment)


def gather_calls_stage(environment: Environment | Container) -> Stage:
    """Return the stage that gathers the samples of a job of variant calls."""
    return _stage("gather.calls", "calls", environment)


def _stage(program: str, after: str, environment: Environment | Container) -> Stage:
    outputs = ("gather.json",)
    return Stage(
        "gather",
        (Task("samples", 0, outputs=outputs, params={"program": program}),),
        Resources(memory=_MEMORY),
        environment,
        depends_on=(after,),
        tolerate_failures=True,  # what there is, and what is missing and why
        driver=DRIVER,
    )
