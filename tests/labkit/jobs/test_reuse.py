"""The same work is done once; what has changed, was deleted or is asked for again is done anew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from labkit import cli
from labkit.base.problems import LabkitError, RefusedError
from labkit.jobs.model import State
from labkit.workflows.command import Command


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my tools" / "say.sh"
    path.parent.mkdir()
    path.write_text("echo one > said\n")
    return path


def said(command: Command) -> str:
    """Submit, wait, and return what the only task wrote."""
    job = command.submit().wait(30)
    assert job.state is State.SUCCEEDED, job.logs()
    return Path(job.results("said")["path"][0]).read_text().strip()


def forms(path: Path) -> dict[str, dict[str, Any]]:
    """Return the ways in which a command names a script."""
    plain = path.parent.parent / "plain.sh"
    shutil.copy(path, plain)
    return {
        "word": {"command": f"sh '{path}'"},
        "column": {"command": "sh {script}", "over": [{"script": str(path)}]},
        "option": {"command": f"env 'X={path}' sh -c '. \"$X\"'"},
        "attached": {"command": f"sh -c '. \"${{{{0#-I}}}}\"' '-I{path}'"},
        "shell": {"command": f"cd /tmp; cd \"$OLDPWD\"; sh '{path}' | cat", "shell": True},
        "shell column": {
            "command": "sh {script}",
            "over": [{"script": str(path)}],
            "shell": True,
        },
        "environment": {"command": "sh -c '. \"$SCRIPT\"'", "env": {"SCRIPT": str(path)}},
        "folder": {"command": f"sh -c '. \"$0/say.sh\"' '{path.parent}'"},
    }


@pytest.mark.parametrize(
    "form",
    ["word", "column", "option", "attached", "shell", "shell column", "environment", "folder"],
)
def test_a_changed_file_that_the_command_names_is_other_work(
    form: str, script: Path, lab_home: Path
) -> None:
    arguments = forms(script)[form]
    assert said(Command(**arguments)) == "one"
    script.write_text("echo another > said\n")
    assert said(Command(**arguments)) == "another"


def test_a_shell_names_files_by_home_and_wildcards(lab_home: Path) -> None:
    data = Path.home() / "data"
    data.mkdir()
    (data / "a.txt").write_text("a")
    keys = []
    for number in range(2):
        (data / "a.txt").write_text("a" * (number + 1))
        keys += [
            Command(f"cat {place} > {{out}}/said", shell=True).submit().key
            for place in ("~/data/*.txt", "$HOME/data/a.txt")
        ]
    assert len(set(keys)) == 4


def test_a_named_folder_that_holds_the_runs_does_not_make_each_submit_new(lab_home: Path) -> None:
    for command in (f"ls {lab_home}", f"ls {lab_home / 'runs'}", "ls /", "ls /proc/self/"):
        first = Command(command).submit().wait(30)
        assert Command(command).submit().key == first.key, command


def test_a_reused_result_says_that_nothing_was_run(
    lab_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Command("touch {out}/x").submit().wait(30)
    assert "Nothing was run" not in capsys.readouterr().err
    assert "Nothing was run" not in repr(first)
    again = Command("touch {out}/x").submit()
    expected = r"Nothing was run: finished on 20\d\d-\d\d-\d\d \d\d:\d\d"
    for text in (capsys.readouterr().err, repr(again), again._repr_html_()):
        assert re.search(expected, text)
    assert len(again.run.submissions()) == 1


def test_rerun_runs_all_again_and_keeps_the_earlier_results(lab_home: Path) -> None:
    command = Command("sh -c 'date +%N > said; cat said'", outputs=["said"])
    first = command.submit().wait(30)
    place = Path(first.results("said")["path"][0])
    texts = [place.read_text()]
    job = command.submit(rerun=True).wait(30)
    assert (job.key, job.state) == (first.key, State.SUCCEEDED)
    texts.append(place.read_text())
    job.rerun().wait(30)
    texts.append(place.read_text())
    assert len(set(texts)) == 3
    kept = [path.read_text() for path in sorted(job.path.glob("results.before-*/*/*/said"))]
    assert kept == texts[:2]


def test_a_failed_rerun_shows_no_earlier_result(lab_home: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    command = Command(f"test ! -e {tmp_path / 'flag'} && date > {{out}}/said", shell=True)
    job = command.submit().wait(30)
    flag.touch()
    job.rerun(retries=0).wait(30)
    assert job.state is State.FAILED
    with pytest.raises(LabkitError, match="no result"):
        job.results("said")


def test_what_runs_is_not_run_again_beside_itself(lab_home: Path) -> None:
    command = Command("sleep 30")
    job = command.submit()
    try:
        with pytest.raises(LabkitError, match="still runs"):
            command.submit(rerun=True)
        with pytest.raises(LabkitError, match="still runs"):
            job.rerun()
    finally:
        job.cancel()


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("how", ["submit", "retry"])
def test_a_result_deleted_by_hand_is_made_again(
    what: str, how: str, lab_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(
        "sh -c 'date +%N > {name}.txt'",
        over=[{"name": "a"}, {"name": "b"}],
        outputs=["{name}.txt"],
    )
    job = command.submit().wait(30)
    before = {row.name: Path(row.path).read_text() for row in _files(job)}
    place = next(Path(row.path) for row in _files(job) if row.name == "a")
    place.unlink() if what == "file" else shutil.rmtree(place.parent)
    again = (command.submit() if how == "submit" else job.retry()).wait(30)
    assert again.state is State.SUCCEEDED
    after = {row.name: Path(row.path).read_text() for row in _files(again)}
    assert after["b"] == before["b"], "what was there stays"
    assert after["a"] != before["a"]
    if how == "submit":
        assert "Results of 1 tasks had been deleted" in capsys.readouterr().err


def _files(job: Any) -> list[Any]:
    table = job.results("*.txt")
    return list(table.drop(columns="key").itertuples())


def test_the_terminal_runs_again_too(
    lab_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("command: sh -c 'date +%N > said'\noutputs: [said]\n")
    assert cli.main(["submit", str(file), "--wait"]) == 0
    assert cli.main(["submit", str(file), "--wait"]) == 0
    assert "Nothing was run" in capsys.readouterr().err
    assert cli.main(["submit", str(file), "--wait", "--rerun"]) == 0
    assert len(list((lab_home / "runs").glob("*/results.before-1/command/*/said"))) == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"output": "s3://bucket/runs"}, ["output: s3://bucket/runs is an address", "afterwards"]),
        ({"output": Path("s3://bucket/runs")}, ["output: s3:/bucket/runs is an address"]),
        ({"output": "file:///data/runs"}, ["'/data/runs'"]),
        (
            {"inputs": {"ref": "https://host/a.fa"}},
            ["inputs, ref: https://host/a.fa is an address"],
        ),
        ({"inputs": {"ref": "file:///data/a.fa"}}, ["'/data/a.fa'"]),
        ({"over": [{"x": "gs://b/a"}], "inputs": ["x"]}, ["row 1, x: gs://b/a is an address"]),
        ({"over": [{"x": ["gs://b/a"]}], "inputs": ["x"]}, ["row 1, x: gs://b/a is an address"]),
        ({"over": [{"x": "s3://b/a"}], "inputs": ["x"]}, ["row 1, x: s3://b/a: no bucket can"]),
        ({"inputs": {"ref": "s3://bucket/refs/"}}, ["inputs, ref: s3://bucket/refs/ is no object"]),
        ({"over": "s3://bucket/samples.csv"}, ["over: s3:/bucket/samples.csv is an address"]),
    ],
)
def test_an_address_is_no_path(
    arguments: dict[str, Any],
    parts: list[str],
    lab_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError) as refused:
        Command("echo", **arguments).submit()
    for part in parts:
        assert part in str(refused.value)
    assert not list(tmp_path.glob("*:*"))


def test_an_address_in_the_options_and_the_settings_is_no_path(
    lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match="output: s3://bucket is an address"):
        Command("true").submit(output="s3://bucket")
    monkeypatch.setenv("LABKIT_RUNS", "s3://bucket")
    with pytest.raises(RefusedError, match="output: s3:/bucket is an address"):
        Command("true").submit()
    assert not list(tmp_path.glob("*:*"))


def test_an_address_that_is_no_input_reaches_the_program(lab_home: Path) -> None:
    job = Command("echo {url}", over=[{"url": "https://host/a"}]).submit().wait(30)
    assert "https://host/a" in job.logs()
