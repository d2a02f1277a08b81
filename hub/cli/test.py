"""``labhub test``."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from pathlib import Path

import click
import psutil

from hub.cli.lint import NAMES, lint
from hub.cli.up import build
from hub.environments import build as environments
from hub.environments import toolchain
from hub.state.paths import REPOSITORY, Paths
from labkit.base import cgroups

# The tests of one file stay together: they share a portal. Files are begun in the order of
# tests/support/schedule.py: first what takes long, and what waits beside what works.
PARALLEL = ("--dist", "loadfile", "--no-loadscope-reorder")
_WORKER_BYTES = 3 << 30  # a portal, a notebook and what it shows
_MOST_WORKERS = 6
_BEHIND = "kubernetes"  # the environment that is compiled while the first tests run
COVERAGE = ("--cov", "--cov-report=term:skip-covered", "--cov-report=html:test-artifacts/coverage")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.option("--quick", is_flag=True, help="Only what needs the environment dev alone.")
@click.option("--lint", "only_lint", is_flag=True, help="Check the sources instead; see below.")
@click.option("--coverage", is_flag=True, help="Say which lines were run, subprocesses included.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...], quick: bool, only_lint: bool, coverage: bool) -> None:
    """Run the tests; ARGUMENTS go to pytest.

    Makes the environments that they need. What this machine cannot run is skipped, and the
    summary at the end names each with its reason. They run side by side, five for two
    cores, since most wait; `-n 0` runs them one after the other, as a debugger needs it.

    With --lint, ARGUMENTS are the names of checks, all where there are none: ruff, format,
    mypy, imports, shellcheck, schema, docs.

    \b
    Examples:
      sudo ./labhub test
      ./labhub test tests/hub -k settings
      ./labhub test --quick
      ./labhub test --lint ruff mypy
    """  # noqa: D301
    paths = Paths.from_environment()
    _build(paths, only_dev=quick or only_lint)
    python = paths.env_bin("dev", "python")
    env = {
        k: v
        for k, v in os.environ.items()
        # Nothing of the portal in use may reach its tests. What was compiled once is to be used by
        # the hundreds of programs that they start.
        if k not in ("LABHUB_STATE", "LABHUB_CONFIG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    env["LABHUB_ENVS"] = str(paths.envs)
    if only_lint:
        if failed := lint(arguments, python.parent, env):
            raise click.ClickException(f"These checks failed: {', '.join(failed)}.")
        click.echo(f"{len(arguments or NAMES)} checks passed.")
        return
    if not quick:
        if _runs_kubernetes(arguments):
            _compile_kubernetes()
        node, _ = toolchain.node_programs(paths)
        env["PATH"] = f"{env.get('PATH', os.defpath)}{os.pathsep}{node.parent}"
    os.chdir(REPOSITORY)
    _compile()
    workers = ("--numprocesses", str(_workers(os.cpu_count() or 1, _memory())))
    words = [str(python), "-m", "pytest", *workers, *PARALLEL]
    words += [*(("-m", "unit") if quick else ()), *(COVERAGE if coverage else ()), *arguments]
    os.execve(words[0], words, env)  # noqa: S606 - an argument list


def _runs_kubernetes(arguments: tuple[str, ...]) -> bool:
    """Whether tests on Kubernetes are asked for, by name or with all the others."""
    chosen = [Path(word.partition("::")[0]) for word in arguments]
    folders = [path for path in chosen if path.exists()]
    return not folders or any(
        path.name in ("k8s", "tests") or path.parent.name == "k8s" for path in folders
    )


def _compile_kubernetes() -> None:
    """Begin to compile Kubernetes, which takes many minutes: its tests wait for it, others run."""
    if environments.packages_missing(_BEHIND):
        return
    command = [sys.executable, "-P", "-m", "hub.environments.build", _BEHIND]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)


def _compile() -> None:
    """Compile the sources now: workers begin at once, and apps run as accounts that cannot."""
    for package in ("hub", "labkit", "services"):
        compileall.compile_dir(REPOSITORY / package, quiet=2)


def _workers(cores: int, memory: int) -> int:
    """Return how many tests run side by side: five for two cores, as memory allows."""
    return max(1, min(5 * cores // 2, memory // _WORKER_BYTES, _MOST_WORKERS))


def _memory() -> int:
    """Return the bytes of memory that this process and its children may take."""
    return min(psutil.virtual_memory().total, cgroups.memory_limit() or sys.maxsize)


def _build(paths: Paths, *, only_dev: bool) -> None:
    if only_dev:
        build(["dev"], paths)
        return
    missing = {name: environments.packages_missing(name) for name in environments.names()}
    now = [name for name, packages in missing.items() if not packages and name != _BEHIND]
    build(now, paths)
    for name, packages in missing.items():
        if packages:
            needed = " ".join(packages)
            click.echo(f"  Left out: the tests of {name}. They need: apt-get install -y {needed}")
