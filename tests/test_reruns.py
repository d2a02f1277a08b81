"""What runs again in CI is named, and no more than a few: the summary cannot hide a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import reruns

CONFTEST = """
from tests.support import reruns

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(reruns.Reruns())
"""
TESTS = """
import pathlib, pytest

@pytest.mark.parametrize("number", range({flaky}))
def test_flaky(number, tmp_path_factory):
    seen = pathlib.Path(__file__).with_name(f"seen-{{number}}")
    first = not seen.exists()
    seen.touch()
    assert not first, "too soon by a moment"

def test_wrong():
    assert not {wrong}, "always so"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flaky", "wrong", "code", "words"),
    [
        (reruns.MOST, False, 0, f"4 passed, {reruns.MOST} rerun in"),
        (reruns.MOST + 1, False, 1, f"5 passed, {reruns.MOST + 1} rerun in"),
        (1, True, 1, "1 failed, 1 passed, 2 rerun in"),
    ],
)
def test_a_run_with_more_than_a_few_reruns_fails(
    tmp_path: Path, flaky: int, wrong: bool, code: int, words: str
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS.format(flaky=flaky, wrong=wrong))
    repository = str(Path(__file__).resolve().parents[1])
    argv = [sys.executable, "-m", "pytest", "-raR", "-n1", "--reruns", "1", str(tmp_path)]
    argv += ["--rootdir", str(tmp_path), "--confcutdir", str(tmp_path)]
    env = {"PYTHONPATH": repository, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path, env=env
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout.splitlines()[-1]
    assert done.stdout.count("too soon by a moment") >= flaky
    assert "RERUN test_some.py::test_flaky[0]" in done.stdout
    assert f"ran again: {flaky + wrong}, at most {reruns.MOST} in a run" in done.stdout
