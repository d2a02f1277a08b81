"""What is submitted, and those who submit, cancel and list it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labkit
from bench.chaos import hook
from bench.chaos.partial import driver
from bench.chaos.place import Place
from labkit.base.problems import LabkitError, Problem
from labkit.jobs.job import open_job
from labkit.jobs.model import Resources, Stage, State, Task, literal
from labkit.jobs.plan import Plan
from labkit.workflows.base import Workflow

# A line at each start and end; and one where an earlier attempt's program still lives.
_SCRIPT = """
trace={trace}/{stage}.{key}
for pid in $(awk '$1 == "start" {{print $3}}' $trace 2>/dev/null); do
  if grep -q '^State:.[RSDT]' /proc/$pid/status 2>/dev/null &&
     grep -qs -e 'LABKIT_ATTEMPT={run}:{stage}:{index}\\.' /proc/$pid/environ; then
    echo "twin {attempt} $pid $EPOCHREALTIME" >> $trace
  fi
done
echo "start {attempt} $$ $EPOCHREALTIME" >> $trace
sleep {seconds}
{command}
echo "end {attempt} $$ $EPOCHREALTIME" >> $trace
"""
_TAKE_PART = "echo {attempt} > {out}/out.txt"
_GATHER = "cat {results}/part/*/out.txt > {out}/out.txt"


@dataclass(frozen=True)
class Work:
    """What a round submits.

    Attributes
    ----------
    kind : str
        ``plain``: one stage; ``staged``: two and a gather; ``partial``: partial results, and a
        gather.
    tasks : int
        Of the first stage.
    longest : float
        Seconds that a task takes at most.
    retries : int
        Further attempts of each.
    """

    kind: str
    tasks: int
    longest: float
    retries: int

    @classmethod
    def drawn(cls, rng: random.Random, fewest: int, most: int, longest: float) -> Work:
        """Draw one."""
        kind = rng.choice(["plain", "plain", "staged", "partial"])
        return cls(kind, rng.randint(fewest, most), longest, rng.choice([2, 50]))


class Traced(Workflow):
    """Tasks that leave a line at their start and their end in a file of their own."""

    def __init__(self, work: Work, trace: Path) -> None:
        self._work, self._trace = work, trace

    def check(self) -> list[Problem]:
        """Return no problem."""
        return []

    def build(self, backend: str) -> Plan:
        """Return the plan."""
        work = self._work
        count = work.tasks if work.kind == "plain" else work.tasks // 2
        partial = work.kind == "partial"
        stages = [self._stage("part", count, backend, partial=partial)]
        if work.kind == "staged":
            stages.append(self._stage("next", count, backend, after=("part",)))
        if work.kind != "plain":
            last = stages[-1].name
            stages.append(self._stage("gather", 1, backend, after=(last,), command=_GATHER))
        return Plan(name="chaos", tool="bench", stages=tuple(stages))

    def _stage(
        self,
        name: str,
        count: int,
        backend: str,
        *,
        after: tuple[str, ...] = (),
        partial: bool = False,
        command: str = _TAKE_PART,
    ) -> Stage:
        rng = random.Random(f"{name}{count}")
        tasks = []
        for index in range(count):
            script = _SCRIPT.format(
                trace=self._trace, stage=name, key=f"t{index}", run="{run}", index=index,
                attempt="{attempt}", seconds=f"{rng.random() * self._work.longest:.3f}",
                command=command,
            )  # fmt: skip
            text = literal(script)
            for placeholder in ("attempt", "out", "run", "results"):
                text = text.replace("{" + placeholder + "}", "${" + placeholder + "}")
            tasks.append(
                Task(f"t{index}", index, ("bash", "-euc", text), outputs=("out.txt",),
                     units=driver.UNITS if partial else 1)
            )  # fmt: skip
        time_ = "5 min" if backend == "slurm" else None
        return Stage(
            name, tuple(tasks), Resources.of(0.25, "64 MB", time_), depends_on=after,
            tolerate_failures=name == "gather", retries=self._work.retries,
            driver=Path(driver.__file__) if partial else None,
        )  # fmt: skip


def submitter(
    place: Place, work: Work, backend: str, patience: float, options: dict[str, Any]
) -> None:
    """Submit, wait, and retry until all has succeeded: what a user does."""
    hook.arm(str(place.orders), "client")
    deadline = time.monotonic() + patience
    job: labkit.Job | None = None
    while time.monotonic() < deadline:
        try:
            if job is None:
                job = Traced(work, place.trace).submit(backend, **options)
            state = job.state
            if state is State.SUCCEEDED:
                return
            if state.final:
                _look_twice(place, job, state)
                job.retry()
        except (LabkitError, OSError) as error:
            place.note(f"{type(error).__name__}: {error}"[:300])
            time.sleep(0.2)
        time.sleep(0.1)
    raise TimeoutError(f"not over after {patience} s")


def _look_twice(place: Place, job: labkit.Job, state: State) -> None:
    """Say where what was final no longer is, or something of it still runs."""
    submissions = len(job.run.submissions())
    time.sleep(0.3)
    snapshot = job.refresh()
    if len(job.run.submissions()) != submissions:
        return  # another submitter was quicker
    if snapshot.state is not state:
        place.note(f"CHANGED {state} -> {snapshot.state}")
    elif programs := place.of("program"):
        time.sleep(0.5)
        if set(programs) & set(place.of("program")) and job.state is state:
            place.note(f"FINAL-BUT-RUNS {state} {programs}")
    open_tasks = [(task.stage, task.index, str(task.reason), task.text) for task in snapshot.open]
    place.note(f"retry after {state}: {open_tasks[:4]}")


def canceller(path: Path) -> None:
    """Cancel."""
    open_job(path).cancel()


def lister(place: Place) -> None:
    """Ask for all jobs."""
    paths = place.run_folders()
    listed = {job.path for job in labkit.jobs()}
    for path in paths:
        if path not in listed:
            place.note(f"JOBS-MISSES {path}")
