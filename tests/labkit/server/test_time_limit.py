"""A server whose job the cluster will end: its user is told in time, in a real JupyterLab."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from labkit.server.activity import Activity, Rules
from labkit.server.keep import Keep
from tests.conftest import CHROMIUM, needs_chromium
from tests.labkit.server.conftest import TOKEN, Server
from tests.portal import REPOSITORY


def test_the_clusters_limit_is_an_end_that_nothing_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LABHUB_ENDS_AT", "5000")
    monkeypatch.setenv("LABHUB_WARN_SECONDS", "600")
    rules = Rules.from_environment()
    keep = Keep("", 100_000.0, clock=lambda: 1000.0)
    keep.set(90_000.0)
    activity = Activity({}, keep, rules, clock=lambda: 1000.0)
    assert (rules.ends, rules.warn) == (5000.0, 600.0)
    assert activity.stops() == 5000.0


@needs_chromium
@pytest.mark.slow
def test_jupyterlab_warns_before_the_end(tmp_path: Path, artifacts: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    pytest.importorskip("jupyterlab", reason="needs JupyterLab")
    place = tmp_path / "labextensions"
    place.mkdir()
    # As the wheel brings it to share/jupyter.
    source = REPOSITORY / "labkit" / "server" / "data" / "labextension"
    (place / "labkit-notices").symlink_to(source)
    server = Server(
        env={
            "LABHUB_ENDS_AT": str(int(time.time()) + 300),
            "LABHUB_WARN_SECONDS": "600",
            "JUPYTER_PATH": str(tmp_path),
        }
    )
    (server.folder / "config" / "jupyter_server_config.d" / "tests.json").write_text(
        json.dumps({"ServerApp": {"jpserver_extensions": {"jupyterlab": True}}})
    )
    try:
        server.start()
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{server.base}lab?token={TOKEN}")
            notice = page.get_by_text("that is its time limit on the cluster")
            notice.first.wait_for(timeout=90_000)
            page.screenshot(path=artifacts / "time-limit-lab.png")
            assert "Save your work" in notice.first.inner_text()
            page.goto(f"{server.base}labkit/")
            lead = page.get_by_text("that is its job's time limit on the cluster")
            lead.wait_for(timeout=60_000)
            page.screenshot(path=artifacts / "time-limit-page.png")
            browser.close()
    finally:
        server.stop()
