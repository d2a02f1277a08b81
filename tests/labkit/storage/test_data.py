"""Data on a disk and in S3: list, peek, copy, digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from labkit import storage
from labkit.storage import AddressError, ChangedError, NotFoundError, Progress

LARGE = 20 << 20  # more than one request


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of either kind, ending with ``/``."""
    if request.param == "disk":
        (tmp_path / "data").mkdir()
        return f"{tmp_path}/data/"
    return f"s3://{request.getfixturevalue('bucket')}/data/"


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_folder_is_listed_and_read(place: str, tmp_path: Path, bucket: str) -> None:
    source = write(tmp_path / "source", a=b"0123456789", sub__b=b"bb", sub__c=b"c")
    assert storage.copy(source, place) == Progress(3, 13, 3, 13)
    assert [e.address.removeprefix(place) for e in storage.entries(place)] == ["a", "sub/"]
    deep = list(storage.entries(place, deep=True))
    assert [e.address.removeprefix(place) for e in deep] == ["a", "sub/b", "sub/c"]
    assert [e.size for e in deep] == [10, 2, 1]
    assert all(e.version and e.changed > 1e9 for e in deep)
    assert storage.peek(place + "a", 4, 3) == b"3456"
    assert storage.peek(place + "a", 100, 8) == b"89"
    assert storage.peek(place + "a", 100, 10) == b""
    assert storage.peek(place + "a", 0) == b""
    assert storage.info(place + "a").size == 10
    digest = hashlib.sha256(b"0123456789").hexdigest()
    assert storage.checksum(place + "a") == storage.checksum(place + "a", read=True) == digest


def test_large_and_small_come_back_as_they_were(tmp_path: Path, bucket: str) -> None:
    source = write(tmp_path / "source", large=os.urandom(LARGE), empty=b"", **{"ä b+c%d": b"x"})
    seen: list[Progress] = []
    there = f"s3://{bucket}/copy/"
    storage.copy(source, there, seen.append)
    assert seen[-1] == Progress(3, LARGE + 1, 3, LARGE + 1)
    assert len(seen) > 4, "progress came while it went on"
    elsewhere = f"s3://{bucket}/again/"
    assert storage.copy(there, elsewhere).files_done == 3
    back = tmp_path / "back"
    storage.copy(elsewhere, f"{back}/")
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    large = f"s3://{bucket}/again/large"
    assert storage.checksum(large) == storage.checksum(large, read=True)
    assert storage.checksum(large) == storage.checksum(source / "large")


def test_one_file_goes_by_its_name_or_a_new_one(place: str, tmp_path: Path, bucket: str) -> None:
    source = write(tmp_path / "source", a=b"a") / "a"
    storage.copy(source, place)
    storage.copy(source, place + "b")
    storage.copy(place + "b", f"{tmp_path}/new/folder/")
    assert [e.address.removeprefix(place) for e in storage.entries(place)] == ["a", "b"]
    assert (tmp_path / "new/folder/b").read_bytes() == b"a"


def test_what_is_not_there_is_named(place: str, tmp_path: Path, bucket: str) -> None:
    for ask in (storage.info, storage.peek, storage.checksum):
        with pytest.raises(NotFoundError, match="none"):
            ask(place + "none")
    with pytest.raises(NotFoundError, match="nothing at"):
        storage.copy(place, tmp_path / "x/")
    with pytest.raises(NotFoundError):
        storage.copy(place + "none", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_object_of_others_has_its_digest_read(bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"theirs")
    digest = hashlib.sha256(b"theirs").hexdigest()
    assert storage.info(f"s3://{bucket}/a").digest == ""
    assert storage.checksum(f"s3://{bucket}/a") == digest


def test_a_content_that_is_not_its_digest_s_is_refused(
    bucket: str, s3: Any, tmp_path: Path
) -> None:
    target = write(tmp_path, a=b"before") / "a"
    for key, size in (("small", 10), ("large", LARGE)):
        s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=b"x" * size,
            Metadata={"sha256": hashlib.sha256().hexdigest()},
        )
        with pytest.raises(ChangedError, match="digest differs"):
            storage.copy(f"s3://{bucket}/{key}", target)
        with pytest.raises(ChangedError, match="digest differs"):
            storage.checksum(f"s3://{bucket}/{key}", read=True)
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "nothing half is left"


