"""Alignment jobs of tests: without their gather, and with programs that fail on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.jobs.job import Job
from labkit.jobs.plan import Plan
from labkit.workflows.alignment import Alignment
from tests.support.portal import built_envs


class Streams(Alignment):
    """An alignment whose results nobody gathers: the tests look at the tasks' own files."""

    def build(self, backend: str) -> Plan:
        plan = super().build(backend)
        kept = tuple(stage for stage in plan.stages if stage.name in ("reference", "align"))
        return replace(plan, stages=kept)


def run(workflow: Alignment, **options: Any) -> Job:
    """Run a job to its end."""
    return workflow.submit("local", **options).wait(400)


def sample(job: Job, name: str) -> Path:
    """Return a sample's folder."""
    return job.run.folder.results / "align" / name


def environment(folder: Path, programs: Mapping[str, str]) -> Path:
    """Make environments in which some programs of ``alignment`` are scripts of the test.

    A script finds the real program as ``$REAL``.
    """
    real = built_envs() / "alignment" / "bin"
    made = folder / "envs" / "alignment" / "bin"
    made.mkdir(parents=True)
    for path in real.parent.iterdir():
        if path.name not in ("bin", "share"):
            (made.parent / path.name).symlink_to(path)
    for path in real.iterdir():
        if path.name not in programs:
            (made / path.name).symlink_to(path)
    for name, text in programs.items():
        program = real / name if (real / name).exists() else Path("/usr/bin") / name
        (made / name).write_text(f"#!/bin/sh\nREAL={program}\n{text}\n")
        (made / name).chmod(0o755)
    return folder / "envs"
