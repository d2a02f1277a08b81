"""Known holes: what the lock files name, asked of a stand-in for OSV."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub.environments import advisories
from hub.environments.advisories import Package
from hub.runtime import doctor
from hub.state.paths import REPOSITORY

HOLE = {
    "id": "GHSA-1",
    "summary": "A hole in node-forge",
    "affected": [
        {
            "package": {"name": "node-forge", "ecosystem": "npm"},
            "ranges": [
                {"type": "GIT", "events": [{"fixed": "0123abc"}]},
                {"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "9.9.9"}]},
            ],
        }
    ],
}
GONE = {"id": "GHSA-2", "withdrawn": "2026-01-01T00:00:00Z"}


class Osv:
    """Stands for OSV: one hole in one npm package, on a second page, and one withdrawn."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Any = self._results
        osv = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                osv.asked += body["queries"]
                self._send(osv.answer(body["queries"]))

            def do_GET(self) -> None:
                self._send({"GHSA-1": HOLE, "GHSA-2": GONE}[self.path.rpartition("/")[2]])

            def _send(self, content: object) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def _results(queries: list[dict[str, Any]]) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        for query in queries:
            if query["package"]["name"] != "node-forge":
                results.append({})
            elif "page_token" in query:
                results.append({"vulns": [{"id": "GHSA-1"}]})
            else:
                results.append({"vulns": [{"id": "GHSA-2"}], "next_page_token": "2"})
        return {"results": results}


@pytest.fixture
def osv() -> Iterator[Osv]:
    made = Osv()
    yield made
    made.server.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    hub, other = tmp_path / "hub", tmp_path / "alignment"
    hub.mkdir()
    other.mkdir()
    (hub / "requirements.lock").write_text(
        "Jinja2==3.1.6 \\\n    --hash=sha256:00\n"
        "uvicorn[standard]==0.3 ; python_version < '4' \\\n    --hash=sha256:01\n# a==1\n"
    )
    npm = {
        "": {"name": "labhub-proxy"},
        "node_modules/@scope/one": {"version": "1.0.0"},
        "node_modules/a/node_modules/node-forge": {"version": "1.3.1"},
    }
    (hub / "package-lock.json").write_text(json.dumps({"packages": npm}))
    (other / "jars.lock").write_text(f"{'0' * 64}  org/apache/x/log4j/2.0.1/log4j-2.0.1.jar\n")
    return tmp_path


def test_every_kind_of_lock_is_asked_about(osv: Osv, images: Path) -> None:
    number, holes = advisories.ask(images, osv.address)
    asked = {
        (query["package"]["ecosystem"], query["package"]["name"], query["version"])
        for query in osv.asked
    }
    assert asked == {
        ("PyPI", "jinja2", "3.1.6"),
        ("PyPI", "uvicorn", "0.3"),
        ("npm", "@scope/one", "1.0.0"),
        ("npm", "node-forge", "1.3.1"),
        ("Maven", "org.apache.x:log4j", "2.0.1"),
    }
    assert number == len(asked)
    (hole,) = holes
    assert (hole.id, hole.package) == ("GHSA-1", Package("npm", "node-forge", "1.3.1"))
    assert hole.locks == ("hub/package-lock.json",)
    assert hole.fixed == ("9.9.9",)


def test_doctor_names_holes_and_who_closes_them(
    osv: Osv, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "REPOSITORY", images.parent)
    images.rename(images.parent / "images")
    finding = doctor.known_holes(osv.address)
    assert finding.detail == "5 packages, 1 advisories"
    (problem,) = finding.problems
    assert "node-forge 1.3.1: GHSA-1 A hole" in problem.text
    assert problem.hint == "9.9.9 closes it"
    assert finding.ok


@pytest.mark.parametrize("answer", [[], {}, {"results": []}, {"results": [{"vulns": 1}]}])
def test_what_is_no_answer_is_no_good_news(osv: Osv, images: Path, answer: object) -> None:
    osv.answer = lambda _: answer
    with pytest.raises(advisories.NotAskedError):
        advisories.ask(images, osv.address)


def test_doctor_says_that_nobody_was_asked() -> None:
    finding = doctor.known_holes("http://127.0.0.1:9")
    assert finding.detail == "not asked"
    assert "were not asked for" in finding.problems[0].text


def test_no_lock_of_ours_is_read_as_empty() -> None:
    """A lock whose form is not understood would be safe for ever."""
    files = advisories.locks(REPOSITORY / "images")
    kinds = {file.name for file in files}
    assert kinds == {"requirements.lock", "package-lock.json", "jars.lock"}
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line[:1].isalnum()]
        found = advisories.packages_in(file)
        if file.name == "package-lock.json":
            assert len(found) > 20
        elif file.name == "jars.lock":  # one artifact may be several files
            assert len(found) == len({line.split()[1].rpartition("/")[0] for line in lines})
        else:
            assert len(found) == len({line.partition(";")[0] for line in lines}), file
