"""The places of the datasets, a folder and a bucket, in one contract; crashes and damage."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.testing.moto import MotoServer
from services.appkit.person import Person
from services.appkit.published.store import FolderStore, Store
from services.appkit.published.store_s3 import S3Store, StoreError
from services.cellxgene.records import LAYOUT, THUMBNAIL, Dataset, Facts, Source, Version
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import CELLS, make
from tests.services.cellxgene.conftest import Notebook
from tests.services.cellxgene.gate import BOB, running

BUCKET = "published"
Datasets = Store[Dataset, Version]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of a real S3 server (moto's), by HTTP; everybody here finds the same one."""
    import boto3

    with MotoServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3", **server.client_options)
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: Any) -> Datasets:
    if request.param == "folder":
        return FolderStore(tmp_path / "datasets", LAYOUT)
    address = f"s3://{BUCKET}/{tmp_path.name}"
    return S3Store(address, LAYOUT, tmp_path / "cache", 1 << 30)


def version(number: int, content: bytes, **fields: Any) -> Version:
    return Version(
        number=number,
        created=f"2026-11-2{number}T10:00:00Z",
        author="ada",
        title=f"Title {number}",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        source=Source(kind="memory", digest="blake2b:" + "0" * 32),
        facts=Facts(cells=3, genes=2, need=1000),
        **fields,
    )


def dataset(*versions: Version, **fields: Any) -> Dataset:
    known = {"name": "data", "owner": "ada", "title": "Data", "created": "2026-11-21T10:00:00Z"}
    current = versions[-1].number if versions else 0
    return Dataset(**{**known, "current": current, "versions": versions, **fields})


def add(store: Datasets, tmp_path: Path, one: Version, content: bytes, **beside: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    store.add("data", one, path, beside)
    assert not path.exists(), "it was taken over"


def test_what_is_kept_comes_back(store: Datasets, tmp_path: Path) -> None:
    one, two = version(1, b"first", thumbnail=True), version(2, b"second")
    store.save(dataset())
    add(store, tmp_path, one, b"first", **{THUMBNAIL: b"a picture"})
    store.save(dataset(one))
    add(store, tmp_path, two, b"second")
    whole = dataset(one, two, groups=("imaging",), hidden=True)
    store.save(whole)
    assert store.load() == [whole]
    assert store.data("data", one, print).read_bytes() == b"first"
    assert store.data("data", two, print).read_bytes() == b"second"
    assert store.read("data", 1, THUMBNAIL) == b"a picture"
    assert store.read("data", 2, THUMBNAIL) is None
    assert store.next_number("data") == 3
    store.delete("data")
    assert store.load() == [] and store.next_number("data") == 1


def test_a_crash_between_version_and_record_loses_nothing(store: Datasets, tmp_path: Path) -> None:
    store.save(dataset())
    add(store, tmp_path, version(1, b"first"), b"first")
    assert [one.current for one in store.load()] == [1], "its first version is shown"
    store.save(dataset(version(1, b"first")))
    add(store, tmp_path, version(2, b"second"), b"second")
    [found] = store.load()
    assert (found.current, len(found.versions)) == (1, 2), "it points where it did"
    assert store.next_number("data") == 3


def test_what_never_had_a_version_is_not_shown(
    store: Datasets, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(dataset())
    with caplog.at_level(logging.ERROR):
        assert store.load() == []
    assert "never complete" in caplog.text


@pytest.mark.parametrize("name", ["..", "../x", "", "A", "a/b", "/etc"])
def test_names_that_lead_elsewhere(store: Datasets, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        store.read(name, 1, THUMBNAIL)


def test_one_damaged_dataset_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FolderStore(tmp_path / "datasets", LAYOUT)
    for name in ("good", "bad"):
        store.save(dataset(name=name))
        path = tmp_path / "upload"
        path.write_bytes(b"x")
        store.add(name, version(1, b"x"), path, {})
    (tmp_path / "datasets/bad/dataset.json").write_text('{"name": "bad", "owner"')
    with caplog.at_level(logging.ERROR):
        assert [one.name for one in store.load()] == ["good"]
    assert "bad is damaged" in caplog.text


def test_half_an_addition_is_cleared_away(tmp_path: Path) -> None:
    half = tmp_path / "datasets/.data-1"
    half.mkdir(parents=True)
    (half / LAYOUT.data).write_bytes(b"half")
    FolderStore(tmp_path / "datasets", LAYOUT).tidy()
    assert not half.exists()


def test_an_addition_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "datasets", LAYOUT)
    with pytest.raises(FileNotFoundError):
        store.add("data", version(1, b"x"), tmp_path / "absent", {THUMBNAIL: b"x"})
    assert list((tmp_path / "datasets").iterdir()) == []


def test_copies_from_s3_are_checked_and_few(s3: Any, tmp_path: Path) -> None:
    store = S3Store(f"s3://{BUCKET}/copies", LAYOUT, tmp_path / "cache", 10)
    one, two = version(1, b"12345678"), version(2, b"abcdefgh")
    for each, content in ((one, b"12345678"), (two, b"abcdefgh")):
        add(store, tmp_path, each, content)
    assert len(list((tmp_path / "cache").iterdir())) == 1, "more than 10 bytes"
    said: list[str] = []
    assert store.data("data", one, said.append).read_bytes() == b"12345678"
    assert said
    key = "copies/data/versions/2/data.h5ad"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"ABCDEFGH")
    with pytest.raises(StoreError, match="digest differs"):
        store.data("data", two, print)
    assert [path.stem for path in (tmp_path / "cache").iterdir()] == [one.sha256]


@pytest.mark.parametrize("address", ["s3://", "s3://A_B/x", "s3://bucket/../x", "file:///x"])
def test_addresses_that_are_none(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no address"):
        S3Store(address, LAYOUT, tmp_path, 1)


@needs_env("cellxgene")
def test_published_from_and_to_s3(s3: Any, folder: Path) -> None:
    """The whole way: data in a bucket becomes a dataset that is kept in a bucket."""
    make(seed=1).write_h5ad(folder / "cells.h5ad")
    s3.upload_file(str(folder / "cells.h5ad"), BUCKET, "mine/cells.h5ad")
    store = S3Store(f"s3://{BUCKET}/whole", LAYOUT, folder / "cache-s3", 1 << 30)
    with running(folder / "s3", store=store) as service:
        notebook = Notebook(service, folder / "cache")
        published = notebook.publish(f"s3://{BUCKET}/mine/cells.h5ad", "cells", groups=["imaging"])
        source = published.versions().loc[1]
        assert (source["source"], published.shape[0]) == ("cells.h5ad", CELLS)
    for copy in (folder / "cache-s3").iterdir():
        copy.unlink()
    store = S3Store(f"s3://{BUCKET}/whole", LAYOUT, folder / "cache-s3", 1 << 30)
    with running(folder / "s3b", store=store) as service, service.client(BOB) as bob:
        assert service.catalogue.get(Person("ada"), "cells").current == 1
        found = bob.get("cells/api/v0.2/schema").json()
        assert found["schema"]["dataframe"]["nObs"] == CELLS
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix="whole/")["Contents"]]
    assert sorted(key.rsplit("/", 1)[1] for key in keys) == [
        "data.h5ad",
        "dataset.json",
        "opening.zip",
        "thumbnail.png",
        "version.json",
    ]
