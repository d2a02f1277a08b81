"""What a chart has configured before stays: the portal adds to lists and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from hub.labfile.read import parse
from hub.portal.configure import configure
from hub.state import create
from hub.state.paths import Paths

LISTS: dict[str, Any] = {
    "extra_handlers": ("/chart", object, {}),
    "services": {"name": "chart", "api_token": "t"},
    "load_roles": {"name": "chart", "scopes": []},
    "template_paths": "/chart/templates",
}
TABLES: dict[str, tuple[str, Any]] = {
    "custom_scopes": ("custom:chart", {"description": "a chart's"}),
    "template_vars": ("chart", "shown"),
    "load_groups": ("chart", {"users": ["ada"]}),
    "tornado_settings": ("slow_spawn_timeout", 7),
}


def assigned(c: Config) -> None:
    for name, entry in LISTS.items():
        c.JupyterHub[name] = [entry]
    for name, (key, value) in TABLES.items():
        c.JupyterHub[name] = {key: value}
    c.JupyterHub.tornado_settings["headers"] = {"X-Chart": "kept"}
    c.Spawner.environment = {"CHART": "kept"}


def added(c: Config) -> None:
    for name, entry in LISTS.items():
        getattr(c.JupyterHub, name).append(entry)
    for name, (key, value) in TABLES.items():
        getattr(c.JupyterHub, name).update({key: value})
    c.JupyterHub.tornado_settings.update({"headers": {"X-Chart": "kept"}})
    c.Spawner.environment.update({"CHART": "kept"})


@pytest.mark.parametrize("before", [assigned, added])
def test_what_was_configured_before_stays(
    before: Callable[[Config], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_CULLER_TOKEN", "ab" * 32)
    monkeypatch.setattr("hub.sandbox.checks.problems", lambda *_: [])
    paths = Paths(state=tmp_path / "state", envs=tmp_path / "envs")
    create.make_folders(paths)
    create.make_secrets(paths)
    settings = parse("groups: {imaging: [bob]}")
    plain, charted = Config(), Config()
    before(charted)
    configure(plain, settings, paths)
    configure(charted, settings, paths)
    for name, entry in LISTS.items():
        ours = plain.JupyterHub[name]
        assert ours, name
        assert charted.JupyterHub[name][0] == entry
        assert len(charted.JupyterHub[name]) == 1 + len(ours)
    for name, (key, value) in TABLES.items():
        assert plain.JupyterHub[name].keys() | {key} == charted.JupyterHub[name].keys()
        assert charted.JupyterHub[name][key] == value
    headers = charted.JupyterHub.tornado_settings["headers"]
    assert headers == {"X-Chart": "kept", **plain.JupyterHub.tornado_settings["headers"]}
    assert charted.Spawner.environment == {"CHART": "kept", **plain.Spawner.environment}
