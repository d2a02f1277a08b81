"""CellProfiler by labkit against CellProfiler by hand: same images, same machine, one run.

``python -m bench.cellprofiler [--image-sets 24] [--data ExampleFly|plate|both] [--csv-mb 300]``

(a) one process per image set, the common practice; (b) one process for all; (h) one process per
core, split by hand; (c) labkit on this machine; (d) labkit on a real SLURM with as many cores. CPU
seconds are what to compare: walls depend on who else uses the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

import labkit
from labkit.testing import SlurmCluster
from labkit.testing.machine import missing_programs
from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.task_code import costs
from labkit.workflows.cellprofiler.task_code.gather import tables
from tests.labkit.workflows.cellprofiler.pipelines import EXAMPLE_FLY, ONE_THREAD, VOLATILE
from tests.support.portal import built_envs

CORES = len(os.sched_getaffinity(0))
_MODULE_TIME = re.compile(r"CPU_time = ([\d.]+) secs")


@dataclass
class Used:
    """What a way of running took.

    Attributes
    ----------
    cpu, wall : float
        Seconds.
    memory : int
        Peak bytes of one process.
    modules : float
        CPU seconds inside CellProfiler's modules.
    """

    cpu: float
    wall: float
    memory: int
    modules: float


@dataclass
class Work:
    """A pipeline and its image sets."""

    name: str
    pipeline: Path
    count: int
    options: list[str]
    images: pd.DataFrame | Path


def example_fly(folder: Path, count: int) -> Work:
    """Return ExampleFly with its three fields under other names, until there are enough."""
    originals = sorted((EXAMPLE_FLY / "images").glob("*_D.TIF"))
    for number in range(count):
        stem = originals[number % len(originals)].name.removesuffix("_D.TIF")
        for channel in "DFR":
            source = EXAMPLE_FLY / "images" / f"{stem}_{channel}.TIF"
            (folder / f"{number:04d}_{channel}.TIF").symlink_to(source)
    pipeline = EXAMPLE_FLY / "ExampleFly_every.cppipe"
    return Work("ExampleFly", pipeline, count, ["-i", str(folder)], folder)


def plate(folder: Path, count: int) -> Work:
    """Return a synthetic plate of 256 x 256 pixels."""
    images, _ = example.make_plate(folder, wells=count // 2, sites=2)
    data = folder / "load_data.csv"
    images.to_csv(data, index=False)
    return Work("synthetic plate", example.ANALYSIS, count, ["--data-file", str(data)], images)


def by_hand(work: Work, out: Path, ranges: Sequence[tuple[int, int]]) -> Used:
    """Run CellProfiler over ranges of image sets, as many processes at once as there are cores."""

    def one(span: tuple[int, int]) -> tuple[float, int, float]:
        place = out / f"{span[0]:04d}"
        place.mkdir(parents=True)
        program = str(built_envs() / "cellprofiler" / "bin" / "cellprofiler")
        argv = [program, "-c", "-r", "-p", str(work.pipeline), "-o", str(place), *work.options]
        argv += ["-f", str(span[0]), "-l", str(span[1])]
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, env=ONE_THREAD)
            _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError((place / "log").read_text()[-2000:])
        spent = _MODULE_TIME.findall((place / "log").read_text())
        return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, sum(map(float, spent))

    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        parts = list(pool.map(one, ranges))
    wall = time.perf_counter() - begin
    return Used(sum(p[0] for p in parts), wall, max(p[1] for p in parts), sum(p[2] for p in parts))


def by_labkit(work: Work, out: Path, backend: str = "local") -> tuple[Used, CellProfilerJob, float]:
    """Run it as a job; also return the CPU seconds of plan and submit in this process."""
    begin, before = time.perf_counter(), _own_cpu()
    workflow = labkit.CellProfiler(work.pipeline, work.images, profiles=False)
    job = workflow.submit(backend, output=str(out))
    submit = _own_cpu() - before
    job.wait()
    wall = time.perf_counter() - begin
    if job.state.value != "SUCCEEDED" or not isinstance(job, CellProfilerJob):
        raise RuntimeError(job.failed().to_string())
    done = job.tasks()
    spent = sum(fact["working"] for fact in job.summary["facts"])
    used = Used(done["cpu_seconds"].sum(), wall, int(done["peak_memory"].max()), spent)
    return used, job, submit


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def spans(count: int, parts: int) -> list[tuple[int, int]]:
    """Split 1..count into equal parts."""
    edges = [round(count * part / parts) for part in range(parts + 1)]
    return [(a + 1, b) for a, b in pairwise(edges)]


def equal(job: CellProfilerJob, whole: Path) -> str:
    """Compare every measurement with that of one process; say what differs."""
    cells, wrong = 0, []
    for path in sorted(whole.glob("0001/*.csv")):
        if path.stem == "Experiment":
            continue
        theirs = pd.read_csv(path, float_precision="round_trip")
        ours = job.results(path.stem, places=False)
        for name in theirs.columns:
            if name.startswith(VOLATILE):
                continue
            cells += len(theirs)
            if not theirs[name].equals(ours[name].astype(theirs[name].dtype)):
                wrong.append(f"{path.stem}.{name}")
    return f"{cells:,} cells equal" if not wrong else f"DIFFERENT: {', '.join(wrong[:10])}"


def forget_sizes() -> None:
    """Let the same work be split anew, by the cost that is known by now."""
    known = json.loads(costs.place().read_text())
    kept = {key: entry for key, entry in known.items() if not key.startswith("size:")}
    costs.place().write_text(json.dumps(kept))


def compare(work: Work, folder: Path) -> None:
    """Print one table."""
    # the second run knows the cost
    learn, _, first_submit = by_labkit(work, folder / "learn")
    forget_sizes()
    ways = {"(b) one process": by_hand(work, folder / "b", [(1, work.count)])}
    ways["(h) one process per core"] = by_hand(work, folder / "h", spans(work.count, CORES))
    ways["(c) labkit"], job, submit = by_labkit(work, folder / "c")
    there = None
    if not missing_programs():
        forget_sizes()  # a cluster is others' too: it splits by other rules
        with SlurmCluster(nodes=CORES, cpus=1, memory=8000) as cluster:
            os.environ.update(cluster.environment)
            ways["(d) labkit on SLURM"], there, _ = by_labkit(work, folder / "d", "slurm")
    ways["(a) one process per image set"] = by_hand(
        work, folder / "a", [(n, n) for n in range(1, work.count + 1)]
    )
    ours = ways["(c) labkit"]
    print(f"\n### {work.name}, {work.count} image sets, {CORES} cores\n")
    print("| way | CPU s | over module time | wall s | peak MB | CPU against labkit |")
    print("|---|---|---|---|---|---|")
    for name, used in sorted(ways.items()):
        print(
            f"| {name} | {used.cpu:.1f} | {used.cpu / used.modules - 1:.0%} | {used.wall:.1f} "
            f"| {used.memory / 1e6:.0f} | {used.cpu / ours.cpu:.2f} |"
        )
    tasks = _tasks(job)
    print(
        f"\nlabkit: {tasks} tasks; check, plan and submit took {first_submit:.1f} CPU s the first "
        f"time (CellProfiler itself loads the pipeline), then {submit:.1f}."
    )
    print(f"First run, before the cost was known: {learn.cpu:.1f} CPU s.")
    print(f"(c) against (b): {equal(job, folder / 'b')}.", flush=True)
    if there is None:
        print(f"(d) was not run: {missing_programs()}.", flush=True)
    else:
        print(f"(d), {_tasks(there)} tasks, against (b): {equal(there, folder / 'b')}.", flush=True)


def _tasks(job: CellProfilerJob) -> int:
    return len(list(job.run.folder.tasks("analysis")))


def gather_speed(folder: Path, megabytes: int) -> None:
    """Print how fast object tables become Parquet."""
    rng = np.random.default_rng(1)
    parts, size, columns = [], 0, [f"Feature_{n}" for n in range(150)]
    while size < megabytes * 1e6:
        number = len(parts) + 1
        place = folder / f"part-{number}"
        place.mkdir(parents=True)
        table = pd.DataFrame(rng.normal(size=(10_000, len(columns))), columns=columns)
        table.insert(0, "ObjectNumber", np.arange(len(table)) % 100 + 1)
        table.insert(0, "ImageNumber", np.arange(len(table)) // 100 + 1)
        pa.csv.write_csv(pa.Table.from_pandas(table), place / "Nuclei.csv")
        size += (place / "Nuclei.csv").stat().st_size
        first = (number - 1) * 100 + 1
        numbers = tuple(range(first, first + 100))
        parts.append(tables.Part(place, numbers, frozenset(numbers)))
    (files,) = tables.find(parts).values()
    begin, before = time.perf_counter(), _own_cpu()
    rows, _ = tables.gather(files, folder / "Nuclei.parquet")
    seconds, cpu = time.perf_counter() - begin, _own_cpu() - before
    packed = (folder / "Nuclei.parquet").stat().st_size
    print(
        f"\nGather: {size / 1e6:.0f} MB of CSV ({rows:,} rows) in {seconds:.1f} s: "
        f"{size / 1e6 / seconds:.0f} MB/s, {size / 1e6 / cpu:.0f} MB per CPU second; "
        f"Parquet {packed / 1e6:.0f} MB.",
        flush=True,
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-sets", type=int, default=24)
    parser.add_argument("--data", choices=("ExampleFly", "plate", "both"), default="both")
    parser.add_argument("--csv-mb", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as name:
        folder = Path(name)
        os.environ["XDG_DATA_HOME"] = str(folder / "data")
        gather_speed(folder / "gather", options.csv_mb)
        for make in (plate, example_fly):
            chosen = "plate" if make is plate else "ExampleFly"
            if options.data not in (chosen, "both"):
                continue
            if make is example_fly and not EXAMPLE_FLY.is_dir():
                print(json.dumps({"skipped": "ExampleFly is not there"}))
                continue
            here = folder / chosen
            (here / "images").mkdir(parents=True)
            compare(make(here / "images", options.image_sets), here)


if __name__ == "__main__":
    main()
