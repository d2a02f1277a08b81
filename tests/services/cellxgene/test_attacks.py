"""Who must not get in, does not: every path, every method, forged identities, foreign files."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from labkit.portal.datasets.dataset import Published
from services.appkit.person import Person
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import make
from tests.services.cellxgene.gate import ADA, BOB, EVE, PREFIX, SECRET, Service
from tests.services.cellxgene.uploading import announcement, send

pytestmark = needs_env("cellxgene")

# Every address of a dataset, its pages, its API, its picture and its management.
OF_A_DATASET = [
    ("GET", "cells"),
    ("GET", "cells/"),
    ("GET", "cells@1/"),
    ("GET", "cells/api/v0.2/config"),
    ("GET", "cells/api/v0.2/schema"),
    ("GET", "cells/api/v0.2/layout/obs?layout-name=umap"),
    ("GET", "cells/api/v0.2/annotations/obs?annotation-name=kind"),
    ("GET", "cells/api/v0.2/data/var?var:name_0=gene1"),
    ("PUT", "cells/api/v0.2/data/var"),
    ("POST", "cells/api/v0.2/diffexp/obs"),
    ("PUT", "cells/api/v0.2/annotations/obs"),
    ("GET", "cells/static/main.js"),
    ("GET", "cells/health"),
    ("HEAD", "cells/api/v0.2/schema"),
    ("OPTIONS", "cells/api/v0.2/schema"),
    ("DELETE", "cells/api/v0.2/schema"),
    ("GET", "_/api/datasets/cells"),
    ("PATCH", "_/api/datasets/cells"),
    ("DELETE", "_/api/datasets/cells"),
    ("GET", "_/api/state/cells"),
    ("POST", "_/api/state/cells"),
    ("GET", "_/api/state/cells@1"),
    ("GET", "_/thumbnails/cells/1.png"),
]
ALL = [*OF_A_DATASET, ("GET", ""), ("GET", "_/api/datasets"), ("GET", "_/static/catalogue.js")]


def ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    body = None if method in ("GET", "HEAD", "OPTIONS", "DELETE") else {"title": "Mine"}
    return client.request(method, path, json=body)


@pytest.mark.parametrize(("method", "path"), OF_A_DATASET)
def test_another_group_sees_nothing_of_it(
    cells: Published, service: Service, method: str, path: str
) -> None:
    """It answers as for a dataset that does not exist, so that names do not show either."""
    with service.client(EVE) as eve:
        answer = ask(eve, method, path)
        absent = ask(eve, method, path.replace("cells", "absent"))
    assert answer.status_code == absent.status_code
    if path == "cells":
        assert answer.status_code == 301
    else:
        assert answer.status_code == 404
        assert answer.text.replace("cells", "absent") == absent.text


def test_another_group_finds_no_card(cells: Published, service: Service) -> None:
    with service.client(EVE) as eve:
        page = eve.get("", headers={"Accept": "text/html"}).text
        assert "No dataset is shared with you" in page and "cells/" not in page
        assert eve.get("_/api/datasets").json()["datasets"] == []


FORGED: list[tuple[str, Callable[[], list[tuple[str, str]]]]] = [
    ("no secret", lambda: [h for h in ADA.headers.items() if "Secret" not in h[0]]),
    ("empty secret", lambda: [*_without("Secret"), ("X-Labhub-App-Secret", "")]),
    ("wrong secret", lambda: [*_without("Secret"), ("X-Labhub-App-Secret", SECRET[:-1] + "x")]),
    ("two secrets", lambda: [*ADA.headers.items(), ("X-Labhub-App-Secret", SECRET)]),
    ("not ASCII", lambda: [*_without("Secret"), ("X-Labhub-App-Secret", "é")]),
    ("nobody", lambda: _without("User")),
    ("an empty name", lambda: [*_without("User"), ("X-Labhub-User", "%20")]),
    ("two people", lambda: [*ADA.headers.items(), ("X-Labhub-User", "root")]),
    ("two groups", lambda: [*ADA.headers.items(), ("X-Labhub-Groups", "plants")]),
    ("two admins", lambda: [*ADA.headers.items(), ("X-Labhub-Admin", "true")]),
]


def _without(part: str) -> list[tuple[str, str]]:
    return [header for header in ADA.headers.items() if part not in header[0]]


@pytest.mark.parametrize(("what", "headers"), FORGED, ids=[what for what, _ in FORGED])
def test_only_the_gate_says_who_asks(
    cells: Published, service: Service, what: str, headers: Callable[[], list[tuple[str, str]]]
) -> None:
    with service.client() as client:
        sent = [(k.encode(), v.encode()) for k, v in headers()]
        for method, path in ALL:
            answer = client.request(method, path, headers=sent)
            assert answer.status_code == 403, (method, path)
            assert "cells" not in answer.text


def test_admin_is_true_and_nothing_like_it(cells: Published, service: Service) -> None:
    for value, status in (("True", 404), ("1", 404), ("", 404), ("truer", 404), ("true", 200)):
        with service.client(EVE) as client:
            answer = client.get("cells/api/v0.2/schema", headers={"X-Labhub-Admin": value})
            assert answer.status_code == status, value


def test_a_group_cannot_be_smuggled_in(cells: Published, service: Service) -> None:
    with service.client(EVE) as client:
        for value in ("plants%2Cimaging", "imaging%00", "*", "imaging\tx", "Imaging"):
            answer = client.get("cells/", headers={"X-Labhub-Groups": value})
            assert answer.status_code == 404, value


# -- who is in the group, and not the owner ---------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "_/api/datasets/cells", {"hidden": True}),
        ("PATCH", "_/api/datasets/cells", {"groups": ["plants"]}),
        ("PATCH", "_/api/datasets/cells", {"current": 1}),
        ("DELETE", "_/api/datasets/cells", None),
    ],
)
def test_a_reader_changes_nothing(
    cells: Published, service: Service, method: str, path: str, body: Any
) -> None:
    before = service.catalogue.get(_ada(), "cells")
    with service.client(BOB) as bob:
        assert bob.request(method, path, json=body).status_code == 403
    assert service.catalogue.get(_ada(), "cells") == before


def _ada() -> Person:
    return Person("ada")


def test_an_owner_changes_only_what_may_change(cells: Published, service: Service) -> None:
    with service.client(ADA) as ada:
        for field, value in (("owner", "bob"), ("name", "x"), ("versions", []), ("created", "")):
            answer = ada.patch("_/api/datasets/cells", json={field: value})
            assert answer.status_code == 422 and "cannot be changed" in answer.text
    assert service.catalogue.get(_ada(), "cells").owner == "ada"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc",
        "Cells",
        "_",
        "a" * 49,
        "a%00b",
        "a%0ab",
        "-a",
        "é",
        "a b",
    ],
)
def test_names_that_are_none(service: Service, name: str) -> None:
    announced = announcement(b"x", groups=[])
    with service.client(ADA) as ada:
        answer = ada.post(f"_/api/datasets/{name}/versions", json=announced)
        assert answer.status_code in (404, 405, 422), answer.text
        assert ada.get(f"{name}/api/v0.2/schema").status_code == 404
    assert not [p for p in service.folder.rglob("*") if p.name in ("etc", name)]


@pytest.mark.parametrize(
    "path",
    [
        "cells/../../_/api/datasets",
        "cells/%2e%2e/%2e%2e/etc/passwd",
        "cells/static/..%2f..%2f..%2fapp%2fapp.py",
        "cells/static/%2e%2e%5c%2e%2e/x",
        "_/static/..%2fapp.py",
        "_/static/settings.py",
        "_/thumbnails/..%2fcells/1.png",
        "_/thumbnails/cells/..%2fversion.json",
        "cells@0/",
        "cells@-1/",
        "cells@1@1/",
    ],
)
def test_no_path_leads_elsewhere(cells: Published, service: Service, path: str) -> None:
    with service.client(ADA) as ada:
        request = ada.build_request("GET", "x")
        request.url = request.url.copy_with(raw_path=(PREFIX + path).encode())
        answer = ada.send(request)
    assert answer.status_code == 404, answer.text
    assert "root:" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://eve.localhost"},
        {"Origin": "null"},
    ],
)
def test_another_origins_page_changes_nothing(
    cells: Published, service: Service, headers: dict[str, str]
) -> None:
    """The portal's cookie comes along from pages of other people's servers: the same site."""
    with service.client(ADA, **headers) as ada:
        for method, path in OF_A_DATASET:
            if method not in ("GET", "HEAD", "OPTIONS"):
                assert ask(ada, method, path).status_code == 403, (method, path)
    with service.client(ADA) as ada:
        text = ada.patch(
            "_/api/datasets/cells", content='{"title": "x"}', headers={"Content-Type": "text/plain"}
        )
        assert text.status_code == 415


def test_an_upload_is_its_senders_alone(service: Service) -> None:
    content = b"x" * 10
    with service.client(ADA) as ada, service.client(EVE) as eve, service.client(BOB) as bob:
        place = ada.post("_/api/datasets/alone/versions", json=announcement(content, groups=[]))
        upload = f"_/api/uploads/{place.json()['id']}"
        for other in (eve, bob):
            assert other.get(upload).status_code == 404
            assert other.put(upload, content=content).status_code == 404
            assert other.delete(upload).status_code == 404
        assert ada.get(upload).json()["state"] == "waiting"
        assert ada.delete(upload).status_code == 204


# -- files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret_file(folder: Path) -> Path:
    import h5py

    path = folder / "secret.bin"
    path.write_bytes(np.arange(120, dtype="f4").tobytes())
    with h5py.File(folder / "other.h5", "w") as other:
        other["values"] = np.arange(120, dtype="f4")
    return path


def _external_link(file: Any, secret: Path) -> None:
    import h5py

    file["obs/stolen"] = h5py.ExternalLink(str(secret.with_name("other.h5")), "/values")


def _soft_link(file: Any, secret: Path) -> None:
    import h5py

    file["obs/stolen"] = h5py.SoftLink("/obs/kind")


def _external_storage(file: Any, secret: Path) -> None:
    made = file.create_dataset("obs/stolen", (120,), "f4", external=[(str(secret), 0, 480)])
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def _virtual(file: Any, secret: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((120,), "f4")
    layout[:] = h5py.VirtualSource(str(secret.with_name("other.h5")), "values", (120,))
    file.create_virtual_dataset("obs/stolen", layout)


@pytest.mark.parametrize("steal", [_external_link, _soft_link, _external_storage, _virtual])
def test_a_file_that_reaches_for_other_files_is_refused(
    service: Service, secret_file: Path, tmp_path: Path, steal: Callable[[Any, Path], None]
) -> None:
    import h5py

    path = tmp_path / "thief.h5ad"
    make().write_h5ad(path)
    with h5py.File(path, "a") as file:
        steal(file, secret_file)
        order = [*file["obs"].attrs["column-order"], "stolen"]
        file["obs"].attrs["column-order"] = order
    ended = send(service, ADA, "thief", path.read_bytes())
    assert ended["state"] == "refused"
    assert "link" in str(ended["problems"]) or "another file" in str(ended["problems"])
    assert not (service.folder / "datasets/thief").exists()


def test_a_small_file_that_unpacks_to_a_large_one(service: Service, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "bomb.h5ad"
    make().write_h5ad(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/bomb", (1 << 20, 1 << 20), "f8", chunks=(1024, 1024))
    assert path.stat().st_size < 1 << 20
    ended = send(service, ADA, "bomb", path.read_bytes())
    assert ended["state"] == "refused"
    cells, genes = make().shape
    assert f"would need 8 TB for {cells} cells × {genes} genes;" in str(ended["problems"])


def test_a_large_file_that_states_no_shape_is_refused_without_one(
    service: Service, tmp_path: Path
) -> None:
    import h5py

    path = tmp_path / "bare.h5ad"
    with h5py.File(path, "w") as file:
        file.create_group("X").attrs["shape"] = "many"
        file.create_dataset("layers/bomb", (1 << 20, 1 << 20), "f8", chunks=(1024, 1024))
    ended = send(service, ADA, "bare", path.read_bytes())
    assert "would need 8 TB; this machine gives" in str(ended["problems"])


def test_what_is_no_h5ad(service: Service) -> None:
    ended = send(service, ADA, "no-h5ad", b"<html>" * 100)
    assert ended["state"] == "refused" and "file" in str(ended["problems"])


@pytest.mark.parametrize(
    "picture",
    [
        b"<svg onload=alert(1)>",
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\1\0\0\0\0\0\1" + b"\0" * 9,
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\1\0\0\0\1" + b"\0" * 500_000,
    ],
    ids=["svg", "too wide", "too large"],
)
def test_a_picture_that_is_none(service: Service, picture: bytes) -> None:
    announced = announcement(b"x", groups=[], thumbnail=base64.b64encode(picture).decode())
    with service.client(ADA) as ada:
        answer = ada.post("_/api/datasets/pictured/versions", json=announced)
    assert answer.status_code == 422 and "PNG" in answer.text


def test_text_in_a_card_stays_text(service: Service, cells: Published) -> None:
    evil = "<script>alert(1)</script>"
    with service.client(ADA) as ada:
        assert ada.patch("_/api/datasets/cells", json={"description": evil}).status_code == 200
        page = ada.get("", headers={"Accept": "text/html"})
        assert evil not in page.text and "&lt;script&gt;" in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        ada.patch("_/api/datasets/cells", json={"description": ""})


def test_no_cookie_is_set_and_none_gets_through(service: Service, cells: Published) -> None:
    with service.client(BOB, Cookie="session=forged") as bob:
        for path in ("cells/", "cells/api/v0.2/config", "cells/api/v0.2/genesets"):
            answer = bob.get(path)
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers


def test_the_secret_is_nowhere_to_be_seen(service: Service, cells: Published) -> None:
    viewers = service.pool.running()
    assert viewers
    for viewer in viewers:
        assert viewer.process is not None
        process = psutil.Process(viewer.process.pid)
        seen = " ".join(process.cmdline()) + str(process.environ())
        assert SECRET not in seen
        assert SECRET not in viewer.tail(1000)
        assert not process.net_connections(kind="inet"), "it listens on no port"
        assert viewer.folder.stat().st_mode & 0o77 == 0
