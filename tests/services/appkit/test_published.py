"""The one model of published things: who may do what, versions, and what earlier releases kept."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from hub.apps import member_records as members
from hub.state.paths import Paths
from labkit.portal.datasets import rules as datasets
from services.appkit.person import Person
from services.appkit.published.publisher import Publisher
from services.appkit.published.records import Version
from services.appkit.published.statements import RefusedPublishError, parse
from services.appkit.published.store import FolderStore
from services.cellxgene import records as cells
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.request import Announcement, Change

ADA = Person("ada", frozenset({"imaging"}))
BOB = Person("bob", frozenset({"imaging"}))
EVE = Person("eve", frozenset({"plants"}))
ROOT = Person("root", admin=True)
MACHINE = Person("", admin=True)
DIGEST = "a" * 64
Datasets = Publisher[cells.Dataset, cells.Version]

# As earlier releases wrote them.
OLD_APP = {
    "name": "plates",
    "owner": "ada",
    "groups": ["imaging"],
    "title": "Plates",
    "description": "Looks at plates",
    "created": "2026-05-01T10:00:00Z",
    "current": 1,
    "hidden": False,
    "versions": [
        {
            "number": number,
            "created": f"2026-05-0{number}T10:00:00Z",
            "author": "ada",
            "kind": "dash",
            "files": 2,
            "size": 60,
            "sha256": DIGEST,
            "source": "folder plates",
        }
        for number in (1, 2)
    ],
}
OLD_DATASET = {
    "name": "blood_1",
    "owner": "ada",
    "groups": ["imaging"],
    "title": "Blood",
    "description": "Two\nlines",
    "organism": "Homo sapiens",
    "tissue": "blood",
    "created": "2026-05-01T10:00:00Z",
    "current": 1,
    "hidden": False,
}
OLD_VERSION = {
    "number": 1,
    "created": "2026-05-01T10:00:00Z",
    "author": "ada",
    "title": "Blood",
    "size": 4,
    "sha256": DIGEST,
    "source": {"kind": "file", "name": "b.h5ad", "digest": f"sha256:{DIGEST}"},
    "software": {"labkit": "0.1.0"},
    "changes": [["X", "made sparse"]],
    "facts": {"cells": 3, "genes": 2, "need": 9, "embeddings": ["umap"], "columns": ["kind"]},
    "thumbnail": False,
}


def test_members_apps_of_earlier_releases_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "webapps" / "plates"
    (folder / "versions" / "1").mkdir(parents=True)
    (folder / "versions" / "2").mkdir()
    (folder / "record.json").write_text(json.dumps(OLD_APP, indent=1))
    paths = Paths(tmp_path, tmp_path / "envs")
    app = members.read(paths)["plates"]
    assert (app.owner, app.shown.number, app.shown.kind, len(app.versions)) == ("ada", 1, "dash", 2)
    store = members.store(paths)
    assert store.version_folder("plates", 2) == folder / "versions" / "2"
    assert store.next_number("plates") == 3
    store.save(app.with_(current=2))
    written = json.loads((folder / "record.json").read_text())
    assert written == {**OLD_APP, "current": 2}, "an earlier release reads it, too"


def test_datasets_of_earlier_releases_are_read(tmp_path: Path) -> None:
    version = tmp_path / "blood_1" / "versions" / "1"
    version.mkdir(parents=True)
    (tmp_path / "blood_1" / "dataset.json").write_text(json.dumps(OLD_DATASET))
    (version / "version.json").write_text(json.dumps(OLD_VERSION))
    (version / "data.h5ad").write_bytes(b"data")
    store = FolderStore(tmp_path, cells.LAYOUT)
    [dataset] = store.load()
    assert (dataset.organism, dataset.shown and dataset.shown.facts.cells) == ("Homo sapiens", 3)
    store.save(dataset.with_(title="New"))
    written = json.loads((tmp_path / "blood_1" / "dataset.json").read_text())
    assert written == {**OLD_DATASET, "title": "New"}, "an earlier release reads it, too"


# -- who may do what ---------------------------------------------------------------------


@pytest.fixture
def publisher(tmp_path: Path) -> Datasets:
    return Publisher(FolderStore(tmp_path / "kept", cells.LAYOUT), cells.Dataset)


def version(number: int) -> cells.Version:
    return cells.Version.model_validate({**OLD_VERSION, "number": number})


def said(**fields: Any) -> Announcement:
    digest = {"kind": "memory", "digest": "blake2b:" + "0" * 32}
    return Announcement.model_validate({"size": 4, "sha256": DIGEST, "source": digest, **fields})


def add(
    publisher: Publisher[cells.Dataset, cells.Version],
    number: int,
    who: Person = ADA,
    **fields: Any,
) -> cells.Dataset:
    data = publisher.store.folder.parent / "data"  # type: ignore[attr-defined]
    data.write_bytes(b"data")
    return publisher.add(who, "blood", said(**fields), version(number), data)


def test_publish_roll_back_unpublish(publisher: Publisher[Any, Any]) -> None:
    add(publisher, 1, groups=("imaging",), title=" Blood ")
    second = add(publisher, 2)
    assert (second.current, second.title, second.groups) == (2, "Blood", ("imaging",))
    back = publisher.change(ADA, "blood", Change(current=1))
    assert (back.current, len(back.versions)) == (1, 2)
    with pytest.raises(RefusedPublishError, match=r"no version 7.*There are: 1, 2"):
        publisher.change(ADA, "blood", Change(current=7))
    publisher.change(ADA, "blood", Change(hidden=True))
    assert publisher.get(BOB, "blood") is None and publisher.get(ADA, "blood") is not None
    assert add(publisher, 3).hidden is False, "a new version shows it again"
    publisher.remove(ADA, "blood")
    assert publisher.visible(ROOT) == []


def test_who_may_see_and_change(publisher: Publisher[Any, Any]) -> None:
    add(publisher, 1, groups=("imaging",))
    for who, sees in ((ADA, True), (BOB, True), (ROOT, True), (EVE, False)):
        assert bool(publisher.get(who, "blood")) is sees
        assert bool(publisher.visible(who)) is sees
    for who in (BOB, EVE, Person(""), Person("Ada")):
        with pytest.raises(KeyError):
            publisher.change(who, "blood", Change(title="mine"))
        with pytest.raises(KeyError):
            publisher.remove(who, "blood")
        with pytest.raises(RefusedPublishError, match="somebody else's"):
            add(publisher, 2, who=who)
    assert publisher.change(ROOT, "blood", Change(title="ours")).owner == "ada"


def test_what_is_the_labs_is_not_nobodys(publisher: Publisher[Any, Any]) -> None:
    """A person without a name owns nothing."""
    add(publisher, 1, who=MACHINE, groups=("imaging",))
    with pytest.raises(KeyError):
        publisher.change(Person("", frozenset({"imaging"})), "blood", Change(hidden=True))
    assert "the lab's" in publisher.records()["blood"].not_yours()


def test_a_damaged_record_is_nobody_elses_to_take(publisher: Publisher[Any, Any]) -> None:
    add(publisher, 1, groups=("imaging",))
    record = publisher.store.folder / "blood" / "dataset.json"  # type: ignore[attr-defined]
    record.write_text("{")
    with pytest.raises(RefusedPublishError, match="damaged"):
        add(publisher, 2, who=BOB, groups=("imaging",))
    assert record.read_text() == "{" and publisher.store.next_number("blood") == 2


def test_a_failed_first_version_leaves_no_record(publisher: Publisher[Any, Any]) -> None:
    statement = said(groups=("imaging",))
    with pytest.raises(FileNotFoundError):
        publisher.add(ADA, "blood", statement, version(1), Path("/nonexistent/data"))
    assert list(publisher.store.folder.iterdir()) == []  # type: ignore[attr-defined]


def test_a_version_of_its_own_never_changes(publisher: Publisher[Any, Any]) -> None:
    dataset = add(publisher, 1, groups=())
    with pytest.raises(ValueError, match="frozen"):
        dataset.versions[0].author = "eve"  # type: ignore[misc]
    with pytest.raises(OSError, match="not empty"):
        add(publisher, 1)


class SlowStore(FolderStore[cells.Dataset, cells.Version]):
    """Waits in the middle of an addition."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, cells.LAYOUT)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def add(self, *args: Any) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super().add(*args)