@pytest.mark.parametrize(
    "key", ["data/../../evil", "data//etc/passwd", "data/./x", "data/a/../../x"]
)
def test_keys_cannot_climb_out_of_the_target(
    key: str, bucket: str, s3: Any, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key="data/fine", Body=b"1")
    s3.put_object(Bucket=bucket, Key=key, Body=b"2")
    target = tmp_path / "in/side"
    with pytest.raises(AddressError):
        storage.copy(f"s3://{bucket}/data/", f"{target}/")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(target) for path in written)


def test_the_console_s_empty_folders_are_no_files(bucket: str, s3: Any, tmp_path: Path) -> None:
    for key in ("data/", "data/sub/", "data/sub/a"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"a" if key.endswith("a") else b"")
    storage.copy(f"s3://{bucket}/data/", f"{tmp_path}/out/")
    assert (tmp_path / "out/sub/a").read_bytes() == b"a"


def test_more_than_a_page_is_listed(bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.storage.objects._PAGE", 3)
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"d/{number}", Body=b"")
    names = [entry.address[-1:] for entry in storage.entries(f"s3://{bucket}/d/")]
    assert names == list("0123456789")


def test_versions_are_listed_and_brought_back(bucket: str, s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    at = f"s3://{bucket}/plate.csv"
    s3.put_object(Bucket=bucket, Key="plate.csv", Body=b"right", ContentType="text/csv")
    s3.put_object(Bucket=bucket, Key="plate.csv", Body=b"wrong!")
    s3.put_object(Bucket=bucket, Key="plate.csv.other", Body=b"another object")
    newest, first = storage.versions(at)
    assert (newest.current, newest.size, first.current, first.size) == (True, 6, False, 5)
    storage.restore(at, first.id)
    assert storage.peek(at) == b"right"
    assert s3.head_object(Bucket=bucket, Key="plate.csv")["ContentType"] == "text/csv"
    assert len(storage.versions(at)) == 3, "nothing was lost"
    s3.delete_object(Bucket=bucket, Key="plate.csv")
    gone = storage.versions(at)[0]
    assert gone.deleted and gone.current
    with pytest.raises(NotFoundError, match="deleted"):
        storage.restore(at, gone.id)
    with pytest.raises(NotFoundError, match="none of its versions"):
        storage.restore(at, "0" * 32)
    storage.restore(at, first.id)
    assert storage.peek(at) == b"right"


def test_versions_of_what_never_was(bucket: str) -> None:
    with pytest.raises(NotFoundError, match="no earlier version"):
        storage.versions(f"s3://{bucket}/none")
    with pytest.raises(NotFoundError, match="no such bucket"):
        storage.versions("s3://no-such-bucket-at-all/none")


def test_a_link_needs_no_login_and_ends(bucket: str, s3: Any) -> None:
    import urllib.request

    s3.put_object(Bucket=bucket, Key="a b.txt", Body=b"for you")
    link = storage.link(f"s3://{bucket}/a b.txt", "2 days")
    assert "X-Amz-Expires=172800" in link
    with urllib.request.urlopen(link, timeout=60) as answer:
        assert answer.read() == b"for you"
    for valid in ("8 days", 0, "soon"):
        with pytest.raises(AddressError):
            storage.link(f"s3://{bucket}/a b.txt", valid)
    with pytest.raises(NotFoundError):
        storage.link(f"s3://{bucket}/none")


def test_the_storage_class_changes_and_the_rest_stays(bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"a", Metadata={"plate": "7"}, ContentType="text/x")
    storage.set_storage_class(f"s3://{bucket}/a", "GLACIER_IR")
    known = s3.head_object(Bucket=bucket, Key="a")
    assert known["StorageClass"] == storage.info(f"s3://{bucket}/a").storage_class == "GLACIER_IR"
    assert (known["Metadata"], known["ContentType"]) == ({"plate": "7"}, "text/x")
    with pytest.raises(AddressError, match="GLACIER_IR"):
        storage.set_storage_class(f"s3://{bucket}/a", "COLD")
