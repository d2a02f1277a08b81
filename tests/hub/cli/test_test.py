"""`./labhub test`: what it builds, what it calls, which checks it knows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hub.cli import lint
from hub.cli import test as command
from hub.state.paths import REPOSITORY
from labkit.base.problems import ProblemsError


class Called(Exception):
    """Instead of the program that would take this one's place."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is built and what is called."""
    seen: dict[str, Any] = {}

    def execve(program: str, words: list[str], env: dict[str, str]) -> None:
        seen.update(words=words, env=env)
        raise Called

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(command, "build", lambda names, _: seen.update(built=names))
    monkeypatch.setattr("hub.environments.build.packages_missing", lambda _: [])
    monkeypatch.setattr(
        "hub.environments.toolchain.node_programs", lambda _: (Path("npm"), Path("node"))
    )
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(
        "compileall.compile_dir", lambda folder, **_: seen.setdefault("compiled", []).append(folder)
    )
    monkeypatch.setenv("LABHUB_STATE", "/somewhere")
    return seen


def test_all_environments_are_built_first(calls: dict[str, Any]) -> None:
    result = CliRunner().invoke(command.test, ["tests/hub", "-k", "x"])
    assert isinstance(result.exception, Called)
    assert {"dev", "notebook", "alignment"} <= set(calls["built"])
    assert calls["words"][-3:] == ["tests/hub", "-k", "x"]
    assert "-m" not in calls["words"][3:]
    assert "LABHUB_STATE" not in calls["env"]


def test_what_is_compiled_once_is_used_by_all(
    calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    CliRunner().invoke(command.test, ["--quick"])
    assert "PYTHONDONTWRITEBYTECODE" not in calls["env"]
    assert calls["compiled"] == [REPOSITORY / name for name in ("hub", "labkit", "services")]


def test_quick_builds_dev_alone(calls: dict[str, Any]) -> None:
    CliRunner().invoke(command.test, ["--quick", "--coverage"])
    assert calls["built"] == ["dev"]
    assert calls["words"][calls["words"].index("-m", 3) + 1] == "unit"
    assert "--cov" in calls["words"]


GB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "expected"),
    [
        (1, 16 * GB, 2),
        (1, 24 * GB, 2),
        (2, 24 * GB, 5),
        (4, 64 * GB, 6),
        (64, 512 * GB, 6),
        (2, 9 * GB, 3),
        (8, 2 * GB, 1),
    ],
)
def test_five_workers_for_two_cores_as_memory_allows(
    cores: int, memory: int, expected: int, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(command, "_memory", lambda: memory)
    CliRunner().invoke(command.test, ["--quick"])
    assert calls["words"][calls["words"].index("--numprocesses") + 1] == str(expected)


def test_a_failed_check_fails_the_command(
    calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {"ruff": "/bin/false", "lint-imports": "/bin/true"}
    monkeypatch.setattr(lint, "_finder", lambda _: programs.__getitem__)
    good = CliRunner().invoke(command.test, ["--lint", "imports"])
    assert (good.exit_code, calls["built"]) == (0, ["dev"])
    bad = CliRunner().invoke(command.test, ["--lint", "ruff", "imports"])
    assert bad.exit_code == 1
    assert "These checks failed: ruff." in bad.output
    assert "lint: imports" in bad.output  # goes on after the first


def test_checks_run_at_once_and_are_shown_in_order(
    calls: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends only when the second has run."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    first, second = tmp_path / "ruff", tmp_path / "mypy"
    first.write_text(f"#!/bin/sh\nwhile [ ! -e {tmp_path}/done ]; do sleep 0.05; done; echo A\n")
    second.write_text(f"#!/bin/sh\necho B; touch {tmp_path}/done\n")
    for script in (first, second):
        script.chmod(0o755)
    monkeypatch.setattr(lint, "_finder", lambda _: lambda name: str(tmp_path / name))
    done = CliRunner().invoke(command.test, ["--lint", "ruff", "mypy"])
    assert done.output == "lint: ruff\nA\nlint: mypy\nB\n2 checks passed.\n"


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=r"no check 'rust'.*ruff, format"):
        lint.lint(["rust"], tmp_path, {})


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProblemsError, match="apt-get install shellcheck"):
        lint.lint(["shellcheck"], tmp_path, {})


def test_every_check_has_commands(tmp_path: Path) -> None:
    for name in lint.NAMES:
        for words in lint.commands(name, lambda program: f"/bin/{program}", tmp_path):
            assert words[0].startswith("/bin/")
            assert len(words) > 1 or name == "mypy"


def test_pre_commit_and_ci_call_the_same_checks() -> None:
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    called = re.findall(r"entry: \./labhub test --lint (.+)", hooks)
    assert sorted(" ".join(called).split()) == sorted(lint.NAMES)
    assert hooks.count("language: system") == len(called)
    for script in (".ci/run", ".github/workflows/tests.yml"):
        assert "./labhub test --lint" in (REPOSITORY / script).read_text()


@pytest.mark.parametrize(
    ("arguments", "compiled"),
    [
        ((), True),
        (("--reruns", "1"), True),
        (("tests",), True),
        (("tests/k8s",), True),
        (("tests/k8s/test_cluster.py::test_others_are_refused",), True),
        (("tests/hub",), False),
    ],
)
def test_kubernetes_is_compiled_only_for_its_tests(
    arguments: tuple[str, ...], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert command._runs_kubernetes(arguments) is compiled
