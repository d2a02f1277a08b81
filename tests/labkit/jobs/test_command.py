"""labkit.Command: any tool over the rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.jobs.model import State
from labkit.workflows.command import Command

if TYPE_CHECKING:
    import pandas as pd

HOSTILE = [
    "a b.txt",
    "x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"quoted" $HOME ${out}',
    "-rf",
    "{braces}",
    "line\nbreak",
    "ünïcode",
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(f"{name}\n" * len(name))
    return folder


def table(files: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {"sample": ["one", "two"], "reads": [str(files / "one.txt"), str(files / "two.txt")]}
    )


def texts(command: Command) -> str:
    with pytest.raises(RefusedError) as refused:
        command.submit()
    return str(refused.value)


def test_over_a_dataframe(files: Path, lab_home: Path) -> None:
    job = labkit.Command(
        "cp {reads} {out}/{sample}.copy",
        over=table(files),
        inputs=["reads"],
        outputs=["{sample}.copy"],
    ).submit()
    assert job.wait(20).state is State.SUCCEEDED
    found = job.results("*.copy")
    assert list(found["sample"]) == ["one", "two"]
    assert Path(found["path"][1]).read_text() == "two\n" * 3
    assert (lab_home / "runs") in job.path.parents


@pytest.mark.parametrize("shell", [False, True])
def test_hostile_values_stay_one_argument(shell: bool, lab_home: Path, tmp_path: Path) -> None:
    code = "import sys,json; json.dump(sys.argv[1:], open('argv','w'))"
    program = tmp_path / "show.py"
    program.write_text(code)
    job = Command(
        "python3 {script} {value} --x={value}",
        over=[{"n": str(i), "value": value} for i, value in enumerate(HOSTILE)],
        inputs={"script": program},
        outputs=["argv"],
        shell=shell,
    ).submit()
    assert job.wait(60).state is State.SUCCEEDED, job.failed()
    said = [json.loads(Path(path).read_text()) for path in job.results("argv")["path"]]
    assert said == [[value, f"--x={value}"] for value in HOSTILE]
    assert not list(job.path.rglob("pwned"))


def test_a_csv_keeps_its_text_and_paths_count_from_it_too(files: Path, lab_home: Path) -> None:
    sheet = files / "samples.csv"
    sheet.write_text("sample,reads\n007,one.txt\n008,two.txt\n")
    job = Command("cat {reads}", over=sheet, inputs=["reads"], key="sample").submit()
    assert job.wait(20).state is State.SUCCEEDED
    assert job.logs("007") == "one\none\none"


def test_names_with_wildcards_are_names(lab_home: Path) -> None:
    rows = [{"s": "a[1]"}, {"s": "b*"}]
    job = Command("cp /dev/null {out}/x{s}", over=rows, outputs=["x{s}"]).submit().wait(20)
    assert list(job.failed()["text"]) == [
        "the program said it was well, but xa[1] is empty",
        "the program said it was well, but xb* is empty",
    ]


def test_a_list_is_several_arguments(files: Path, lab_home: Path) -> None:
    lanes = [str(files / "one.txt"), str(files / "two.txt")]
    job = Command("cat {lanes}", over=[{"s": "a", "lanes": lanes}], inputs=["lanes"]).submit()
    assert job.wait(20).state is State.SUCCEEDED
    assert job.logs().split() == ["one"] * 3 + ["two"] * 3


def test_a_shell_only_where_asked_for_and_values_are_quoted(lab_home: Path) -> None:
    job = Command(
        "printf '%s\\n' {word} | tr a-z A-Z > {out}/said && test {cpu} -eq 1",
        over=[{"word": "it's $HOME"}],
        shell=True,
        outputs=["said"],
    ).submit()
    assert job.wait(20).state is State.SUCCEEDED, job.logs()
    assert (job.path / "results/command/it_s_HOME/said").read_text() == "IT'S $HOME\n"


def test_a_failing_pipe_fails(lab_home: Path) -> None:
    job = Command("false | cat", shell=True).submit()
    assert job.wait(20).state is State.FAILED


def test_all_problems_at_once(files: Path, lab_home: Path) -> None:
    text = texts(
        Command(
            "cp {raeds} {out} > {log}",
            over=table(files),
            inputs=["rows"],
            outputs=["../x", "/abs", "{nope}.txt"],
            key="id",
            memory="many",
            environment="../../etc",
        )
    )
    for part in (
        "raeds", "'reads'", "log", "'>'", "shell=True", "rows", "id: is no column",
        "../x", "/abs", "nope", "many", "Columns: reads, sample",
    ):  # fmt: skip
        assert part in text, part
    assert not (lab_home / "runs").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"command": ""}, "is empty"),
        ({"command": "echo 'x"}, "quotes"),
        ({"command": "echo {x"}, "brace"),
        ({"command": "echo {x.__class__}"}, "there is no such column"),
        ({"command": "echo {x!r}"}, "no name of a column"),
        ({"command": "no-such-tool-x {x}"}, "no-such-tool-x"),
        ({"command": "echo {x}", "over": []}, "no rows"),
        ({"command": "echo {x}", "over": "none.csv"}, "none.csv"),
        ({"command": "echo {x}", "over": 7}, "no table"),
        ({"command": "echo {x}", "over": [{"x": ""}]}, "row 1, x: is empty"),
        ({"command": "echo {x}", "over": [{"x": "a"}, {"x": "a"}], "key": "x"}, "same key"),
        ({"command": "echo {x}", "over": [{"x": "/none"}], "inputs": ["x"]}, "no file /none"),
        ({"command": "echo {out}", "over": [{"out": "a"}]}, "Rename the column"),
        ({"command": "echo '{x}'", "over": [{"x": "a"}], "shell": True}, "stands in quotes"),
        ({"command": 'echo "{x}"', "over": [{"x": "a"}], "shell": True}, "stands in quotes"),
        ({"command": "echo {x}", "over": [{"x": "a"}], "environment": "nope"}, "nope"),
        ({"command": "echo", "inputs": {"ref": "none.fa"}}, "none.fa"),
        ({"command": "echo {x}", "over": [{"x": float("nan")}]}, "is empty"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], part: str, lab_home: Path) -> None:
    arguments.setdefault("over", [{"x": "a"}])
    if "ref" in arguments.get("inputs", {}):
        arguments["over"] = None
    assert part in texts(Command(**arguments))


def test_a_script_beside_the_notebook_must_be_declared(
    files: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    assert "Declare it" in texts(Command("sh one.txt"))


def test_a_changed_input_is_other_work(files: Path, lab_home: Path) -> None:
    command: dict[str, Any] = {"command": "cat {reads}", "over": table(files), "inputs": ["reads"]}
    first = Command(**command).submit().wait(20)
    assert Command(**command).submit().key == first.key
    (files / "one.txt").write_text("changed")
    assert Command(**command).submit().key != first.key


def test_more_memory_is_the_same_work(files: Path, lab_home: Path) -> None:
    first = Command("true", memory="100 MB").submit()
    assert Command("true", memory="200 MB").submit().key == first.key


def test_tokens_of_the_server_do_not_reach_tasks(
    lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUPYTERHUB_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_PASSWORD"):
        monkeypatch.setenv(name, "s3cret")
    job = Command("env", env={"COLOUR": "gr$een"}).submit().wait(20)
    assert "s3cret" not in job.logs()
    assert "COLOUR=gr$een" in job.logs()
    assert not [
        path for path in job.path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()
    ]


def test_run_folders_are_for_their_owner_alone(lab_home: Path) -> None:
    job = Command("true").submit().wait(20)
    assert job.path.stat().st_mode & 0o077 == 0
