"""What messages and job files of other queues become, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import cli
from labkit.base.problems import RefusedError
from labkit.workflows.cellprofiler.requests import Request

MESSAGE = {
    "pipeline": "examples/fly/ExampleFly.cppipe",
    "input": "examples/fly/images/",
    "output": "examples/fly/output0/",
    "job_memory": "8192",
    "job_vcpu": "12",
}


@pytest.mark.parametrize("kind", ["text", "mapping", "list"])
def test_a_message_as_it_was_written_for_its_own_queue(kind: str) -> None:
    more = {**MESSAGE, "job_definition": "arn:aws:batch:x", "job_queue": "arn:aws:batch:queue/q"}
    given: Any = {"text": json.dumps(more), "mapping": more, "list": [more, MESSAGE]}[kind]
    first, *rest = labkit.import_cpb(given, "lab")
    assert (first.pipeline, first.images, first.output) == (
        "s3://lab/examples/fly/ExampleFly.cppipe",
        "s3://lab/examples/fly/images/",
        "s3://lab/examples/fly/output0/",
    )
    assert first.options == {
        "memory": 8 << 30,
        "cpu": 12.0,
        "batch_queue": "arn:aws:batch:queue/q",
    }
    assert len(rest) == (1 if kind == "list" else 0)
    numbers = {**MESSAGE, "job_memory": 2048, "job_vcpu": 1.5}
    assert labkit.import_cpb(numbers, "lab")[0].options == {"memory": 2 << 30, "cpu": 1.5}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pipeline": "x/../../other.cppipe"}, "names nothing safely"),
        ({"pipeline": "s3://another/x.cppipe"}, "names nothing safely"),
        ({"pipeline": "x.sh"}, "no .cppipe"),
        ({"input": ""}, "input: is missing"),
        ({"output": None}, "output: is missing"),
        ({"output": "/"}, "output: is missing"),
        ({"job_memory": "8 GB"}, "must be a number above zero, not '8 GB'"),
        ({"job_memory": -1}, "must be a number above zero"),
        ({"job_vcpu": "nan"}, "must be a number above zero"),
        ({"job_vcpu": True}, "must be a number above zero"),
        ({"pipelin": "x.cppipe"}, "Did you mean 'pipeline'?"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        labkit.import_cpb({**MESSAGE, **change}, "lab")
    assert says in str(refused.value)


def test_all_problems_of_a_list_at_once() -> None:
    with pytest.raises(RefusedError) as refused:
        labkit.import_cpb([{**MESSAGE, "input": ""}, 3, {**MESSAGE, "job_vcpu": 0}], "lab")
    assert [problem.where for problem in refused.value.problems] == [
        "request 1, input",
        "request 2",
        "request 3, job_vcpu",
    ]
    for broken in ("{", "[]", "3", json.dumps([MESSAGE] * 101)):
        with pytest.raises(RefusedError):
            labkit.import_cpb(broken, "lab")


def test_a_file_from_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[tuple[str, str | None, dict[str, Any]]] = []

    def submit(request: Request, backend: str | None = None, **options: Any) -> str:
        submitted.append((request.pipeline, backend, options))
        return "a job"

    monkeypatch.setattr(Request, "submit", submit)
    file = tmp_path / "message.json"
    file.write_text(json.dumps([MESSAGE, {**MESSAGE, "pipeline": "two.cppipe"}]))
    words = ["import", str(file), "--bucket", "lab", "--backend", "batch", "-o", "cpu=2"]
    assert cli.main(words) == cli.SUCCESS
    assert capsys.readouterr().out == "a job\na job\n"
    assert [(one[0].rpartition("/")[2], one[1]) for one in submitted] == [
        ("ExampleFly.cppipe", "batch"),
        ("two.cppipe", "batch"),
    ]
    assert set(submitted[0][2]) == {"cpu"}
    file.write_text(json.dumps({**MESSAGE, "input": ""}))
    assert cli.main(["import", str(file), "--bucket", "lab"]) == cli.REFUSED
    assert "input: is missing" in capsys.readouterr().err
    assert cli.main(["import", str(file), "--bucket", "lab", "--dcp"]) == cli.REFUSED


def test_a_job_file_that_is_none(tmp_path: Path) -> None:
    for job in (tmp_path / "none.json", {"pipeline": "x.cppipe", "groups": "all"}):
        with pytest.raises(RefusedError):
            labkit.import_dcp(job, "lab")
