"""What names data, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.base.problems import LabkitError
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.errors import AddressError


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://lab-data/plate 1/a+b.tif", "lab-data", "plate 1/a+b.tif"),
        ("s3://lab-data/plate1/", "lab-data", "plate1/"),
        ("s3://lab-data", "lab-data", ""),
        ("S3://lab.data/é?x=1#y", "lab.data", "é?x=1#y"),
    ],
)
def test_objects(text: str, bucket: str, key: str) -> None:
    assert parse(text) == ObjectAddress(bucket, key)


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse("~/plate") == Path("/home/ada/plate")
    assert parse("a:b") == Path("a:b")
    assert parse(Path("/data")) == Path("/data")


def test_a_path_object_of_an_address_is_the_address() -> None:
    assert parse(Path("s3://lab-data/x")) == ObjectAddress("lab-data", "x")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("file:///data/a", "'/data/a'"),
        ("https://host/a", "https://"),
        ("sftp://host/a", "sftp://"),
        ("s3://Lab_Data/a", "Lab_Data"),
        ("s3://", "''"),
        ("s3://lab/../other", r"'\.\.'"),
        ("s3://lab/a//b", "empty part"),
        ("s3://lab/a\nb", "control"),
        ("s3://lab/" + "a" * 1025, "1024"),
        ("", "nothing"),
        ("a\0b", "nothing"),
    ],
)
def test_what_is_no_address_says_what_to_write(text: str, part: str) -> None:
    with pytest.raises(AddressError, match=part) as caught:
        parse(text)
    assert isinstance(caught.value, LabkitError)


def test_a_child_stays_below() -> None:
    top = ObjectAddress("lab", "runs")
    assert str(top.child("a/b.json")) == "s3://lab/runs/a/b.json"
    assert str(ObjectAddress("lab").child("a")) == "s3://lab/a"
    for name in ("../x", "a/../../x", "./x", "/x", ""):
        with pytest.raises(AddressError):
            top.child(name)
