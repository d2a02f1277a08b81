"""What sbatch is handed: its arguments and the job script. Every value is quoted."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from labkit.jobs.backends.slurm.array_layout import JobArray
from labkit.jobs.backends.slurm.options import Options
from labkit.jobs.model import Container, Environment, Resources
from labkit.slurm.cluster import Cluster, Partition
from labkit.slurm.nodes import BOUNDLESS, MB

_MARGIN = 64  # MB for the worker itself, so that it and not SLURM ends a task over its memory
_SLACK = timedelta(minutes=2)  # of SLURM's time limit over the task's own
_ENDING = timedelta(minutes=1)  # before SLURM's limit, where the task has none of its own
#: Starts the worker that lies in the run folder; an older one's package is labkit.worker.
START = (
    "import importlib, os, sys; place = sys.argv[1] + '/worker'; sys.path.insert(0, place); "
    "package = 'labkit.jobs.worker' if os.path.isdir(place + '/labkit/jobs') else 'labkit.worker'; "
    "main = importlib.import_module(package + '.slurm').main; raise SystemExit(main(sys.argv[1:]))"
)


@dataclass(frozen=True)
class StageRequest:
    """What one stage asks SLURM for.

    Attributes
    ----------
    name : str
        The stage.
    resources : Resources
        Of each task.
    environment : Environment, Container or None
        Where its programs come from.
    """

    name: str
    resources: Resources
    environment: Environment | Container | None

    def option(self, given: object) -> object:
        """Return what an option by environment says for this stage, None for nothing."""
        if not isinstance(given, dict):
            return None
        name = self.environment.name if isinstance(self.environment, Environment) else None
        own = given.get(name) if name else None
        return own or (given.get("") if self.name != "gather" else None)

    def image(self, options: Options) -> str | None:
        """Return the Apptainer image that its tasks run in."""
        if isinstance(self.environment, Container):
            return self.environment.image
        image = self.option(options.apptainer)
        return str(image) if image else None

    def memory(self, partition: Partition) -> tuple[int, int]:
        """Return the MB to ask for, and how much of it is for the worker itself."""
        own = math.ceil(self.resources.memory / MB)
        margin = max(0, min(_MARGIN, partition.most_memory // MB - own))
        return own + margin, margin

    def time(self, partition: Partition, each: int) -> timedelta | None:
        """Return the time limit to ask for, None to leave it to the partition."""
        if self.resources.time is None:
            return None
        wish = self.resources.time * each + _SLACK
        return min(wish, partition.max_time) if partition.max_time else wish


def arguments(
    request: StageRequest,
    array: JobArray,
    name: str,
    place: str,
    partition: Partition,
    options: Options,
) -> list[str]:
    """Return the arguments of sbatch, without dependencies.

    Parameters
    ----------
    name : str
        Name of the job.
    place : str
        The run folder.
    """
    resources = request.resources
    logs = f"{place}/logs/{request.name}/slurm-".replace("%", "%%")
    throttle = f"%{options.array_limit}" if options.array_limit else ""
    words = [
        "--parsable", f"--job-name={name}", f"--array=0-{array.count - 1}{throttle}",
        f"--partition={partition.name}", "--nodes=1", "--ntasks=1",
        f"--cpus-per-task={math.ceil(resources.cpu)}",
        # Ours is an allow-list already, see commands.environment.
        "--export=ALL", "--requeue", "--open-mode=append", "--kill-on-invalid-dep=yes",
        "--input=/dev/null", f"--output={logs}%A_%a.out", f"--chdir={place}",
    ]  # fmt: skip
    if partition.most_memory < BOUNDLESS:
        words.append(f"--mem={request.memory(partition)[0]}M")
    if limit := request.time(partition, array.each):
        words.append(f"--time={math.ceil(limit.total_seconds() / 60)}")
    if resources.scratch:
        words.append(f"--tmp={math.ceil(resources.scratch / MB)}M")
    if options.gres or resources.gpus:
        words.append(f"--gres={options.gres or f'gpu:{resources.gpus}'}")
    for option in ("account", "qos", "reservation", "constraint"):
        if value := getattr(options, option):
            words.append(f"--{option}={value}")
    if options.exclusive:
        words.append("--exclusive")
    return words


def script(
    request: StageRequest,
    array: JobArray,
    submission: int,
    place: str,
    path: str,
    cluster: Cluster,
    partition: Partition,
    options: Options,
    programs: str,
) -> str:
    """Return the job script.

    Parameters
    ----------
    submission : int
        Number of the submission.
    place : str
        The run folder.
    path : str
        PATH of the one who submits.
    programs : str
        Folder of SLURM's commands.
    """
    modules = request.option(options.modules)
    image = request.image(options)
    lines = [
        "#!/bin/bash -l" if modules else "#!/bin/sh",
        f"# labkit, stage {request.name}",
        "set -e",
    ]
    if modules:  # the login profile defines `module`, and may forget our PATH
        lines += [f'export PATH="$PATH":{shlex.quote(path)}']
        lines += _needs("module", "there is no `module` command")
        lines += [f"module load {shlex.quote(name)}" for name in _words(modules)]
    if modules or image:
        lines.append("export LABKIT_ENVIRONMENT=path")
    if options.environments:
        lines.append(f"export LABHUB_ENVS={shlex.quote(options.environments)}")
    prefix: list[str] = []
    if image:
        lines.append("apptainer=$(command -v apptainer || command -v singularity || true)")
        lines += _needs('"$apptainer"', "Apptainer is not installed")
        prefix = ["exec", "--bind", place]
        prefix += [word for bind in options.binds for word in ("--bind", bind)]
        prefix += ["--nv"] if options.gres or request.resources.gpus else []
        prefix.append(image)
    lines += _needs("python3", "there is no python3")
    _, margin = request.memory(partition)
    most = max(request.resources.memory, partition.most_memory - margin * MB)
    words = [
        "python3", "-I", "-S", "-c", START, place, request.name,
        "--submission", str(submission), "--start", str(array.start), "--each", str(array.each),
        "--most", str(most), "--margin", str(margin * MB), "--bin", programs,
        "--grace", f"{max(0.5, min(10.0, cluster.kill_wait / 2)):g}",
    ]  # fmt: skip
    if limit := request.time(partition, array.each) or partition.time_limit:
        words += ["--limit", f"{limit.total_seconds():.0f}"]
        if request.resources.time is None:
            seconds = max(limit / 2, limit - _ENDING).total_seconds() / array.each
            words += ["--time", f"{seconds:.0f}"]
    command = shlex.join(words)
    if prefix:
        command += f' -- "$apptainer" {shlex.join(prefix)}'
    return "\n".join([*lines, f"exec {command}", ""])


def _needs(program: str, text: str) -> list[str]:
    return [
        f"command -v {program} >/dev/null 2>&1 || "
        f'{{ echo "labkit: {text} on $(hostname)" >&2; exit 69; }}'.replace("`", "\\`")
    ]


def _words(value: object) -> Sequence[str]:
    return value if isinstance(value, tuple) else ()
