"""What the tests of faults share, whatever the backend."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit.base import process_tree
from labkit.jobs.job import Job
from labkit.jobs.model import Stage
from labkit.jobs.runs.store import Run
from tests.support.backend_contract import Site
from tests.support.job_helpers import ran, records, stage, until

ROOT = Path(__file__).resolve().parents[2]


def once(site: Site, seconds: float = 1.5) -> Stage:
    """Return a task that leaves a line when it starts, and another where its twin still lives."""
    twin = site.folder / "twin"
    return stage(
        "once",
        f"if [ -e {twin} ] && grep -q 'State:.[RSD]' /proc/$(cat {twin})/status; "
        f"then echo DOUBLED >> {site.trace}; fi; "
        f"echo $$ > {twin}; echo ran >> {site.trace}; sleep {seconds}; echo done > out",
        outputs=("out",),
    )


def running(site: Site, seconds: float = 120.0) -> None:
    """Wait until the task has begun."""
    until(lambda: ran(site.trace), seconds)


def reasons(job: Job, name: str = "once") -> list[str]:
    """Return how each attempt of the first task ended."""
    found = []
    for index, attempt in records(job, name):
        if index == 0:
            text = job.run.folder.record(name, index, attempt).read_text()
            found.append("SUCCEEDED" if '"SUCCEEDED"' in text else text.split('"reason":"')[1])
    return [text.partition('"')[0] for text in found]


def the_run(site: Site) -> Run:
    """Return the only run of a site."""
    (path,) = (site.folder / "runs").glob("staged-*")
    return Run(path)


def workers_of(run: Path) -> list[int]:
    """Return the workers of a run that live."""
    word = str(run / "worker").encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if word in words and process_tree.start_time(int(path.parent.name)) is not None:
            found.append(int(path.parent.name))
    return found


KERNEL = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from labkit.jobs.backends import base
from tests.support.backend_contract import Site
from tests.support.job_helpers import stage
site = Site({backend!r}, Path({folder!r}), {options!r})
Backend = type(base.get(site.backend))
work = stage("once", "echo ran >> " + str(site.trace) + "; sleep 1; echo done > out")
{before}
job = site.submit(work)
{after}
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def kernel(site: Site, before: str = "", after: str = "") -> subprocess.Popen[bytes]:
    """Start a kernel of its own that submits a job."""
    code = KERNEL.format(
        root=str(ROOT),
        backend=site.backend,
        folder=str(site.folder),
        options=site.options,
        before=before,
        after=after,
    )
    return subprocess.Popen([sys.executable, "-c", code])


def dies_while_submitting(site: Site, moment: str) -> None:
    """Submit from a kernel that is killed ``"before"`` or ``"after"`` the backend has the job."""
    before = f"""
original = Backend.submit
def dying(self, run, submission):
    if {moment == "after"}:
        original(self, run, submission)
    {DIE}
Backend.submit = dying
"""
    assert kernel(site, before).wait(60) == -signal.SIGKILL
    assert [s.handle for s in the_run(site).submissions()] == [None]


def submit_at_once(site: Site, count: int = 4) -> None:
    """Submit the same work from several kernels in the same moment."""
    go = site.folder / "go"
    wait = f"while not Path({str(go)!r}).exists(): time.sleep(0.001)"
    kernels = [kernel(site, wait) for _ in range(count)]
    go.touch()
    assert [process.wait(60) for process in kernels] == [0] * count


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Make a disk of 3 MB."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if subprocess.run(options, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """Make the disk large enough."""
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave not one byte."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
