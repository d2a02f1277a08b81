"""What all tests share: people, a running portal, and the names of what a machine lacks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftovers, marks, reruns, schedule
from tests.support.marks import CHROMIUM
from tests.support.portal import People, Portal

__all__ = ["CHROMIUM", "needs_chromium", "needs_env", "needs_root"]

ARTIFACTS = Path(__file__).resolve().parent.parent / "test-artifacts"

needs_root = pytest.mark.root
needs_chromium = pytest.mark.browser


def needs_env(name: str) -> pytest.MarkDecorator:
    """Mark a test that uses an environment of images/; skipped where that is not built."""
    return pytest.mark.environment(name)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by what it needs; files that take long come first."""
    files, heavy = {}, set()
    for item in items:
        marks.apply(item, schedule.TESTS)
        files[item.path] = name = item.path.relative_to(schedule.TESTS).as_posix()
        if item.get_closest_marker("unit") is None:
            heavy.add(name)
    key = schedule.rank(schedule.known().seconds, heavy)
    items.sort(key=lambda item: key(files[item.path]))


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_xdist_make_scheduler(config: pytest.Config) -> schedule.Scheduling | None:
    """Let files that wait run beside those that work, where whole files are given out."""
    if config.getvalue("dist") != "loadfile":
        return None
    return schedule.Scheduling(config, schedule.known().waiting)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let pages take their time: what a browser test expects of one may come a minute later."""
    if item.get_closest_marker("browser") is not None and CHROMIUM is not None:
        from playwright.sync_api import expect

        expect.set_options(timeout=60_000)


def pytest_configure(config: pytest.Config) -> None:
    """Add up how long each file takes and what ran again; with workers, where they report to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Run in the background of a script; programs that tests interrupt would ignore it, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        if os.geteuid() == 0 and not config.option.collectonly:
            leftovers.reap()
        config.pluginmanager.register(reruns.Reruns(), "what-ran-again")
        config.pluginmanager.register(schedule.Durations(), "durations-of-files")


@pytest.fixture(scope="session")
def people() -> Iterator[People]:
    """Unix accounts for the length of the run."""
    accounts = People()
    yield accounts
    accounts.remove_all()


@pytest.fixture(scope="module")
def ada(people: People) -> str:
    """A lab member; a fresh account for each test module."""
    return people.add(f"ada{len(people.names)}")


@pytest.fixture(scope="module")
def bob(people: People) -> str:
    """Another lab member."""
    return people.add(f"bob{len(people.names)}")


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    """A running portal with stub servers."""
    with Portal() as running:
        yield running


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept: outside git."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
