"""The run folder's few operations, in one contract over a disk and S3."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from labkit.storage.errors import AddressError, DeniedError, NotFoundError
from labkit.storage.store import Store, open_store
from labkit.testing.moto import MotoServer
from tests.support.aws_faults import Fault, FaultyEndpoint

Open = Callable[[], Store]


@pytest.fixture(params=["disk", "s3"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one store, as each of several processes would."""
    if request.param == "disk":
        return lambda: open_store(tmp_path / "runs/one")
    bucket = request.getfixturevalue("bucket")
    return lambda: open_store(f"s3://{bucket}/runs/one")


@pytest.fixture
def store(reopen: Open) -> Store:
    return reopen()


def test_what_was_put_is_read_and_replaced(store: Store) -> None:
    assert store.read("tasks/align/0.1.json") is None
    store.put("tasks/align/0.1.json", b"one")
    assert store.read("tasks/align/0.1.json") == b"one"
    store.put("tasks/align/0.1.json", b"")
    assert store.read("tasks/align/0.1.json") == b""
    assert store.read("tasks/align") is None
    assert store.read("tasks/align/0.1.json/x") is None


def test_put_new_leaves_what_is_there(store: Store, reopen: Open) -> None:
    assert store.put_new("claim", b"first")
    assert not reopen().put_new("claim", b"second")
    assert not store.put_new("claim", b"first")
    assert store.read("claim") == b"first"
    store.delete("claim")
    assert store.put_new("claim", b"third")


def test_of_many_at_once_one_has_it(reopen: Open) -> None:
    stores = [reopen() for _ in range(8)]
    start = threading.Barrier(8)

    def claim(number: int) -> list[bool]:
        start.wait(60)
        return [stores[number].put_new(f"claims/{i}", b"%d" % number) for i in range(10)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, range(8)))
    for i in range(10):
        winners = [number for number in range(8) if answers[number][i]]
        assert len(winners) == 1
        assert reopen().read(f"claims/{i}") == b"%d" % winners[0]


def test_names_come_in_byte_order_from_a_point_on(store: Store) -> None:
    names = ["a/10.1.json", "a/9.1.json", "a-b", "a/é", "A", "b/c/d", "b.json"]
    kept = [name for name in names if name.isascii()]
    for name in kept:
        store.put(name, name.encode())
    with pytest.raises(AddressError):
        store.put("a/é", b"")
    order = sorted(kept)
    assert (
        list(store.list()) == order == ["A", "a-b", "a/10.1.json", "a/9.1.json", "b.json", "b/c/d"]
    )
    assert list(store.list("a/")) == ["a/10.1.json", "a/9.1.json"]
    assert list(store.list("a")) == ["a-b", "a/10.1.json", "a/9.1.json"]
    assert list(store.list("b/c/d")) == ["b/c/d"]
    assert list(store.list("none/")) == []
    for name in order:
        assert list(store.list(after=name)) == order[order.index(name) + 1 :]
    assert list(store.list("a/", after="a/10.1.json")) == ["a/9.1.json"]
    assert list(store.list("a/", after="b")) == []


def test_only_what_begins_so_is_deleted(store: Store) -> None:
    for name in ("a/1", "a/b/2", "ab", "b/1"):
        store.put(name, b"x")
    store.delete("a/")
    assert list(store.list()) == ["ab", "b/1"]
    store.delete("a/")
    store.delete("b/1")
    assert list(store.list()) == ["ab"]
    for prefix in ("", "/", "..", "../", "a//"):
        with pytest.raises(AddressError):
            store.delete(prefix)
    assert list(store.list()) == ["ab"]


def test_files_are_stored_and_fetched(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    source.write_bytes(os.urandom(100_000))
    store.store(source, "results/align/s1/a.tif")
    target = tmp_path / "new/folder/a.tif"
    store.fetch("results/align/s1/a.tif", target)
    assert target.read_bytes() == source.read_bytes() == store.read("results/align/s1/a.tif")
    with pytest.raises(NotFoundError):
        store.fetch("results/none", tmp_path / "b")
    with pytest.raises(NotFoundError):
        store.store(tmp_path / "none", "results/none")
    assert list(store.list()) == ["results/align/s1/a.tif"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../x", "/a", "a/", "a//b", ".a", "a/.b", "a\nb", "a b", "a\\b"],
)
def test_names_that_could_mean_another_place_are_refused(name: str, store: Store) -> None:
    for use in (
        lambda: store.read(name),
        lambda: store.put(name, b""),
        lambda: store.put_new(name, b""),
        lambda: store.fetch(name, Path("/nowhere")),
        lambda: store.store(Path(__file__), name),
    ):
        with pytest.raises(AddressError):
            use()


def test_what_others_left_there_is_no_name(
    store: Store, tmp_path: Path, bucket: str, s3: Any
) -> None:
    store.put("a", b"1")
    if store.address.startswith("s3://"):
        s3.put_object(Bucket=bucket, Key="runs/one/.hidden", Body=b"")
        s3.put_object(Bucket=bucket, Key="runs/one/x/", Body=b"")
    else:
        Path(store.address, ".hidden").touch()
        Path(store.address, "x").mkdir()
    assert list(store.list()) == ["a"]


def test_a_bucket_that_is_not_there_is_no_empty_store(aws: MotoServer) -> None:
    store = open_store("s3://no-such-bucket-here/runs")
    for use in (
        lambda: store.read("a"),
        lambda: list(store.list()),
        lambda: store.put("a", b""),
        lambda: store.put_new("a", b""),
        lambda: store.delete("a"),
    ):
        with pytest.raises(NotFoundError, match="bucket"):
            use()


def test_a_record_that_cannot_be_read_is_an_error_and_not_missing(
    bucket: str, faulty: FaultyEndpoint
) -> None:
    store = open_store(f"s3://{bucket}/one")
    store.put("tasks/0.1.json", b"1")
    faulty.faults = [Fault("GET", "0.1.json", status=403, code="AccessDenied", times=10**6)]
    with pytest.raises(DeniedError):
        store.read("tasks/0.1.json")