async def test_what_is_being_stored_is_stored_to_its_end(tmp_path: Path) -> None:
    """A person who cancels too late is told that it is published."""
    store = SlowStore(tmp_path / "kept")
    catalogue = Catalogue(store)
    (tmp_path / "data").write_bytes(b"data")
    announced = said(groups=("imaging",))
    storing = asyncio.ensure_future(
        catalogue.publish(ADA, "blood", announced, version(1), tmp_path / "data", {})
    )
    assert await asyncio.to_thread(store.begun.wait, 30)
    storing.cancel()
    await asyncio.sleep(0)
    store.go_on.set()
    assert (await storing).current == 1
    assert catalogue.get(ADA, "blood") is not None and len(store.load()) == 1


# -- what is said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"owner": "eve"}, "owner"),
        ({"versions": []}, "versions"),
        ({"current": True}, "current"),
        ({"current": 0}, "current"),
        ({"hidden": "yes"}, "hidden"),
        ({"groups": "imaging"}, "groups"),
        ({"title": 3}, "title"),
    ],
)
def test_what_cannot_be_said(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(RefusedPublishError) as refused:
        parse(Change, fields, datasets.RULES)
    assert [one.where for one in refused.value.problems] == [where]


def test_a_version_needs_its_digest() -> None:
    with pytest.raises(ValueError, match="sha256"):
        Version(number=1, created="", author="ada", size=1, sha256="../x")
