"""The checks of the sources: one table, used by `labhub test --lint`, CI and pre-commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from hub.state.paths import REPOSITORY
from labkit.base.problems import Problem, ProblemsError

# What is current and what the texts name are tests: the same ones, wherever they are called from.
_SCHEMA_TESTS = (
    "tests/hub/labfile/test_schema.py",
    "tests/hub/apps/test_declaration.py",
    "tests/hub/cli/test_cli.py",
)
Program = Callable[[str], str]


def _scripts() -> list[str]:
    scripts = sorted((REPOSITORY / "config").rglob("*.sh"))
    return ["labhub", ".ci/run", *(str(path.relative_to(REPOSITORY)) for path in scripts)]


def _yaml(*patterns: str) -> list[str]:
    return [
        str(path.relative_to(REPOSITORY))
        for pattern in patterns
        for path in sorted(REPOSITORY.glob(pattern))
    ]


def _pytest(program: Program, *words: str) -> list[str]:
    quiet = ("-q", "--durations=0", "--durations-min=60", "-p", "no:cacheprovider")
    return [program("python"), "-m", "pytest", *quiet, *words]


def _schemas(program: Program, folder: Path) -> Iterator[list[str]]:
    from hub.apps.declaration import Service
    from hub.labfile import read

    service = folder / "service.schema.json"
    service.write_text(read.schema_of(Service, "An app's service.yaml"), encoding="utf-8")
    check = program("check-jsonschema")
    yield _pytest(program, *_SCHEMA_TESTS, "-k", "current")
    yield [check, "--schemafile", "config/lab.schema.json", *_yaml("config/lab*.yaml")]
    apps = _yaml("services/*/service.yaml", "tests/support/*/service.yaml")
    yield [check, "--schemafile", str(service), *apps]
    workflows = _yaml(".github/workflows/*.yml")
    yield [check, "--builtin-schema", "vendor.github-workflows", *workflows]


def commands(name: str, program: Program, folder: Path) -> Iterator[list[str]]:
    """Yield the commands of a check, to be run in the repository's folder.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    program : callable
        Gives the path of a program.
    folder : Path
        For files that the check needs.
    """
    match name:
        case "ruff":
            yield [program("ruff"), "check", "."]
        case "format":
            yield [program("ruff"), "format", "--check", "."]
        case "mypy":
            yield [program("mypy")]
        case "imports":
            yield [program("lint-imports"), "--no-cache"]
        case "shellcheck":
            yield [program("shellcheck"), *_scripts()]
        case "schema":
            yield from _schemas(program, folder)
        case "docs":
            yield _pytest(program, "tests/test_docs.py")


NAMES = ("ruff", "format", "mypy", "imports", "shellcheck", "schema", "docs")


def _finder(bin_folder: Path) -> Program:
    def find(name: str) -> str:
        path = shutil.which(name, path=f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}")
        if path is None:
            hint = f"Install it (Debian and Ubuntu: apt-get install {name}), or build dev anew."
            raise ProblemsError([Problem("lint", f"the program {name} is missing", hint=hint)])
        return path

    return find


def lint(names: Collection[str], bin_folder: Path, env: dict[str, str]) -> list[str]:
    """Run checks, as many at once as there are cores; all of them, also where one fails.

    What they print is shown in the order of their names.

    Parameters
    ----------
    names : collection of str
        Of `NAMES`; none: all.
    bin_folder : Path
        The programs of the environment ``dev``.
    env : dict
        The environment variables of the commands.

    Returns
    -------
    list of str
        The names of the checks that failed.

    Raises
    ------
    ProblemsError
        There is no check of a name, or a program is missing.
    """
    if unknown := [name for name in names if name not in NAMES]:
        known = ", ".join(NAMES)
        raise ProblemsError(
            [Problem("lint", f"there is no check {unknown[0]!r}", hint=f"There are: {known}.")]
        )
    program = _finder(bin_folder)
    failed = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = {
            name: pool.submit(_check, list(commands(name, program, Path(folder))), env)
            for name in names or NAMES
        }
        for name, check in checks.items():
            passed, text = check.result()
            click.secho(f"lint: {name}", bold=True)
            click.echo(text, nl=False)
            sys.stdout.flush()
            if not passed:
                failed.append(name)
    return failed


def _check(words: Collection[Sequence[str]], env: dict[str, str]) -> tuple[bool, str]:
    """Run a check's commands; return whether all passed, and what they printed."""
    done = [
        subprocess.run(
            command,
            cwd=REPOSITORY,
            env=env,
            check=False,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in words
    ]
    return not any(one.returncode for one in done), "".join(one.stdout for one in done)
