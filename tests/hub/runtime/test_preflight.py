"""What a portal needs before it starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hub.apps import catalogue
from hub.labfile.read import read
from hub.runtime import preflight
from hub.state.paths import REPOSITORY, Paths


def test_an_environment_is_wanted_once_also_where_an_app_runs_in_the_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = SimpleNamespace(kind="", service=SimpleNamespace(environment="hub"))
    monkeypatch.setattr(catalogue, "read", lambda *_: ([app], []))
    settings = read(REPOSITORY / "config" / "lab.yaml")
    names = preflight.wanted_environments(settings, Paths(tmp_path, tmp_path))
    assert names[:2] == ["hub", "proxy"]
    assert "notebook" in names
    assert len(names) == len(set(names))
