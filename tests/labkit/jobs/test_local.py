"""The local backend keeps the contract of all backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backend_contract import BackendContract, Site


class TestLocal(BackendContract):
    @pytest.fixture
    def site(self, tmp_path: Path, lab_home: Path) -> Site:
        return Site("local", tmp_path)
