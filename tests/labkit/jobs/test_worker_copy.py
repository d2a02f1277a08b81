"""The worker that lies in a run folder: complete by itself, and fit for Python 3.9."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.jobs.backends.slurm.script import START
from labkit.jobs.runs.store import Run
from tests.support.job_helpers import Staged, stage

# What Python 3.10 has and 3.9 has not, as far as a program may write it; later Pythons' is left to
# mypy, which knows no 3.9 any more.
NEW_NAMES = {
    "aiter", "anext", "bit_count", "pairwise", "hardlink_to", "EllipsisType", "NoneType",
    "EncodingWarning", "orig_argv", "ParamSpec", "TypeAlias", "TypeGuard", "Concatenate",
    "stdlib_module_names", "get_annotations", "eventfd", "splice", "preadv2", "F_GETPIPE_SZ",
}  # fmt: skip
NEW_ARGUMENTS = {
    "zip": {"strict"},
    "dataclass": {"slots", "kw_only", "match_args"},
    "field": {"kw_only"},
    "write_text": {"newline"},
    "stat": {"follow_symlinks"},
    "chmod": {"follow_symlinks"},
    "bisect_left": {"key"},
    "bisect_right": {"key"},
    "insort": {"key"},
    "glob": {"root_dir"},
}


@pytest.fixture
def run(tmp_path: Path, lab_home: Path) -> Run:
    flow = Staged(stage("one", "echo x > y", outputs=("y",)), output=tmp_path)
    return Run.create(flow.build("local"), tmp_path)


def modules(run: Run) -> list[Path]:
    return sorted((run.path / "worker").rglob("*.py"))


def test_what_is_copied(run: Run) -> None:
    names = {str(path.relative_to(run.path / "worker")) for path in modules(run)}
    assert {name for name in names if name.startswith("labkit/base/")} == {
        f"labkit/base/{name}.py"
        for name in ("__init__", "cgroups", "files", "process_tree", "remote", "units")
    }
    assert {"__main__.py", "labkit/jobs/worker/main.py", "labkit/jobs/worker/slurm.py"} <= names


def test_it_imports_the_standard_library_and_itself_alone(run: Run) -> None:
    place = run.path / "worker"
    for path in modules(run):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                names = [node.module or ""]
            for name in names:
                if name.partition(".")[0] in sys.stdlib_module_names:
                    continue
                target = place.joinpath(*name.split("."))
                assert target.is_dir() or target.with_suffix(".py").is_file(), f"{path}: {name}"


def new_features(code: ast.AST) -> list[str]:
    """Return what the code uses that Python 3.9 has not."""
    found = []
    for node in ast.walk(code):
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            found += [name] if name in NEW_NAMES else []
        elif isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in NEW_NAMES]
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            new = NEW_ARGUMENTS.get(name, set())
            found += [f"{name}({word.arg}=)" for word in node.keywords if word.arg in new]
            if name in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
                found.append(f"{name} of a union")
    return found


def test_it_uses_nothing_that_python_3_9_has_not(run: Run) -> None:
    for path in modules(run):
        text = path.read_text()
        assert new_features(ast.parse(text, feature_version=(3, 9))) == [], path
        future = "from __future__ import annotations" in text
        assert future or "|" not in text, f"{path}: unions are read when it is imported"


@pytest.mark.parametrize(
    "line",
    ["zip(a, b, strict=True)", "isinstance(a, int | str)", "n.bit_count()",
     "from itertools import pairwise", "dataclass(slots=True)"],
)  # fmt: skip
def test_the_check_sees_what_is_new(line: str) -> None:
    assert new_features(ast.parse(line))


def test_mypy_agrees_as_far_back_as_it_goes(run: Run, tmp_path: Path) -> None:
    seen = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-version", "3.10", "--strict", "--cache-dir",
         str(tmp_path / "cache"), "--explicit-package-bases", "labkit"],
        cwd=run.path / "worker", capture_output=True, text=True,
    )  # fmt: skip
    assert seen.returncode == 0, seen.stdout + seen.stderr


def test_it_is_imported_without_any_package(run: Run) -> None:
    place = run.path / "worker"
    names = [
        str(path.relative_to(place).with_suffix("")).replace("/", ".") for path in modules(run)
    ]
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(place)!r}); "
        f"print(*(importlib.import_module(name).__file__ for name in {names[1:]}), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True, text=True, env={}, cwd="/", check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(path) for path in modules(run)[1:]]


@pytest.mark.parametrize("package", ["labkit/jobs/worker", "labkit/worker"])
def test_slurm_starts_the_worker_of_new_and_of_old_run_folders(
    package: str, tmp_path: Path
) -> None:
    """A run folder of an earlier version holds labkit.worker: a retry there uses that one."""
    place = tmp_path / "worker" / package
    place.mkdir(parents=True)
    for folder in (place, *place.parents):
        if tmp_path / "worker" in folder.parents:
            (folder / "__init__.py").touch()
    (place / "slurm.py").write_text("def main(words):\n    print(__name__, *words[1:])\n")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", START, str(tmp_path), "7"],
        capture_output=True, text=True, env={}, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [f"{package.replace('/', '.')}.slurm", "7"]


def test_it_imports_nothing_that_takes_long(run: Run) -> None:
    """One start of a worker is paid for each task: ``dataclasses`` alone is a third of it."""
    code = f"import sys; sys.path.insert(0, {str(run.path / 'worker')!r}); " + (
        "from labkit.jobs.worker import main; print(*sys.modules)"
    )
    words = [sys.executable, "-I", "-S", "-c", code]
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    # pathlib brings urllib.parse, in Python 3.11
    slow = {"dataclasses", "inspect", "ast", "asyncio", "logging", "socket", "tempfile"}
    slow |= {"urllib.request", "datetime"}
    assert "labkit.jobs.worker.execute" in loaded
    assert not loaded & slow
