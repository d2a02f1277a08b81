"""What is asked of AWS Batch: names, arrays, limits, options; nothing is sent."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.jobs.backends.batch import requests
from labkit.jobs.backends.batch.options import read
from labkit.jobs.backends.batch.requests import Array, layout
from labkit.jobs.backends.containers import image_of
from labkit.jobs.model import Container, Environment, Resources
from labkit.jobs.runs.store import StageWork
from labkit.testing.batch import rules

GOOD = {
    "queue": "spot",
    "folder": "s3://lab-jobs/ada",
    "images": {"alignment": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/al@sha256:0f"},
    "role": "arn:aws:iam::123456789012:role/jobs",
    "mounted": ["/fsx"],
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LABKIT_BATCH_")]:
        monkeypatch.delenv(name)


def work(tasks: int, **asked: Any) -> StageWork:
    return StageWork("align", tuple(range(tasks)), Resources.of(**asked), retries=20)


def request(array: Array, asked: StageWork, **more: Any) -> dict[str, Any]:
    given = {"depends_on": [], "environment": {}, "tags": {"labkit:user": "ada"}, **more}
    return requests.job(
        array, asked, name=array.name("labkit-x-1"), queue="spot", definition="arn", **given
    )


def test_a_stage_is_one_array_or_several() -> None:
    assert list(layout([work(1)])) == [Array("align", 0, 1)]
    assert list(layout([work(10_000)])) == [Array("align", 0, 10_000)]
    assert list(layout([work(20_001)])) == [
        Array("align", 0, 10_000),
        Array("align", 10_000, 10_000),
        Array("align", 20_000, 1),
    ]


def test_names_tell_arrays_apart_and_are_names() -> None:
    submissions = ["labkit-plate.1-0a-1", "labkit-plate_1-0a-1", "x" * 200 + "1", "x" * 200 + "2"]
    arrays = [Array("align", 0, 2), Array("align", 2, 2), Array("gather", 0, 1)]
    names = [array.name(submission) for submission in submissions for array in arrays]
    assert len(set(names)) == len(names)
    assert all(rules.refusal({"jobName": name}, {}) == "" for name in names)
    assert names == [array.name(submission) for submission in submissions for array in arrays]


def test_the_largest_request_is_within_the_limits() -> None:
    environment = {
        "LABKIT_PAYLOAD": "s3://" + "b" * 63 + "/" + "k" * 1000,
        "LABKIT_PAYLOAD_SHA256": "0" * 64,
        "LABKIT_RUN_ADDRESS": "s3://" + "b" * 63 + "/" + "k" * 1000,
        "LABKIT_TOLERATED": "1",
    }
    jobs = {f"{number:036}": SimpleNamespace(size=None) for number in range(20)}
    largest = request(
        Array("align", 0, 10_000),
        work(10_000, memory="1.5 TB", time="20 days", gpus=8),
        environment=environment,
        depends_on=list(jobs),
    )
    assert rules.refusal(largest, jobs) == ""
    assert largest["retryStrategy"]["attempts"] == 10, "Batch's own limit"
    assert largest["retryStrategy"]["evaluateOnExit"][-1] == {"onReason": "*", "action": "EXIT"}


def test_what_a_task_asks_for_and_what_labkit_adds() -> None:
    one = request(Array("align", 0, 1), work(1, cpu=1.5, memory="4 GB", time="1 s"))
    needs = {
        need["type"]: need["value"] for need in one["containerOverrides"]["resourceRequirements"]
    }
    assert needs == {"VCPU": "2", "MEMORY": str(4096 + 256)}
    assert one["timeout"]["attemptDurationSeconds"] == 1801
    assert "arrayProperties" not in one
    assert "timeout" not in request(Array("align", 0, 1), work(1))


def test_only_a_machine_that_was_taken_away_is_tried_again() -> None:
    strategy = request(Array("align", 0, 1), work(1))["retryStrategy"]["evaluateOnExit"]
    assert rules.is_retried(strategy, None, "", "Host EC2 (instance i-0) terminated.")
    for code, reason, status in ((1, "", rules.EXITED), (137, "OutOfMemoryError: killed", "")):
        assert not rules.is_retried(strategy, code, reason, status)


def test_an_image_has_one_definition() -> None:
    one, same, other = (requests.definition(image, "") for image in ("a:1", "a:1", "a:2"))
    assert one == same and one["jobDefinitionName"] != other["jobDefinitionName"]
    assert requests.definition("a:1", "arn")["jobDefinitionName"] != one["jobDefinitionName"]
    images = {"alignment": "al:1", "worker": "w:1"}
    assert image_of(Environment("alignment"), images) == "al:1"
    assert image_of(None, images) == "w:1"
    assert image_of(Container("c:1"), images) == "c:1"
    assert image_of(Environment("cellprofiler"), images) == ""


def test_the_environment_fills_in_what_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, problems = read(GOOD)
    assert problems == [] and chosen is not None
    monkeypatch.setenv("LABKIT_BATCH_QUEUE", "on-demand")
    monkeypatch.setenv("LABKIT_BATCH_FOLDER", "s3://lab-jobs/bob")
    monkeypatch.setenv("LABKIT_BATCH_IMAGES", json.dumps({"worker": "w:1"}))
    filled, problems = read({"queue": "spot"})
    assert problems == [] and filled is not None
    assert (filled.queue, str(filled.folder)) == ("spot", "s3://lab-jobs/bob")
    assert filled.images == {"worker": "w:1"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"queue": ""}, "batch_queue"),
        ({"queue": "--endpoint-url=http://evil"}, "batch_queue"),
        ({"queue": 7}, "batch_queue"),
        ({"folder": "/home/ada"}, "batch_folder"),
        ({"folder": "s3://lab/../other"}, "batch_folder"),
        ({"folder": "https://lab/x"}, "batch_folder"),
        ({"folder": 7}, "batch_folder"),
        ({"images": "{"}, "batch_images"),
        ({"images": {"alignment": "a b"}}, "batch_images"),
        ({"images": {"alignment": "-v"}}, "batch_images"),
        ({"images": ["alignment"]}, "batch_images"),
        ({"role": "admin"}, "batch_role"),
    ],
)
def test_options_that_mean_nothing_are_refused(change: dict[str, Any], where: str) -> None:
    chosen, problems = read({**GOOD, **change})
    assert chosen is None
    assert [problem.where for problem in problems] == [where]
