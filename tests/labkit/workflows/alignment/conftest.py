from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labkit.workflows.alignment import simulate


@dataclass(frozen=True)
class Data:
    """A genome and the reads of one sample in two lanes, with their truth."""

    genome: simulate.Genome
    fasta: Path
    rows: list[dict[str, str]]
    truth: simulate.Truth


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A small genome and 6,000 pairs of it in two lanes."""
    folder = tmp_path_factory.mktemp("reads")
    genome = simulate.Genome.random({"chrA": 60_000, "chrB": 25_000, "chrM": 5_000})
    rows, truth = simulate.pairs(genome, folder, 6000, lanes=("L1", "L2"))
    return Data(genome, genome.write(folder / "genome.fa"), rows, truth)
