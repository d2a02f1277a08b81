"""A server whose job the cluster will end: its user is told in time, in a real JupyterLab."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from labkit.server.activity import Activity, Rules
from labkit.server.cull_exemption import CullExemption
from labkit.server.timelimit import TimeLimit
from tests.conftest import CHROMIUM, needs_chromium
from tests.labkit.server.conftest import TOKEN, Server
from tests.support.portal import REPOSITORY


def test_the_clusters_limit_is_an_end_that_nothing_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LABHUB_ENDS_AT", "5000")
    monkeypatch.setenv("LABHUB_WARN_SECONDS", "600")
    rules = Rules.from_environment()
    keep = CullExemption("", 100_000.0, clock=lambda: 1000.0)
    keep.set(90_000.0)
    activity = Activity({}, keep, rules, clock=lambda: 1000.0)
    assert (rules.ends, rules.warn) == (5000.0, 600.0)
    assert activity.stops() == 5000.0


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does a server that asks when it ends."""

    said: ClassVar[Any] = None
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers["Authorization"]))
        body = json.dumps({"ends": self.said}).encode() if self.said != 403 else b""
        self.send_response(200 if body else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_more_time_from_an_operator_moves_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LABHUB_ENDS_AT", "5000")
    monkeypatch.setenv("JUPYTERHUB_API_URL", f"http://127.0.0.1:{hub.server_address[1]}/hub/api")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "own")
    activity = Activity({}, CullExemption("", 1.0), Rules.from_environment(), clock=lambda: 1000.0)
    limit = TimeLimit(activity, every=0.05)
    limit.start()
    try:
        for said, ends in ((12_200.0, 12_200.0), (None, 12_200.0), (403, 12_200.0), (9000, 9000.0)):
            Hub.said = said
            Hub.asked.clear()
            while len(Hub.asked) < 3:
                await asyncio.sleep(0.02)
            assert activity.stops() == ends
        assert set(Hub.asked) == {("/hub/api/labhub/time-limit", "token own")}
    finally:
        limit.stop()
        hub.shutdown()
        hub.server_close()
    await limit.look()  # the hub is away: what was known stays
    assert activity.stops() == 9000.0


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
