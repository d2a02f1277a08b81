"""One Problem, one base error, and how both are shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import labkit
from hub.cli import common
from labkit.base.files import LockTimeoutError
from labkit.base.problems import (
    LabkitError,
    Problem,
    ProblemsError,
    RefusedError,
    refuse,
    unknown_name,
)

IN_A_NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="NoColor")
shell.run_cell('''
from labkit.base.problems import Problem, refuse
def deep(n):
    return deep(n - 1) if n else refuse(
        [Problem("row 3, reads", "there is no such file.", "Check the name.")]
    )
deep(30)
''')
"""


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("memory", "'lots' is no size"), "memory: 'lots' is no size"),
        (Problem("url", "it is missing.", "Add it."), "url: it is missing. Add it."),
        (Problem("port 80", "needs root", "choose another"), "port 80: needs root; choose another"),
    ],
)
def test_a_problem_reads_as_one_line(problem: Problem, line: str) -> None:
    assert str(problem) == line


def test_warnings_refuse_nothing() -> None:
    refuse([Problem("memory", "it will wait.", warning=True)])


def test_a_refusal_has_all_that_are_no_warnings() -> None:
    first, second = Problem("a", "is wrong."), Problem("b", "is wrong, too.")
    with pytest.raises(RefusedError) as refused:
        refuse([first, Problem("c", "will wait.", warning=True), second])
    assert refused.value.problems == (first, second)
    assert str(refused.value).splitlines() == [
        "Refused, nothing was started (2 problems):",
        "  a: is wrong.",
        "  b: is wrong, too.",
    ]


def test_a_long_refusal_is_cut_and_says_so() -> None:
    with pytest.raises(RefusedError) as refused:
        refuse(Problem(f"row {number}", "is empty.") for number in range(25))
    lines = str(refused.value).splitlines()
    assert len(lines) == 22 and "5 more" in lines[-1]
    assert len(refused.value.problems) == 25


def test_an_unknown_name_is_told_with_the_likely_one() -> None:
    problem = unknown_name("option", "memmory", ["memory", "cpu"])
    assert str(problem) == (
        "memmory: there is no such option. Did you mean 'memory'? Valid: cpu, memory."
    )


def test_a_notebook_shows_the_problems_and_no_frames() -> None:
    pytest.importorskip("IPython")
    shown = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True, check=True
    )
    lines = (shown.stdout + shown.stderr).strip().splitlines()
    assert lines == [
        "Refused, nothing was started:",
        "  row 3, reads: there is no such file. Check the name.",
    ]


@pytest.mark.parametrize(
    "error",
    [
        LabkitError("SLURM does not answer."),
        LockTimeoutError("held"),
        ProblemsError([Problem("lab.yaml:3", "is wrong")]),
    ],
)
def test_the_hubs_command_line_tells_errors_of_the_class(
    error: LabkitError | LockTimeoutError, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.told(error)
    assert f"problem {error}" in capsys.readouterr().err


def test_the_hubs_command_line_hides_no_fault() -> None:
    accidental = type("AccountError", (Exception,), {})("only the name is right")
    assert not common.told(accidental)
    assert not common.told(ValueError("a bug"))


def test_there_is_one_problem() -> None:
    tree = Path(labkit.__file__).parents[1]
    where = [
        str(path.relative_to(tree))
        for folder in ("hub", "services", "labkit")
        for path in (tree / folder).rglob("*.py")
        if re.search(r"^class \w*Problem\b", path.read_text(), re.M)
    ]
    assert where == ["labkit/base/problems.py"]
