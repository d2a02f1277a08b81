from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import job_helpers


@pytest.fixture
def lab_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own; its scheduler and tasks end with the test."""

    def env(name: str, value: str | None) -> None:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    with job_helpers.home(tmp_path / "home", env) as folder:
        yield folder
