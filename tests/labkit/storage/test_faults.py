"""Faults on the way to S3: what is tried again, what is told, what is never half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from labkit import storage
from labkit.base.ports import free_port
from labkit.storage import objects
from labkit.storage.address import ObjectAddress
from labkit.storage.errors import (
    ChangedError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from labkit.testing.moto import MotoServer
from tests.support.aws_faults import Fault, FaultyEndpoint


def test_a_server_error_is_tried_again(bucket: str, faulty: FaultyEndpoint, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    faulty.faults = [Fault("PUT", "/a", times=2), Fault("HEAD", "/a"), Fault("GET", "/a", times=2)]
    storage.copy(tmp_path / "a", f"s3://{bucket}/a")
    storage.copy(f"s3://{bucket}/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"abc"
    assert [fault.times for fault in faulty.faults] == [0, 0, 0]


def test_an_endless_server_error_is_told(
    bucket: str, faulty: FaultyEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    faulty.faults = [Fault("GET", "/a", times=10**6)]
    with pytest.raises(UnreachableError, match=r"several tries.*Try again in some minutes"):
        storage.peek(f"s3://{bucket}/a")


@pytest.mark.parametrize("size", [1000, 20 << 20])
def test_a_body_that_breaks_off_is_never_taken_for_whole(
    size: int, bucket: str, faulty: FaultyEndpoint, tmp_path: Path
) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    storage.copy(tmp_path / "a", f"s3://{bucket}/a")
    faulty.faults = [Fault("GET", "/a", "cut", times=1)]
    try:
        storage.copy(f"s3://{bucket}/a", tmp_path / "b")
    except StorageError:
        assert [path.name for path in tmp_path.iterdir()] == ["a"], "nothing half is left"
        storage.copy(f"s3://{bucket}/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_small_read_that_breaks_off_says_so(bucket: str, s3: Any, faulty: FaultyEndpoint) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"0123456789")
    faulty.faults = [Fault("GET", "/a", "cut", times=10**6)]
    with pytest.raises(UnreachableError, match="broke off"):
        objects.read(ObjectAddress(bucket, "a"))


def test_put_if_absent_tells_its_own_write_whose_answer_was_lost(
    bucket: str, faulty: FaultyEndpoint
) -> None:
    one, other = ObjectAddress(bucket, "claim/one"), ObjectAddress(bucket, "claim/other")
    faulty.faults = [Fault("PUT", "claim/one", "lose")]
    assert objects.put(one, b"mine", new=True)
    assert len([path for method, path in faulty.requests if method == "PUT"]) == 2
    assert not objects.put(one, b"mine", new=True), "the same content, and another's write"
    assert objects.put(other, b"mine", new=True)


def test_a_conflict_of_two_writers_is_tried_again(bucket: str, faulty: FaultyEndpoint) -> None:
    address = ObjectAddress(bucket, "claim")
    conflict = Fault("PUT", "claim", status=409, code="ConditionalRequestConflict", times=2)
    faulty.faults = [conflict]
    assert objects.put(address, b"mine", new=True)
    conflict.times = 10**6
    with pytest.raises(ChangedError, match="by others"):
        objects.put(address, b"mine", new=True)


def test_a_bucket_without_permission(bucket: str, s3: Any, faulty: FaultyEndpoint) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    denied = {"kind": "refuse", "status": 403, "code": "AccessDenied", "times": 10**6}
    faulty.faults = [Fault(method, bucket, **denied) for method in ("GET", "HEAD", "PUT")]  # type: ignore[arg-type]
    for ask in (
        lambda: storage.peek(f"s3://{bucket}/a"),
        lambda: storage.info(f"s3://{bucket}/a"),
        lambda: list(storage.entries(f"s3://{bucket}/")),
        lambda: storage.copy(__file__, f"s3://{bucket}/b"),
        lambda: storage.copy(f"s3://{bucket}/a", "/nowhere"),
    ):
        with pytest.raises(DeniedError, match=r"you may not do this.*Ask whoever"):
            ask()


@pytest.mark.parametrize(
    ("status", "code", "kind", "step"),
    [
        (403, "InvalidAccessKeyId", CredentialsError, "Log in again"),
        (403, "SignatureDoesNotMatch", CredentialsError, "renew the keys"),
        (400, "ExpiredToken", CredentialsError, "aws sso login"),
        (403, "InvalidObjectState", StorageError, "restored first"),
        (301, "PermanentRedirect", StorageError, "AWS_REGION"),
        (404, "NoSuchKey", NotFoundError, "Capitals count"),
        (418, "Teapot", StorageError, "a fault of the test's"),
    ],
)
def test_answers_are_said_with_the_next_step(
    bucket: str, faulty: FaultyEndpoint, status: int, code: str, kind: type[Exception], step: str
) -> None:
    faulty.faults = [Fault("GET", "/a", status=status, code=code, times=10**6)]
    with pytest.raises(kind, match=step) as caught:
        storage.peek(f"s3://{bucket}/a")
    assert f"s3://{bucket}/a" in str(caught.value)


def test_no_such_bucket_is_told_apart_from_no_such_object(aws: MotoServer, tmp_path: Path) -> None:
    missing = "s3://no-such-bucket-here/a"
    (tmp_path / "a").write_bytes(b"a")
    for ask in (
        lambda: storage.peek(missing),
        lambda: storage.info(missing),
        lambda: list(storage.entries("s3://no-such-bucket-here/")),
        lambda: storage.copy(tmp_path / "a", missing),
        lambda: storage.copy(missing, tmp_path / "b"),
    ):
        with pytest.raises(NotFoundError, match=r"no (such )?bucket.*Check its name"):
            ask()


def test_no_credentials(aws: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CredentialsError, match=r"no credentials.*aws sso login"):
        storage.peek("s3://bucket/a")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(CredentialsError, match=r"no-such-profile.*~/.aws/config"):
        storage.peek("s3://bucket/a")


def test_nobody_answers(aws: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError, match=r"network.*AWS_ENDPOINT_URL"):
        storage.peek("s3://bucket/a")


def test_no_secret_is_in_any_text(bucket: str, faulty: FaultyEndpoint) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    faulty.faults = [Fault("GET", "/a", status=403, code="SignatureDoesNotMatch", times=10**6)]
    with pytest.raises(CredentialsError) as caught:
        storage.peek(f"s3://{bucket}/a")
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in f"{error!r}{error}"
        error = error.__cause__ or error.__context__


def test_an_object_that_is_replaced_meanwhile_is_no_mixture(
    bucket: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = objects.look
    s3.put_object(Bucket=bucket, Key="a", Body=b"a" * 1000)

    def replaced(address: ObjectAddress) -> storage.Entry:
        entry = real(address)
        s3.put_object(Bucket=bucket, Key="a", Body=os.urandom(entry.size))
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(objects, "look", replaced)
        with pytest.raises(ChangedError, match="replaced"):
            storage.copy(f"s3://{bucket}/a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_parts_of_an_object_that_is_replaced_meanwhile_are_of_one_version(
    bucket: str, s3: Any, tmp_path: Path
) -> None:
    size, target = 40 << 20, tmp_path / "a"
    s3.put_object(Bucket=bucket, Key="a", Body=b"a" * size)
    begun: list[storage.Progress] = []

    def replace(now: storage.Progress) -> None:
        if not begun:
            begun.append(now)
            s3.put_object(Bucket=bucket, Key="a", Body=b"b" * size)

    try:
        storage.copy(f"s3://{bucket}/a", target, replace)
    except ChangedError:
        assert list(tmp_path.iterdir()) == []
    else:  # all parts were on their way
        assert target.read_bytes() == b"a" * size
    assert begun


def test_a_full_disk_leaves_nothing(
    bucket: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    target = tmp_path / "b"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labkit.storage.objects._fetch_whole", full)
    with pytest.raises(OSError, match="No space left"):
        storage.copy(f"s3://{bucket}/a", target)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_file_that_is_written_to_while_it_is_copied_is_told(bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 1000)

    def grow(_: storage.Progress) -> None:
        with path.open("ab") as file:
            file.write(b"b")

    with pytest.raises(ChangedError, match="while it was copied"):
        storage.copy(path, f"s3://{bucket}/growing", grow)
