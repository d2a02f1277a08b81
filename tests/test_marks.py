"""The marks: by rule, and what `./labhub test --quick` collects with them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.support.marks import implied, lacking
from tests.support.portal import REPOSITORY


@pytest.mark.parametrize(
    ("folders", "fixtures", "carried", "expected"),
    [
        (["hub", "labfile"], ["tmp_path"], [], {"unit"}),
        (["hub", "portal"], ["portal"], [], {"root"}),
        (["hub", "auth"], ["ada", "people"], [], {"root"}),
        (["slurm"], ["site", "slurm", "slurm_cluster"], [], {"slurm"}),
        (["browser"], [], [], {"browser"}),
        (["browser"], ["chromium", "people"], [], {"browser", "root"}),
        (["services", "cellxgene"], ["s3"], [], {"aws"}),
        (["labkit"], [], ["environment"], set()),
        (["labkit"], [], ["slow"], set()),
        (["labkit"], [], ["timeout", "parametrize"], {"unit"}),
    ],
)
def test_marks_follow_from_folder_and_fixtures(
    folders: list[str], fixtures: list[str], carried: list[str], expected: set[str]
) -> None:
    assert implied(folders, fixtures, carried) == expected


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in lacking(pytest.mark.root.mark)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert lacking(pytest.mark.root.mark) == ""
    assert "'nothing'" in lacking(pytest.mark.environment("nothing").mark)
    assert lacking(pytest.mark.timeout(5).mark) == ""


def test_quick_collects_the_unit_tests_of_every_file() -> None:
    files = ["hub/labfile/test_schema.py", "security/test_names.py", "hub/auth/test_pam.py"]
    files += ["browser/test_auth_pages.py", "slurm/test_cluster.py"]
    words = ["-p", "no:cacheprovider", "--collect-only", "-q", "-m", "unit"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *(f"tests/{name}" for name in files)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line for line in done.stdout.splitlines() if "::" in line]
    assert {name.partition("::")[0] for name in names} == {f"tests/{name}" for name in files[:2]}
    of_names = {name.partition("[")[0].rpartition("::")[2] for name in names}
    assert "test_the_rule_refuses" in of_names
    assert "test_login_form" not in of_names  # of the same file, but with a portal


# Each worker imports all test files before it begins, and most tests need none of these.
HEAVY = {"anndata", "boto3", "dash", "django", "h5py", "kubernetes", "matplotlib", "moto"}
HEAVY |= {"scanpy", "scipy", "zarr"}


def imported(node: ast.stmt) -> set[str]:
    """The libraries that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()


def test_no_test_file_imports_a_heavy_library_before_its_tests_run() -> None:
    named = {
        f"{path.relative_to(REPOSITORY)}: {name}"
        for pattern in ("test_*.py", "conftest.py", "helpers.py")
        for path in (REPOSITORY / "tests").rglob(pattern)
        for node in ast.parse(path.read_text()).body
        for name in imported(node) & HEAVY
    }
    assert named == set()


def test_the_commands_before_a_portal_do_without_jupyterhub() -> None:
    """`labhub check` and `labhub up` answer soon: its libraries cost more than a second."""
    code = "import sys, hub.cli, hub.cli.up, hub.auth.names, hub.runtime.preflight, labkit\n"
    code += "print(sorted({'jupyterhub', 'sqlalchemy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
