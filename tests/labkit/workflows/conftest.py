"""Homes for jobs that run in the environments of a lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import job_helpers
from tests.support.portal import built_envs


@pytest.fixture
def lab_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own; its scheduler and tasks end with the test."""

    def env(name: str, value: str | None) -> None:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    env("LABHUB_ENVS", str(built_envs()))
    env("LABKIT_REFERENCES", None)
    with job_helpers.home(tmp_path / "home", env) as folder:
        yield folder


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for all tests of a module: they look at one real job."""
    before = dict(os.environ)

    def env(name: str, value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    env("LABHUB_ENVS", str(built_envs()))
    env("LABKIT_REFERENCES", None)
    try:
        with job_helpers.home(tmp_path_factory.mktemp("lab") / "home", env) as folder:
            yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)
