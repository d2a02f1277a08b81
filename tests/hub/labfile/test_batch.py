"""The section batch: whose prefix is whose, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hub.labfile.batch import Batch
from hub.labfile.read import parse
from hub.runtime import batch
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from labkit.jobs import prices
from labkit.jobs.backends.batch.options import read

LAB = """
batch:
  queue: spot
  folder: s3://our-lab-jobs/people/
  images: {worker: registry/worker:1, nothing-of-ours: registry/nothing:1}
  role: arn:aws:iam::123456789012:role/jobs
  mounted: [/fsx, /efs/lab]
  region: eu-central-1
"""


def section() -> Batch:
    settings = parse(LAB)
    assert settings.batch is not None
    return settings.batch


def test_a_persons_server_gets_all_that_a_submit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("LABKIT_BATCH_", "AWS_"))]:
        monkeypatch.delenv(name)
    variables = section().variables("ada")
    assert variables["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert "AWS_ENDPOINT_URL" not in variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options, problems = read({})
    assert problems == []
    assert options is not None
    assert (options.queue, options.role) == ("spot", "arn:aws:iam::123456789012:role/jobs")
    assert str(options.folder) == "s3://our-lab-jobs/people/ada"
    assert options.images == json.loads(variables["LABKIT_BATCH_IMAGES"])
    assert options.mounted == (Path("/fsx"), Path("/efs/lab"))


@pytest.mark.parametrize("person", ["../bob", "bob/", "..", "a b", "bob/../eve", "bob\n"])
def test_no_name_leads_to_anothers_prefix(person: str) -> None:
    folder = str(section().options(person)["folder"])
    below = folder.removeprefix("s3://our-lab-jobs/people/")
    assert below != folder
    assert "/" not in below
    assert section().options("bob")["folder"] != folder


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("/efs/lab", "'../etc'", "must be an absolute path"),
        ("/efs/lab", "'/efs:/etc'", "must hold no ':'"),
        ("region: eu-central-1", "endpoint: 'https://me:secret@example.org'", "no password"),
        ("region: eu-central-1", "endpoint: 'ftp://example.org'", "must be a web address"),
    ],
)
def test_what_servers_could_not_be_given_is_refused(was: str, becomes: str, says: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        parse(LAB.replace(was, becomes))
    assert any(says in problem.text for problem in caught.value.problems)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("was", "becomes", "where", "says"),
    [
        ("queue: spot", "queue: 'spot; rm'", "batch.queue", "is no job queue"),
        ("s3://our-lab-jobs/people/", "/people", "batch.folder", "is no address in S3"),
        ("s3://our-lab-jobs/people/", "s3://x/../y", "batch.folder", "no bucket"),
        ("registry/worker:1", "'--privileged'", "batch.images", "names no images"),
        ("arn:aws:iam::123456789012:role/jobs", "jobs", "batch.role", "is no ARN of a role"),
    ],
)
def test_check_refuses_what_no_submit_could_use(
    was: str, becomes: str, where: str, says: str, tmp_path: Path
) -> None:
    settings = parse(LAB.replace(was, becomes))
    found = [p for p in batch.problems(settings, Paths(tmp_path, tmp_path)) if not p.warning]
    assert [(problem.where, says in problem.text) for problem in found] == [(where, True)]


def test_check_names_what_is_not_there(tmp_path: Path) -> None:
    settings = parse(LAB.replace("/efs/lab", str(tmp_path)))
    found = list(batch.problems(settings, Paths(tmp_path, tmp_path)))
    assert [problem.where for problem in found] == ["batch.images.nothing-of-ours", "batch.mounted"]
    assert all(problem.warning for problem in found)
    without = parse(LAB.replace("worker: registry/worker:1, ", ""))
    found = list(batch.problems(without, Paths(tmp_path, tmp_path)))
    assert "batch.images" in [problem.where for problem in found]
    assert not list(batch.problems(parse(""), Paths(tmp_path, tmp_path)))


def test_prices_reach_servers_and_are_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "prices: {currency: EUR, core: {local: 0.01, slurm: 0.02}, gb: {slurm: 0.003}}"
    settings = parse(text)
    assert settings.prices is not None
    for name, value in settings.prices.variables().items():
        monkeypatch.setenv(name, value)
    here = prices.Prices.here()
    assert (here.currency, here.core["slurm"], here.gb["slurm"]) == ("EUR", 0.02, 0.003)
    for wrong in ("currency: euro", "core: {slurm: -1}", "core: {'a b': 1}"):
        with pytest.raises(ProblemsError):
            parse("prices:\n  currency: EUR\n  core: {local: 1}\n  " + wrong)
