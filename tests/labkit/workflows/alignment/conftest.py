from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labkit.workflows.alignment import simulate
from tests.support import job_helpers
from tests.support.portal import built_envs


@dataclass(frozen=True)
class Data:
    """A genome and the reads of one sample in two lanes, with their truth."""

    genome: simulate.Genome
    fasta: Path
    rows: list[dict[str, str]]
    truth: simulate.Truth


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
    """The same for all tests of a module."""
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


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A small genome and 6,000 pairs of it in two lanes."""
    folder = tmp_path_factory.mktemp("reads")
    genome = simulate.Genome.random({"chrA": 60_000, "chrB": 25_000, "chrM": 5_000})
    rows, truth = simulate.pairs(genome, folder, 6000, lanes=("L1", "L2"))
    return Data(genome, genome.write(folder / "genome.fa"), rows, truth)
