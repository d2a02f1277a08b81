"""Uploads that are cut off, wrong, too many or too large: they leave nothing, and say why."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labkit.portal.datasets.client import PublishError
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import make
from tests.services.cellxgene.conftest import Notebook
from tests.services.cellxgene.gate import ADA, PREFIX, ROOT, Service, running
from tests.services.cellxgene.uploading import announcement, send, wait

pytestmark = needs_env("cellxgene")
# Too little for CellxGene itself and more than looking into a file takes.
SMALL = 300 << 20


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """A machine that is too small for any dataset."""
    with running(folder / "app", viewers={"memory": SMALL}, uploads={"wait": 60.0}) as app:
        yield app


def nothing_is_left(service: Service) -> bool:
    left = [*(service.folder / "incoming").iterdir(), *(service.folder / "datasets").iterdir()]
    return left == []


def announce(service: Service, content: bytes, name: str = "data") -> str:
    with service.client(ADA) as ada:
        answer = ada.post(f"_/api/datasets/{name}/versions", json=announcement(content, groups=[]))
        assert answer.status_code == 201, answer.text
        return f"_/api/uploads/{answer.json()['id']}"


def test_a_connection_that_ends_leaves_nothing(service: Service) -> None:
    content = b"x" * 5_000_000
    upload = announce(service, content)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        head = [f"PUT {PREFIX}{upload} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}"]
        head += [f"{name}: {value}" for name, value in ADA.headers.items()]
        raw.sendall("\r\n".join([*head, "", ""]).encode() + content[:4_500_000])
        with service.client(ADA) as ada:
            while ada.get(upload).json()["state"] == "waiting":
                time.sleep(0.01)
    with service.client(ADA) as ada:
        ended = wait(ada, upload)
    assert ended["state"] == "refused"
    assert "before the file was complete" in ended["problems"][0]
    assert nothing_is_left(service)


@pytest.mark.parametrize("sent", [b"y" * 1000, b"x" * 999], ids=["other bytes", "too short"])
def test_a_file_that_is_not_what_was_announced(service: Service, sent: bytes) -> None:
    upload = announce(service, b"x" * 1000)
    with service.client(ADA) as ada:
        answer = ada.put(upload, content=iter([sent]))  # in pieces: no length is said
        assert answer.status_code == 422 and "as it was sent" in answer.text
        assert ada.get(upload).json()["state"] == "refused"
        assert ada.put(upload, content=b"x" * 1000).status_code == 422, "an end is an end"
    assert nothing_is_left(service)


def test_more_than_was_announced_is_not_taken_in(service: Service) -> None:
    upload = announce(service, b"x" * 1000)
    refused = []

    def too_much() -> Iterator[bytes]:
        with service.client(ADA) as ada:
            for _ in range(60):
                yield b"x" * (1 << 20)
                refused.append(ada.get(upload).json()["state"] == "refused")

    with service.client(ADA) as ada:
        with contextlib.suppress(httpx.TransportError):  # it may close the connection early
            assert ada.put(upload, content=too_much()).status_code == 422
        assert refused[-1], "it was refused while more was sent"
        wrong = announce(service, b"x" * 1000)
        assert ada.put(wrong, content=b"x" * 2000).status_code == 400
        assert ada.delete(wrong).status_code == 204
    assert nothing_is_left(service)


def test_too_big_for_the_machine_is_refused_with_the_numbers(
    service: Service, folder: Path
) -> None:
    """Before it is sent, by what the notebook says; and by what is in the file, if that lied."""
    notebook = Notebook(service, folder / "cache")
    with pytest.raises(PublishError, match=r"would need 34\d MB .* gives 300 MB") as refused:
        notebook.publish(make(), "big", groups=[])
    assert refused.value.problems[0].where == "memory"
    assert not any(said.startswith("Sending") for said in notebook.said)
    path = folder / "lies.h5ad"
    make().write_h5ad(path)
    ended = send(service, ADA, "big", path.read_bytes(), need=1)
    assert ended["state"] == "refused"
    assert "would need" in ended["problems"][0] and "gives 300 MB" in ended["problems"][0]
    cells, genes = make().shape
    assert f"for {cells} cells × {genes} genes;" in ended["problems"][0]
    assert nothing_is_left(service)


def test_a_disk_without_room(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = {**announcement(b"x", groups=[]), "size": 1 << 43}
    with service.client(ADA) as ada:
        answer = ada.post("_/api/datasets/huge/versions", json=huge)
    assert answer.status_code == 409
    problem = next(one for one in answer.json()["problems"] if one["where"] == "disk")
    assert "are needed" in problem["text"] and problem["hint"]


def test_a_disk_that_fills_up_meanwhile(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = announce(service, b"x" * 1000)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("services.cellxgene.uploads.asyncio.to_thread", full)
    with service.client(ADA) as ada:
        answer = ada.put(upload, content=b"x" * 1000)
    assert answer.status_code == 422 and "No space left" in answer.text
    assert nothing_is_left(service)


def test_one_name_is_published_by_one_at_a_time(service: Service) -> None:
    content = b"x" * 3_000_000
    upload = announce(service, content, "shared")
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield content[:1_000_000]
        begun.set()
        assert go_on.wait(20)
        yield content[1_000_000:]

    def put() -> None:
        with service.client(ADA) as ada:
            ada.put(upload, content=slowly())

    sender = threading.Thread(target=put)
    sender.start()
    assert begun.wait(20)
    with service.client(ADA) as ada, service.client(ROOT) as root:
        while ada.get(upload).json()["state"] == "waiting":
            time.sleep(0.01)
        for client in (ada, root):
            answer = client.post(
                "_/api/datasets/shared/versions", json=announcement(b"y", groups=[])
            )
            assert answer.status_code == 409
            assert "ada is publishing 'shared' now" in answer.text
        go_on.set()
        sender.join(20)
        assert wait(ada, upload)["state"] == "refused"


def test_each_person_has_a_few_at_a_time(service: Service) -> None:
    ids = [announce(service, b"x", f"few-{i}") for i in range(2)]
    with service.client(ADA) as ada:
        answer = ada.post("_/api/datasets/few-3/versions", json=announcement(b"x", groups=[]))
        assert answer.status_code == 409 and "under way" in answer.text
        for one in ids:
            ada.delete(one)


def test_what_nothing_comes_for_is_given_up(service: Service) -> None:
    upload = announce(service, b"x", "late")
    service.uploading._uploads[upload.rsplit("/", 1)[1]].touched -= 100
    again = announce(service, b"x", "late")
    with service.client(ADA) as ada:
        assert ada.put(upload, content=b"x").status_code == 422
        assert ada.delete(again).status_code == 204


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"size": 0}, "size"),
        ({"size": "many"}, "size"),
        ({"sha256": "x"}, "sha256"),
        ({"title": ""}, "title"),
        ({"title": "a\u202eb"}, "title"),
        ({"groups": "imaging"}, "groups"),
        ({"owner": "root"}, "owner"),
        ({"source": {"kind": "file", "digest": "md5:1"}}, "source.digest"),
        ({"changes": [["a"]]}, "changes.0.1"),
    ],
)
def test_an_announcement_is_checked_field_by_field(
    service: Service, fields: dict[str, object], where: str
) -> None:
    with service.client(ADA) as ada:
        announced = {**announcement(b"x", groups=[]), **fields}
        answer = ada.post("_/api/datasets/checked/versions", json=announced)
        assert answer.status_code == 422
        assert where in {one["where"] for one in answer.json()["problems"]}
        for body in (b"[]", b"{", b"\xff"):
            headers = {"Content-Type": "application/json"}
            again = ada.post("_/api/datasets/checked/versions", content=body, headers=headers)
            assert again.status_code == 400


def test_an_interrupted_run_leaves_nothing_either(folder: Path) -> None:
    left = folder / "other/incoming/half.h5ad"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with running(folder / "other"):
        assert not left.exists()
