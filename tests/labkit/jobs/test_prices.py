"""Money: before in the plan, after on the card, and over all jobs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import labkit
from labkit.base.units import GB
from labkit.jobs import prices
from labkit.jobs.notebook.text import card
from labkit.jobs.plan import Plan
from labkit.jobs.prices import Prices
from tests.support.job_helpers import Staged, stage

OWN = {"currency": "EUR", "core": {"local": 3600.0, "slurm": 0.02}, "gb": {"slurm": 0.005}}


@pytest.fixture
def lab_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PRICES", json.dumps(OWN))


def plan(**options: object) -> Plan:
    many = [stage(f"s{n}", *["true"] * n, resources=labkit.Resources.of(2, "4 GB", t))
            for n, t in ((1, "1h"), (3, None))]  # fmt: skip
    return Plan("x", "x", tuple(many))


def test_before(lab_prices: None) -> None:
    said = prices.before(plan(), "slurm")
    # 2 cores at 0.02 and 4 GB at 0.005 are 0.06 an hour
    assert "at most 0.0600 EUR if each task takes all its time" in said
    assert "0.0600 EUR for each hour of a task of s3" in said
    assert "the lab's prices" in said
    assert prices.before(plan(), "batch") == "", "nobody has said a price"


def test_without_a_labs_prices_batch_has_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_PRICES", raising=False)
    here = Prices.here()
    # What the list was made of: two cores with 4 and with 16 GB
    assert here.amount("batch", 2 * 3600, 4 * GB * 3600) == pytest.approx(0.085, rel=0.01)
    assert here.amount("batch", 2 * 3600, 16 * GB * 3600) == pytest.approx(0.126, rel=0.01)
    assert here.amount("local", 3600, 0) is None
    assert "2024-06" in prices.before(plan(), "batch")
    assert prices.after([("local", 3600.0, 0.0)]) == ""
    assert prices.after([("batch", 3600.0, 0.0), ("local", 1.0, 1.0)]) == "", "a part is no sum"


@pytest.mark.parametrize(
    "wrong", ["{", "[]", "3", '{"currency": "EUR"}', '{"core": {"local": "x"}}']
)
def test_wrong_prices_cost_nobody_a_job(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_PRICES", wrong)
    assert Prices.here().currency == "USD"


def test_after_and_over_all_jobs_with_failed_attempts(
    lab_prices: None, lab_home: Path, tmp_path: Path
) -> None:
    flow = Staged(stage("one", "true", "exit 3"), output=tmp_path / "runs")
    assert "the lab's prices" in "; ".join(flow.plan("local").notes)
    job = flow.submit("local").wait(120)
    job.retry().wait(120)
    records = [json.loads(path.read_text()) for path in (job.path / "tasks/one").glob("*.json")]
    assert len(records) == 3
    seconds = sum(record["cpu"] * record["seconds"] for record in records)
    shown = re.search(r"([0-9.]+) EUR \(the lab's prices\)", card(job))
    assert shown is not None
    assert float(shown[1]) == pytest.approx(seconds, abs=0.006)  # as it is rounded
    table = labkit.costs()
    assert table["job"].tolist() == [job.path.name]
    assert table["amount"][0] == pytest.approx(seconds)
    assert table["core_hours"][0] == pytest.approx(seconds / 3600)
    for by in ("month", "backend"):
        assert labkit.costs(by)["amount"].sum() == pytest.approx(seconds)
    with pytest.raises(ValueError, match="'job', 'month' or 'backend'"):
        labkit.costs("moon")


def test_no_price_is_not_nothing(
    lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABKIT_PRICES", raising=False)
    job = Staged(stage("one", "true"), output=tmp_path / "runs").submit("local").wait(120)
    assert "Cost" not in card(job)
    assert math.isnan(labkit.costs()["amount"][0])
