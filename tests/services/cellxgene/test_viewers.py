"""One CellxGene per dataset in use: its start, its end, its crash, and memory that is short."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from labkit.viewers.cellxgene.memory import BASE_BYTES
from services.cellxgene.answers import Key
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import CELLS, decode, make
from tests.services.cellxgene.conftest import Notebook
from tests.services.cellxgene.gate import ADA, BOB, PREFIX, SECRET, Service, running
from tests.support.portal import REPOSITORY, built_envs

pytestmark = needs_env("cellxgene")
NAMES = ("one", "two")
# Room for one viewer and a bit.
TIGHT = int(1.5 * BASE_BYTES)


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with running(folder / "app") as app:
        yield app


@pytest.fixture(scope="module", autouse=True)
def datasets(notebook: Notebook) -> None:
    for seed, name in enumerate(NAMES):
        notebook.publish(make(seed=seed), name, title=name.title(), groups=["imaging"])


@pytest.fixture
def limits(service: Service) -> Iterator[Callable[..., None]]:
    """Change what the viewers may take, for one test."""

    before = service.pool.limits

    def change(**values: Any) -> None:
        service.pool.limits = replace(before, **values)

    yield change
    service.pool.limits = before


def fresh(service: Service) -> None:
    """Stop all viewers and forget what they answered, as after a restart."""

    async def stop() -> None:
        for name in NAMES:
            await service.pool.stop(name)
        service.pool.answers.forget("")

    service.call(stop())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def pids(service: Service) -> dict[str, int]:
    return {one.key.name: one.process.pid for one in service.pool.running() if one.process}


def schema(service: Service, name: str) -> httpx.Response:
    """Ask for what is never kept, and again while it starts, as a program would."""
    end = time.monotonic() + 120
    with service.client(BOB) as bob:
        while True:
            answer = bob.get(f"{name}/api/v0.2/schema?{time.monotonic()}")
            if answer.status_code != 503 or time.monotonic() > end:
                return answer


def test_one_process_for_each_dataset_in_use(service: Service) -> None:
    fresh(service)
    assert pids(service) == {}
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda i: schema(service, NAMES[i % 2]), range(8)))
    assert [one.status_code for one in answers] == [200] * 8
    assert set(pids(service)) == set(NAMES)
    before = pids(service)
    assert schema(service, "one").status_code == 200
    assert pids(service) == before


def test_the_first_start_shows_a_page_and_not_an_error(service: Service) -> None:
    fresh(service)
    service.pool._assets.unlink()
    with service.client(BOB, Accept="text/html") as bob:
        # Nothing is kept of CellxGene's own scripts: this start has to be waited for.
        page = bob.get("one/")
        assert page.status_code == 200 and 'data-state="' in page.text
        assert "window.CELLXGENE" not in page.text
        assert f'data-state="{PREFIX}_/api/state/one"' in page.text
        seen = set()

        def ready() -> bool:
            told = bob.get("_/api/state/one").json()
            seen.add(told["state"])
            return bool(told["state"] == "ready")

        until(ready)
        assert seen <= {"starting", "ready"}
        assert "window.CELLXGENE" in bob.get("one/").text


def test_a_dataset_at_rest_shows_its_cells_at_once(service: Service) -> None:
    """Also after a restart: all that the first picture needs is kept in files."""
    assert schema(service, "one").status_code == 200
    fresh(service)
    with service.client(BOB, Accept="text/html") as bob:
        page = bob.get("one/")
        assert "window.CELLXGENE" in page.text
        viewer = service.pool.get(Key("one", 1))
        assert viewer is not None and viewer.state == "starting", "it starts behind the picture"
        layout = bob.get("one/api/v0.2/layout/obs?layout-name=umap")
        kind = bob.get("one/api/v0.2/annotations/obs?annotation-name=kind")
        assets = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
        assert len(assets) == 2
        assert all(bob.get(f"one/{asset}").status_code == 200 for asset in assets)
        assert viewer.state == "starting", "nothing of this had to wait"
    assert len(decode(layout.content)[0]) == CELLS == len(decode(kind.content)[0])
    assert schema(service, "one").status_code == 200


def test_kept_answers_of_another_cellxgene_are_not_used(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(service)
    monkeypatch.setattr(service.pool, "_stamp", "cellxgene-9.9")
    with service.client(BOB, Accept="text/html") as bob:
        assert 'data-state="' in bob.get("one/").text
    assert schema(service, "one").status_code == 200


def test_many_openings_ask_cellxgene_once(service: Service) -> None:
    assert schema(service, "two").status_code == 200
    service.pool.answers.forget("two")
    viewer = service.pool.get(Key("two", 1))
    assert viewer is not None
    target = "two/api/v0.2/layout/obs?layout-name=umap"
    with service.client(BOB) as bob, ThreadPoolExecutor(20) as many:
        answers = list(many.map(lambda _: bob.get(target), range(20)))
    assert len({one.content for one in answers}) == 1
    assert viewer.tail(1000).count("GET /api/v0.2/layout/obs?layout-name=umap") <= 2


def test_kept_answers_are_asked_for_again_only_if_they_changed(service: Service) -> None:
    with service.client(BOB) as bob:
        first = bob.get("two/api/v0.2/schema")
        again = bob.get("two/api/v0.2/schema", headers={"If-None-Match": first.headers["ETag"]})
        plain = bob.get("two/api/v0.2/schema", headers={"Accept-Encoding": "identity"})
    assert (again.status_code, again.content) == (304, b"")
    assert "no-cache" in first.headers["Cache-Control"], "who may see it is asked each time"
    assert plain.json() == first.json() and "Content-Encoding" not in plain.headers


def test_genes_and_comparisons_are_computed(service: Service) -> None:
    data = make(seed=1)
    with service.client(BOB) as bob:
        found = bob.get("two/api/v0.2/schema").json()["schema"]
        index = found["annotations"]["var"]["index"]
        answer = bob.get(f"two/api/v0.2/data/var?var:{index}=gene3")
        assert decode(answer.content)[0] == data[:, "gene3"].X.toarray().ravel().tolist()
        sets = {
            "mode": "topN",
            "count": 5,
            "set1": {"filter": {"obs": {"index": [[0, 60]]}}},
            "set2": {"filter": {"obs": {"index": [[60, 120]]}}},
        }
        compared = bob.post("two/api/v0.2/diffexp/obs", json=sets)
        assert compared.status_code == 200, compared.text
        assert len(compared.json()["positive"]) == 5
        assert bob.put("two/api/v0.2/annotations/obs", json={}).status_code >= 400


def test_one_that_crashes_takes_no_other_down(service: Service) -> None:
    for name in NAMES:
        assert schema(service, name).status_code == 200
    before = pids(service)
    os.kill(before["one"], signal.SIGKILL)
    until(lambda: not psutil.pid_exists(before["one"]) or "one" not in pids(service))
    assert schema(service, "two").status_code == 200
    assert schema(service, "one").status_code == 200, "it is started again when it is asked for"
    after = pids(service)
    assert after["two"] == before["two"] and after["one"] != before["one"]


def test_one_that_crashes_again_and_again_is_left_alone(
    service: Service, limits: Callable[..., None]
) -> None:
    assert schema(service, "one").status_code == 200
    limits(crashes=1)
    os.kill(pids(service)["one"], signal.SIGKILL)
    key = Key("one", 1)
    until(lambda: getattr(service.pool.get(key), "state", "") == "failed")
    with service.client(BOB, Accept="text/html") as bob:
        answer = bob.get("one/api/v0.2/schema?x")
        assert answer.status_code == 502 and "CellxGene ended" in answer.text
        page = bob.get("one/")
        assert "Try again" in page.text and "it was ended from outside" in page.text
        assert bob.post("_/api/state/one").status_code == 202
    assert schema(service, "one").status_code == 200


def test_the_least_used_goes_when_memory_is_short(
    service: Service, limits: Callable[..., None]
) -> None:
    fresh(service)
    limits(memory=TIGHT, settle=0.1)
    assert schema(service, "one").status_code == 200
    assert schema(service, "two").status_code == 200
    assert set(pids(service)) == {"two"}


def test_one_in_use_is_not_stopped_for_another(
    service: Service, limits: Callable[..., None]
) -> None:
    fresh(service)
    assert schema(service, "one").status_code == 200
    limits(memory=TIGHT, settle=0.1, room=0.5, crashes=1)
    viewer = service.pool.running()[0]
    with viewer.using():
        answer = schema(service, "two")
        assert answer.status_code == 502
        assert "of memory" in answer.text and "other people use now" in answer.text
    assert set(pids(service)) == {"one"}
    assert schema(service, "two").status_code == 200, "that was no crash: it is tried again"


def test_one_that_nobody_uses_is_stopped(service: Service, limits: Callable[..., None]) -> None:
    fresh(service)
    assert schema(service, "two").status_code == 200
    limits(idle=0.2)
    until(lambda: pids(service) == {})


def test_viewers_end_with_the_service(tmp_path: Path, folder: Path) -> None:
    """Also when it is killed: the program as the portal starts it."""
    data = folder / "killed"
    data.mkdir(mode=0o700)
    (data / "datasets").symlink_to(folder / "app/datasets")
    socket = folder / "killed.sock"
    environment = {
        **os.environ,
        "LABHUB_APP_DATA": str(data),
        "LABHUB_APP_PREFIX": PREFIX,
        "LABHUB_APP_SECRET": SECRET,
        "LABHUB_APP_SOCKET": str(socket),
        "LABHUB_ENVS": str(built_envs()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cellxgene"], env=environment, cwd=REPOSITORY
    )
    try:
        until(socket.exists)
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, headers=ADA.headers, timeout=60) as ada:
            assert ada.get(f"http://x{PREFIX}one/api/v0.2/schema").status_code == 200
        viewers = psutil.Process(process.pid).children()
        assert len(viewers) == 1
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(viewers, timeout=10)
    assert alive == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"memory": 5, "idle_minutes": 0}, ["memory", "idle_minutes"]),
        ({"stor": "s3://x"}, ["stor"]),
        ({"store": "/etc"}, ["store"]),
    ],
)
def test_wrong_settings_are_named_at_once(
    tmp_path: Path, content: dict[str, Any], says: list[str]
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(content))
    environment = {
        **os.environ,
        "LABHUB_APP_DATA": str(tmp_path),
        "LABHUB_APP_PREFIX": PREFIX,
        "LABHUB_APP_SECRET": SECRET,
        "LABHUB_APP_SOCKET": str(tmp_path / "s"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.cellxgene"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert all(f"settings.json {word}" in done.stderr for word in says), done.stderr
