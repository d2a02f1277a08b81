"""The pages below labkit/ and their API, in a real Jupyter server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import needs_env
from tests.labkit.server.conftest import Server, kernel_run, wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(
        env={
            "LABHUB_CULL_IDLE_SECONDS": "7200",
            "LABHUB_KEEP_MAX_SECONDS": "28800",
            "LABHUB_MEMORY_BYTES": str(4 << 30),
            "CPU_LIMIT": "2",
            "LABHUB_LAB_NAME": "The <b>lab</b>",
        }
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("path", ["labkit/", "labkit/cellxgene/"])
def test_pages_use_only_their_own_files(server: Server, path: str) -> None:
    with server.client() as client:
        page = client.get(path)
        assert page.status_code == 200
        assert "<b>lab</b>" not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        for link in links:
            assert link.startswith("/user/ada/")
            if "static" in link:
                assert client.get(link.removeprefix("/user/ada/")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "labkit/"),
        ("GET", "labkit/cellxgene/"),
        ("GET", "labkit/api/status"),
        ("PUT", "labkit/api/keep"),
        ("DELETE", "labkit/api/keep"),
        ("GET", "labkit/api/port/22"),
        ("GET", "labkit/api/cellxgene/files"),
        ("POST", "labkit/api/cellxgene/open"),
        ("GET", "labkit/api/cellxgene/open/0123456789abcdef"),
    ],
)
def test_strangers_see_nothing(server: Server, method: str, path: str) -> None:
    answer = httpx.request(method, server.base + path, json={"seconds": 5})
    assert answer.status_code in (302, 403)
    if answer.status_code == 302:
        assert "/login" in answer.headers["Location"]


def test_a_cookie_alone_cannot_change_anything(server: Server) -> None:
    with server.client() as client:
        token = re.search(r'data-xsrf="([^"]+)"', client.get("labkit/").text)
        cookies = dict(client.cookies)
    assert token is not None
    with httpx.Client(base_url=server.base, cookies=cookies) as browser:
        refused = browser.put("labkit/api/keep", json={"seconds": 60})
        assert refused.status_code == 403
        assert server.status()["keep_until"] is None
        allowed = browser.put(
            "labkit/api/keep", json={"seconds": 60}, headers={"X-XSRFToken": token[1]}
        )
        assert allowed.status_code == 200
        assert browser.delete("labkit/api/keep").status_code == 403
        removed = browser.delete("labkit/api/keep", headers={"X-XSRFToken": token[1]})
        assert removed.status_code == 204


def test_keep_and_let_go(server: Server) -> None:
    with server.client() as client:
        assert client.put("labkit/api/keep", json={"seconds": 4 * 3600}).status_code == 200
        status = server.status()
        assert status["keep_until"] == pytest.approx(time.time() + 4 * 3600, abs=10)
        assert status["stops"] == status["keep_until"]
        client.delete("labkit/api/keep")
        status = server.status()
        assert status["keep_until"] is None
        assert status["stops"] == pytest.approx(time.time() + 7200, abs=20)


@pytest.mark.parametrize("seconds", [28801, 0, -5, "60", None, True, [1], 1e400, {}])
def test_what_cannot_be_kept(server: Server, seconds: object) -> None:
    with server.client() as client:
        content = json.dumps({"seconds": seconds})
        answer = client.put("labkit/api/keep", content=content)
        assert answer.status_code == 400
        assert answer.json()["message"]
        assert client.put("labkit/api/keep", content="[]").status_code == 400
        assert client.put("labkit/api/keep", content="nonsense").status_code == 400
    assert server.status()["keep_until"] is None


def test_a_silent_cell_is_shown_with_its_notebook(server: Server) -> None:
    with server.client() as client:
        session = client.post(
            "api/sessions",
            json={"path": "deep/long.ipynb", "type": "notebook", "kernel": {"name": "python3"}},
        ).json()
        kernel = session["kernel"]["id"]
        connection = kernel_run(server, kernel, "import time; time.sleep(60)")
        busy = wait_for(lambda: server.status()["busy"])
        assert [(one["kind"], one["text"]) for one in busy] == [("kernel", "deep/long.ipynb")]
        before = server.status()["last_activity"]
        time.sleep(6)
        assert server.status()["last_activity"] > before
        connection.close()
        client.post(f"api/kernels/{kernel}/interrupt")
        wait_for(lambda: not server.status()["busy"])
        client.delete(f"api/sessions/{session['id']}")


def test_a_hold_of_a_notebook_is_shown(server: Server) -> None:
    code = "import labkit.base.activity as b, time\nh = b.hold('copying <plate>'); h.__enter__()"
    with server.client() as client:
        kernel = client.post("api/kernels", json={"name": "python3"}).json()["id"]
        connection = kernel_run(server, kernel, code)
        busy = wait_for(lambda: [b for b in server.status()["busy"] if b["kind"] == "hold"])
        assert busy[0]["text"] == "copying <plate>"
        # It ends with its process, also when that is killed.
        connection.close()
        client.delete(f"api/kernels/{kernel}")
    wait_for(lambda: not server.status()["busy"])
    assert list((server.home / ".local/share/labkit/busy").glob("*.json")) == []


def test_what_it_uses(server: Server) -> None:
    usage = server.status()["usage"]
    assert 30e6 < usage["memory"] < 2e9
    assert usage["memory_limit"] == 4 << 30
    assert usage["cores_limit"] == 2
    assert usage["processes"] >= 1


def test_data_in_the_home_is_found(server: Server) -> None:
    (server.home / "a/b").mkdir(parents=True)
    (server.home / "a/b/cells.h5ad").write_bytes(b"x" * 5)
    (server.home / "plate.zarr/0").mkdir(parents=True)
    (server.home / "plate.zarr/inner.h5ad").write_bytes(b"")
    (server.home / ".cache").mkdir(exist_ok=True)
    (server.home / ".cache/hidden.h5ad").write_bytes(b"")
    (server.home / "loop").symlink_to(server.home)
    with server.client() as client:
        found = client.get("labkit/api/cellxgene/files").json()
    assert found["complete"] is True
    assert {one["path"]: one["size"] for one in found["files"]} == {
        "a/b/cells.h5ad": 5,
        "plate.zarr": None,
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"path": "none.h5ad"}, 404),
        ({"path": "/etc/passwd"}, 400),
        ({"path": ""}, 400),
        ({"path": 5}, 400),
        ({"path": "a\0.h5ad"}, 400),
        ({"path": "x" * 5000 + ".h5ad"}, 400),
        ({"path": "~nobody-of-this-name/x.h5ad"}, 400),
        ({}, 400),
    ],
)
def test_what_cannot_be_opened(server: Server, body: object, status: int) -> None:
    with server.client() as client:
        answer = client.post("labkit/api/cellxgene/open", json=body)
    assert answer.status_code == status
    assert answer.json()["message"]


@needs_env("cellxgene")
def test_data_that_is_refused_says_why(server: Server) -> None:
    (server.home / "broken.h5ad").write_bytes(b"this is no hdf5")
    with server.client() as client:
        begun = client.post("labkit/api/cellxgene/open", json={"path": "broken.h5ad"})
        assert begun.status_code == 202
        where = f"labkit/api/cellxgene/open/{begun.json()['id']}"

        def ended() -> dict[str, object] | None:
            opening = dict(client.get(where).json())
            return opening if opening["state"] != "working" else None

        opening = wait_for(ended, 60)
    assert opening["state"] == "failed"
    assert "broken.h5ad" in str(opening["error"])
    assert "Traceback" not in str(opening["error"])
