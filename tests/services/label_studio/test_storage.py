"""Label Studio's storage in S3 and in a shared folder, and its way to a newer version."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import needs_env
from tests.services.label_studio.studio import HOST, Studio

pytestmark = [needs_env("label-studio"), pytest.mark.slow]
KEY, SECRET_KEY = "AKIATESTTESTTEST", "not-a-real-key"
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="label" toName="image">'
    '<Choice value="round"/><Choice value="long"/></Choices></View>'
)
OLDER = """
call_command("migrate", "tasks", "0059", interactive=False)
call_command("migrate", "projects", "0033", interactive=False)
"""


def png() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def studio(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "plate").mkdir()
    for number in range(2):
        (shared / "plate" / f"site{number}.png").write_bytes(png())
    (shared / "secret.png").write_bytes(png())
    credentials = shared / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    settings = {
        "local_files": str(shared),
        "s3": {"endpoint": s3, "region": "eu-central-1", "credentials_file": str(credentials)},
    }
    with Studio(settings) as running:
        running.shared = shared
        running.start()
        yield running


def project(studio: Studio, title: str) -> int:
    told = studio.ask("POST", "/api/projects/", {"title": title, "label_config": CONFIG})
    return int(told["id"])


def tasks(studio: Studio, number: int) -> list[dict[str, Any]]:
    return list(studio.ask("GET", f"/api/tasks?project={number}&fields=all")["tasks"])


def test_pictures_in_a_shared_folder(studio: Studio) -> None:
    number = project(studio, "Shared")
    spec = {"project": number, "path": str(studio.shared / "plate"), "use_blob_urls": True}
    storage = studio.ask("POST", "/api/storages/localfiles", spec)
    told = studio.ask("POST", f"/api/storages/localfiles/{storage['id']}/sync")
    assert (told["status"], told["last_sync_count"]) == ("completed", 2)
    address = str(tasks(studio, number)[0]["data"]["image"])
    assert address.startswith(f"http://{HOST}/services/label-studio/data/local-files/?d=plate/")
    path = address.partition("/services/label-studio")[2]
    assert studio.http.get(path).content == png()
    # Beside the folder that was added, above the shared one, and on the machine: nothing.
    for place in ("secret.png", "plate/../secret.png", "../../etc/passwd", "/etc/passwd"):
        answer = studio.http.get("/data/local-files/", params={"d": place})
        assert answer.status_code >= 400, place
        assert not {b"root:", png()[:8]} & {answer.content[:5], answer.content[:8]}, place
    for wrong in ("/etc", str(studio.shared), str(studio.shared / "plate/../..")):
        refused = studio.http.post("/api/storages/localfiles", json={**spec, "path": wrong})
        assert refused.status_code == 400, wrong


@pytest.mark.parametrize("presign", [True, False])
def test_pictures_in_s3_with_the_labs_own_key(studio: Studio, s3: str, presign: bool) -> None:
    """Nobody types a key: endpoint, region and key are the administrator's."""

    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="eu-central-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    bucket = f"plates-{presign}".lower()
    where = {"LocationConstraint": "eu-central-1"}
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    for key in ("p1/a.png", "p1/b.png", "other/c.png"):
        client.put_object(Bucket=bucket, Key=key, Body=png(), ContentType="image/png")
    number = project(studio, f"In S3 {presign}")
    spec = {
        "project": number,
        "bucket": bucket,
        "prefix": "p1",
        "use_blob_urls": True,
        "presign": presign,
    }
    storage = studio.ask("POST", "/api/storages/s3", spec)
    told = studio.ask("POST", f"/api/storages/s3/{storage['id']}/sync")
    assert (told["status"], told["last_sync_count"]) == ("completed", 2)
    for task in tasks(studio, number):
        address = str(studio.ask("GET", f"/api/tasks/{task['id']}/")["data"]["image"])
        path = address.replace(f"http://{HOST}", "").replace("/services/label-studio", "")
        answer = studio.http.get(path)
        if presign:  # the browser is sent to the store
            assert answer.status_code in (302, 303)
            assert answer.headers["Location"].startswith(f"{s3}/{bucket}/p1/")
            assert SECRET_KEY not in answer.headers["Location"]
        else:
            assert answer.content == png()
    assert SECRET_KEY not in studio.ask("GET", f"/api/storages/s3?project={number}").__repr__()
    assert SECRET_KEY not in studio.log


def test_its_pages_ask_nobody_at_the_root(studio: Studio) -> None:
    """Fonts come from below the prefix, and no hints are fetched from its makers."""
    style = studio.http.get("/react-app/main.css")
    assert "url(/services/label-studio/static/fonts/Figtree-Regular.ttf)" in style.text
    assert "url(/static/" not in style.text
    assert studio.http.get("/static/fonts/Figtree-Regular.ttf").status_code == 200
    script = studio.http.get("/react-app/main.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert 'fetch("/heidi-tips"' not in script.text
    assert "Failed to load live Heidi tips collection" in script.text
    again = {"If-Modified-Since": script.headers["Last-Modified"]}
    assert studio.http.get("/react-app/main.js", headers=again).status_code == 304
    assert studio.http.get("/heidi-tips/").status_code == 404


def columns(file: Path, table: str) -> set[str]:
    with closing(sqlite3.connect(file)) as db:
        return {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}


def test_an_older_database_is_kept_and_brought_up_to_date(studio: Studio) -> None:
    """The newest migrations are undone: it is what an earlier version has left."""
    number = project(studio, "From before")
    task = studio.ask("POST", "/api/tasks/", {"project": number, "data": {"image": "/x.png"}})
    value = {"choices": ["long"]}
    said = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
    studio.ask("POST", f"/api/tasks/{task['id']}/annotations/", {"result": [said]})
    studio.stop()
    database = studio.data / "label_studio.sqlite3"
    studio.run(OLDER)
    assert "allow_skip" not in columns(database, "task")
    assert not list(studio.data.glob("*.bak"))
    studio.start()
    assert "allow_skip" in columns(database, "task")
    (copy,) = studio.data.glob("label_studio-*.bak")
    assert "allow_skip" not in columns(copy, "task")
    assert "annotator_evaluation_enabled" not in columns(copy, "project")
    for file in (database, copy):
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT count(*) FROM task_completion").fetchone() == (1,)
    (kept,) = studio.ask("GET", f"/api/tasks/{task['id']}/annotations/")
    assert kept["result"][0]["value"] == value
    assert "the database is brought up to date" in studio.log
    assert "Applying tasks.0060_add_allow_skip_to_task... OK" in studio.log
