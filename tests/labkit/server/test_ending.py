"""The cluster ends a server: who has it open is told why, and has some seconds to save."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from labkit.server.activity import _SLACK, Activity, Rules
from labkit.server.cull_exemption import CullExemption
from labkit.server.ending import Ending, reason

LINE = "slurmstepd: error: *** JOB 12 ON node1 CANCELLED AT 2026-11-30T16:15:36{} ***\n"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("all is well\n", ""),
        (LINE.format(""), "its job was cancelled"),
        (
            f"slurmstepd: error: StepId=12.batch exceeded memory limit (7 > 5)\n{LINE.format('')}",
            "it used more memory than it has",
        ),
        (LINE.format(" DUE TO TIME LIMIT"), "it reached its time limit"),
        (
            LINE.format(" DUE TO PREEMPTION"),
            "it had to give way to a job with higher priority",
        ),
        (LINE.format(" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS"), ""),
        (LINE.format(" DUE TO NODE FAILURE"), "the node node1 failed"),
    ],
)
def test_slurms_own_line_says_why(log: str, why: str) -> None:
    assert reason(log) == why


@pytest.fixture
def terminated() -> Iterator[list[float]]:
    """When SIGTERM reached what had it before."""
    times: list[float] = []
    before = signal.signal(signal.SIGTERM, lambda *_: times.append(time.monotonic()))
    yield times
    signal.signal(signal.SIGTERM, before)


async def until(times: list[float]) -> None:
    async with asyncio.timeout(60):
        while not times:
            await asyncio.sleep(0.01)


async def test_open_pages_are_told_before_the_server_goes(terminated: list[float]) -> None:
    ending = Ending(lambda: LINE.format(""), save=0.5)
    ending.start()
    page = asyncio.create_task(ending.wait(60))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await page == "its job was cancelled"
    told = time.monotonic()
    assert not terminated
    await until(terminated)
    assert terminated[0] - told > 0.4


@pytest.mark.parametrize("log", [LINE.format(""), "stopped from the portal\n"])
async def test_nobody_waits_for_nobody(terminated: list[float], log: str) -> None:
    """Without a page that listens, or a word of the cluster, it ends as ever."""
    ending = Ending(lambda: log, save=3600)
    ending.start()
    page = None if reason(log) else asyncio.create_task(ending.wait(60))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(terminated)
    if page:
        page.cancel()


async def test_without_news_a_page_asks_again() -> None:
    assert await Ending().wait(0.01) == ""


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        (Rules(), 24 * 3600),
        (Rules(ends=1000 + 8 * 3600), 8 * 3600 + _SLACK),
        (Rules(ends=500), 0),
    ],
)
def test_a_server_is_kept_no_longer_than_its_job_has(rules: Rules, most: float) -> None:
    keep = CullExemption("", 24 * 3600, clock=lambda: 1000.0)
    activity = Activity({}, keep, rules, clock=lambda: 1000.0)
    assert activity.keep_most() == most


def test_more_than_is_left_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep = CullExemption("", 24 * 3600, clock=lambda: 1000.0)
    with pytest.raises(ValueError, match="ends in 8 h whatever it does"):
        keep.set(24 * 3600.0, left=8 * 3600.0)
    assert keep.until is None
    assert keep.set(8 * 3600.0, left=8 * 3600.0) == 1000.0 + 8 * 3600
