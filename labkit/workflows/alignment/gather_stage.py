"""The last stage of alignment jobs: tables, one report, one picture."""

from __future__ import annotations

from pathlib import Path

from labkit.jobs.model import Container, Environment, Resources, Stage, Task
from labkit.workflows.alignment.task_code import layout

_HERE = Path(__file__).parent
_SHARED = (
    *(_HERE / "task_code" / f"{name}.py" for name in ("driver", "layout", "pipe", "request")),
    *(_HERE / "gather" / f"{name}.py" for name in ("metrics", "report", "schemas")),
)
_ALIGNMENT = tuple(_HERE / "gather" / f"{name}.py" for name in ("gather", "plots"))
_MEMORY = 2 * 1024**3


def gather_stage(environment: Environment | Container) -> Stage:
    """Return the stage that gathers the samples of an alignment job."""
    return _stage("gather.py", layout.ALIGN_STAGE, environment, _ALIGNMENT)


def gather_calls_stage(environment: Environment | Container) -> Stage:
    """Return the stage that gathers the samples of a job of variant calls."""
    calls = (_HERE / "gather" / "calls.py", *_ALIGNMENT)
    return _stage("calls.py", "calls", environment, calls)


def _stage(
    program: str, after: str, environment: Environment | Container, files: tuple[Path, ...]
) -> Stage:
    outputs = ("gather.json",)
    return Stage(
        "gather",
        (Task("samples", 0, outputs=outputs, params={"program": program}),),
        Resources(memory=_MEMORY),
        environment,
        depends_on=(after,),
        tolerate_failures=True,  # what there is, and what is missing and why
        driver=(*_SHARED, *files),
    )
