"""What an earlier version left is carried over: its backup by restore and up, its datasets."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.appkit.published.store import FolderStore
from services.cellxgene.records import LAYOUT, THUMBNAIL
from tests.conftest import needs_env, needs_root
from tests.support.cli_portal import LabhubPortal
from tests.support.portal import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded" / "portal-2026-11"
STARTED = "2026-11-30 15:48:18"  # of the server whose process is gone


def database(person: str, folder: Path) -> bytes:
    """Return the earlier hub's database, about one person of this machine."""
    file = folder / "recorded.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.executescript((RECORDED / "jupyterhub.sql").read_text().replace("PERSON", person))
        db.execute("INSERT INTO servers VALUES (9, 'http', '10.98.4.189', 8888, ?, '')", (person,))
        db.execute("UPDATE spawners SET server_id = 9, started = ?", (STARTED,))
        db.commit()
    return file.read_bytes()


def new_secret() -> bytes:
    return f"{secrets.token_hex(32)}\n".encode()


def archive(file: Path, content: dict[str, bytes]) -> None:
    """Write a backup with the members, modes and names that the earlier version gave it."""
    with tarfile.open(file, "w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def portal(ada: str) -> Iterator[LabhubPortal]:
    """A portal that was restored from the earlier version's backup and started."""
    made = LabhubPortal({"groups": {"cells": [ada]}})
    try:
        state = made.state
        names = ("control_token", "culler_token", "gate_key", "proxy_token", "crypt_key")
        backup = made.folder / "labhub-20261130-154900.tar.gz"
        archive(
            backup,
            {
                "labhub-backup.json": b'{"format": 1, "made": "2026-11-30T15:49:00+0000"}',
                "lab.yaml": (state / "lab.yaml").read_bytes(),
                "jupyterhub.sqlite": database(ada, made.folder),
                **{f"secrets/{name}": new_secret() for name in names},
                "secrets/cookie_secret": new_secret(),
                "config.d/50-test.py": (state / "config.d" / "50-test.py").read_bytes(),
            },
        )
        made.labhub("restore", "--yes", str(backup))
        made.labhub("up")
        yield made
    finally:
        made.close()


@needs_root
@needs_env("proxy")
@needs_env("notebook")
@needs_env("cellxgene")
def test_people_and_groups_are_there_and_a_dead_server_starts_again(
    portal: LabhubPortal, ada: str
) -> None:
    person = portal.api("GET", f"/users/{ada}").json()
    assert person["created"].startswith("2026-11-30T15:48:18")
    assert person["groups"] == ["cells"]
    assert person["servers"] == {}  # its process is gone, and nothing else is taken for it
    assert portal.spawn(ada)["ready"]
    assert portal.run(ada, "print('here')") == "here\n"


@needs_root
@needs_env("proxy")
def test_a_backup_of_the_carried_portal_has_the_earlier_people(
    portal: LabhubPortal, ada: str, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar.gz"
    portal.labhub("backup", str(file))
    with tarfile.open(file) as tar:
        content = tar.extractfile("jupyterhub.sqlite")
        assert content
        (tmp_path / "saved.sqlite").write_bytes(content.read())
    with closing(sqlite3.connect(tmp_path / "saved.sqlite")) as db:
        assert db.execute("SELECT name FROM users").fetchall() == [(ada,)]


def test_an_earlier_dataset_is_read_and_written_back_unchanged(tmp_path: Path) -> None:
    place = tmp_path / "datasets" / "carried"
    version = place / "versions" / "1"
    version.mkdir(parents=True)
    shutil.copy(RECORDED / "dataset" / "dataset.json", place)
    for name in ("version.json", "data.h5ad", "thumbnail.png"):
        shutil.copy(RECORDED / "dataset" / name, version)
    store = FolderStore(tmp_path / "datasets", LAYOUT)
    [dataset] = store.load()
    assert (dataset.name, dataset.owner, dataset.groups) == ("carried", "PERSON", ("cells",))
    [first] = dataset.versions
    assert (first.facts.cells, first.facts.genes) == (200, 30)
    data = store.data("carried", first, print).read_bytes()
    assert hashlib.sha256(data).hexdigest() == first.sha256
    assert store.read("carried", 1, THUMBNAIL)
    before = json.loads((place / "dataset.json").read_text())
    store.save(dataset)
    assert json.loads((place / "dataset.json").read_text()) == before
