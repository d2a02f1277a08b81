"""The command ``labkit`` says and does the same as the notebook."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from labkit import cli
from labkit.base.problems import RefusedError
from labkit.jobs import jobfile
from labkit.jobs.job import open_job
from labkit.jobs.model import State

Out = pytest.CaptureFixture[str]

YAML = """\
workflow: command
command: sh -c {script}
over: table.csv
key: name
outputs: [out.txt]
memory: 100 MB
"""


@pytest.fixture
def here(tmp_path: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(YAML)
    (tmp_path / "table.csv").write_text(
        "name,script\nwell,echo x > out.txt\nill,echo why; test -e /tmp/none-such\n"
    )
    return tmp_path


def name_in(text: str) -> str:
    found = re.search(r"sh-[0-9a-f]{12}", text)
    assert found, text
    return found[0]


def test_from_submit_to_results(here: Path, capsys: Out) -> None:
    assert cli.main(["submit", "job.yaml", "--wait"]) == cli.FAILED
    name = name_in(capsys.readouterr().out)
    assert cli.main(["show", name]) == cli.SUCCESS
    assert "command ill: EXIT" in capsys.readouterr().out
    assert cli.main(["logs", name[:6], "ill"]) == cli.SUCCESS
    assert capsys.readouterr().out == "why\n"
    assert cli.main(["results", name, "out.txt", "--to", "found.csv"]) == cli.SUCCESS
    assert "well" in (here / "found.csv").read_text()
    assert cli.main(["jobs", "--json"]) == cli.SUCCESS
    (job,) = json.loads(capsys.readouterr().out)
    assert job["name"] == name
    assert job["tasks"]["FAILED"] == 1
    assert cli.main(["retry", name, "--memory", "x2", "--wait"]) == cli.FAILED
    assert [s.stages[0].resources.memory for s in open_job(name).run.submissions()] == [
        100 << 20, 200 << 20,
    ]  # fmt: skip


def test_plan_starts_nothing(here: Path, lab_home: Path, capsys: Out) -> None:
    assert cli.main(["plan", "job.yaml", "-o", "cpu=0.5"]) == cli.SUCCESS
    said = capsys.readouterr().out
    assert "Plan of sh on local: 2 tasks" in said
    assert "0.5" in said
    assert not (lab_home / "runs").exists()


def test_cancel_and_follow(here: Path, capsys: Out) -> None:
    (here / "table.csv").write_text("name,script\na,echo one; sleep 60\n")
    assert cli.main(["submit", "job.yaml"]) == cli.SUCCESS
    name = name_in(capsys.readouterr().out)
    job = open_job(name)
    while job.state is State.PENDING or not job.logs("a"):
        time.sleep(0.05)
    assert cli.main(["cancel", name]) == cli.SUCCESS
    assert "CANCELLED" in capsys.readouterr().out
    assert cli.main(["logs", name, "-f"]) == cli.SUCCESS
    assert capsys.readouterr().out == "one\n"


def test_follow_gives_lines_as_they_come(here: Path) -> None:
    go = here / "go"
    script = f"echo one; while [ ! -e {go} ]; do sleep 0.1; done; echo two > out.txt"
    (here / "table.csv").write_text(f"name,script\na,{script}\n")
    job = jobfile.load("job.yaml").submit()
    lines = job.follow("a")
    assert next(lines) == "one"
    assert not job.refresh().state.final, "not only at the end"
    go.touch()
    assert list(lines) == []
    assert job.state is State.SUCCEEDED


def test_gc_shows_first_and_keeps_results(here: Path, capsys: Out) -> None:
    (here / "table.csv").write_text(
        "name,script\nwell,echo x > out.txt\nill,head -c 9999 /dev/zero > big; exit 1\n"
    )
    job = jobfile.load("job.yaml").submit().wait(20)
    left = job.path / "attempts/command/1.1/big"
    assert cli.main(["gc"]) == cli.SUCCESS
    assert "9.76 KB could go" in capsys.readouterr().out
    assert left.exists()
    assert cli.main(["gc", "--older-than", "1d", "--yes"]) == cli.SUCCESS
    assert left.exists()
    assert cli.main(["gc", "--yes"]) == cli.SUCCESS
    assert not left.exists()
    assert (job.path / "results/command/well/out.txt").exists()
    assert list(job.failed()["key"]) == ["ill"], "what happened is still told"
    assert cli.main(["gc", job.name, "--all", "--yes"]) == cli.SUCCESS
    assert not job.path.exists()
    capsys.readouterr()
    assert cli.main(["jobs"]) == cli.SUCCESS
    assert "No jobs" in capsys.readouterr().out


def test_gc_leaves_what_runs(here: Path, capsys: Out) -> None:
    (here / "table.csv").write_text("name,script\na,sleep 60\n")
    job = jobfile.load("job.yaml").submit()
    assert cli.main(["gc", "--all", "--yes"]) == cli.SUCCESS
    assert job.path.exists()
    job.cancel()


def test_yaml_and_json_are_the_same_job(here: Path) -> None:
    from ruamel.yaml import YAML as Yaml

    (here / "job.json").write_text(json.dumps(Yaml(typ="safe").load(YAML)))
    first = jobfile.load("job.yaml").submit()
    assert jobfile.load("job.json").submit().path == first.path
    first.cancel()


def test_a_job_file_names_all_its_problems(here: Path, capsys: Out) -> None:
    (here / "bad.yaml").write_text("workflow: command\nmemmory: 2 GB\noptions: 3\n")
    assert cli.main(["submit", "bad.yaml"]) == cli.REFUSED
    said = capsys.readouterr().err
    assert "memmory" in said
    assert "Did you mean 'memory'" in said
    assert "command: is missing" in said
    assert "options" in said


@pytest.mark.parametrize(
    ("text", "part"),
    [("workflow: nope", "nope"), ("[1", "no valid job file"), ("- a", "names and values"),
     ("!!python/object/apply:os.system [touch pwned]", "no valid job file")],
)  # fmt: skip
def test_bad_job_files(here: Path, text: str, part: str, capsys: Out) -> None:
    (here / "bad.yaml").write_text(text)
    assert cli.main(["plan", "bad.yaml"]) != cli.SUCCESS
    assert part in capsys.readouterr().err
    assert not (here / "pwned").exists()


def test_what_is_not_there(here: Path, capsys: Out) -> None:
    for arguments in (["show", "nope"], ["logs", "nope"], ["submit", "nope.yaml"]):
        assert cli.main(arguments) == cli.FAILED
        assert "nope" in capsys.readouterr().err


def test_options_go_before_the_file(here: Path) -> None:
    with pytest.raises(RefusedError, match="memmory"):
        jobfile.load("job.yaml").submit(memmory="2 GB")
    plan = jobfile.load("job.yaml").plan(memory="1 GB")
    assert plan.stages[0].resources.memory == 1 << 30


def test_a_large_log_is_not_read_whole(here: Path) -> None:
    (here / "table.csv").write_text("name,script\na,seq 1 400000; echo x > out.txt\n")
    job = jobfile.load("job.yaml").submit().wait(20)
    assert job.log_path("a").stat().st_size > 2 << 20
    assert job.logs("a", lines=2) == "399999\n400000"
    lines = list(job.follow("a"))
    assert len("".join(lines)) + 400_000 == job.log_path("a").stat().st_size
