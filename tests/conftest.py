"""What all tests share: people, a running portal, and the names of what a machine lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.portal import People, Portal, built_envs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARTIFACTS = Path(__file__).resolve().parent.parent / "test-artifacts"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (Unix accounts, namespaces)")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def needs_env(name: str) -> pytest.MarkDecorator:
    """Skip where an environment of images/ is not built."""
    return pytest.mark.skipif(
        not (built_envs() / name).exists(), reason=f"needs the environment {name!r} (labhub up)"
    )


@pytest.fixture(scope="session")
def people() -> Iterator[People]:
    """Unix accounts for the length of the run."""
    if os.geteuid() != 0:
        pytest.skip("needs root (Unix accounts)")
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
    if os.geteuid() != 0:
        pytest.skip("needs root (user servers under their own accounts)")
    with Portal() as running:
        yield running


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept: outside git."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
