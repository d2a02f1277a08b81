"""Objects of S3, one request each: look, read, put, list, delete."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit.storage.address import ObjectAddress
from labkit.storage.client import asking, client
from labkit.storage.digest import Sha256, file_digest
from labkit.storage.entry import Entry
from labkit.storage.errors import ChangedError, NotFoundError, StorageError, code_of

#: Beside an object that labkit wrote: the SHA-256 of its whole content, as hex.
DIGEST = "sha256"
_WRITER = "writer"  # beside an object that was to be new: whose it is
_CONFLICTS = 5  # tries while others write the same key
_BLOCK = 1 << 20
_PAGE = 1000  # keys of one answer, S3's limit
_DELETED_AT_ONCE = 1000  # keys of one request
_ONE_REQUEST = 16 << 20  # bytes; larger objects go in parts, several at once
Advance = Callable[[int], None]


def _no_advance(_: int) -> None:
    """Take no notice of the bytes that have been moved."""


def head(address: ObjectAddress, version_id: str = "") -> dict[str, Any]:
    """Return what S3 says of an object, without its content.

    Raises
    ------
    StorageError
        It is not there, or may not be read.
    """
    more = {"VersionId": version_id} if version_id else {}
    try:
        with asking(address):
            answer: dict[str, Any] = client("s3", address).head_object(
                Bucket=address.bucket, Key=address.key, **more
            )
            return answer
    except NotFoundError:
        # The answer to HEAD has no text: ask which of the two is missing.
        check_bucket(address)
        raise


def check_bucket(address: ObjectAddress) -> None:
    """Raise where an address's bucket is missing or closed to us.

    Raises
    ------
    StorageError
        The text says which.
    """
    try:
        with asking(address):
            client("s3", address).head_bucket(Bucket=address.bucket)
    except NotFoundError:
        raise NotFoundError(
            f"{address}: there is no bucket {address.bucket!r}. Check its name, and that your "
            "profile is the account's that has it."
        ) from None


def look(address: ObjectAddress) -> Entry:
    """Return an object's size, time, version and class.

    Raises
    ------
    StorageError
        It is not there, or may not be read.
    """
    answer = head(address)
    return Entry(
        str(address),
        int(answer["ContentLength"]),
        answer["LastModified"].timestamp(),
        str(answer["ETag"]).strip('"'),
        answer.get("StorageClass", "STANDARD"),
        answer.get("Metadata", {}).get(DIGEST, ""),
    )


def pages(address: ObjectAddress, after: str = "", deep: bool = True) -> Iterator[Entry]:
    """Return what is below an address, in the order of the keys.

    Parameters
    ----------
    address : ObjectAddress
        All keys that begin with its key.
    after : str
        A key: only what comes after it.
    deep : bool
        False: folders below it count as one entry each.
    """
    query: dict[str, Any] = {"Bucket": address.bucket, "Prefix": address.key}
    if after:
        query["StartAfter"] = after
    if not deep:
        query["Delimiter"] = "/"
    s3 = client("s3", address)
    answers = iter(
        s3.get_paginator("list_objects_v2").paginate(**query, PaginationConfig={"PageSize": _PAGE})
    )
    while True:
        with asking(address):
            answer = next(answers, None)
        if answer is None:
            return
        found = [
            Entry(
                f"s3://{address.bucket}/{one['Key']}",
                int(one["Size"]),
                one["LastModified"].timestamp(),
                str(one["ETag"]).strip('"'),
                one.get("StorageClass", "STANDARD"),
            )
            for one in answer.get("Contents", ())
        ]
        found += [
            Entry(f"s3://{address.bucket}/{one['Prefix']}")
            for one in answer.get("CommonPrefixes", ())
        ]
        yield from sorted(found, key=lambda entry: entry.address)


def read(
    address: ObjectAddress, start: int = 0, most: int | None = None, version: str = ""
) -> bytes:
    """Return the content of an object, or some bytes of it.

    Parameters
    ----------
    address : ObjectAddress
        Which.
    start : int
        The first byte, from 0.
    most : int or None
        Bytes at most; None: up to its end.
    version : str
        Only where it is still this one (its ETag).

    Raises
    ------
    StorageError
        It is not there, may not be read, or broke off.
    """
    if most == 0:
        return b""
    more = {"IfMatch": f'"{version}"'} if version else {}
    if start or most is not None:
        more["Range"] = f"bytes={start}-" + ("" if most is None else f"{start + most - 1}")
    try:
        with asking(address):
            answer = client("s3", address).get_object(
                Bucket=address.bucket, Key=address.key, **more
            )
            with contextlib.closing(answer["Body"]) as body:
                content = bytes(body.read())
            if len(content) != int(answer["ContentLength"]):
                raise ChangedError(f"{address} broke off while it was read. Try again.")
            return content
    except StorageError as error:
        if code_of(error) == "InvalidRange":  # at or after its end
            return b""
        raise


def put(address: ObjectAddress, content: bytes, *, new: bool = False) -> bool:
    """Write an object in one step.

    Parameters
    ----------
    address : ObjectAddress
        Where.
    content : bytes
        All of it.
    new : bool
        Leave one that is there alone: of several writers at once one wins.

    Returns
    -------
    bool
        Whether it was written; always True without ``new``.

    Raises
    ------
    StorageError
        It may not be written, or nobody knows whether it was.
    """
    metadata = {DIGEST: Sha256(content).hexdigest()}
    more: dict[str, Any] = {}
    if new:
        more["IfNoneMatch"] = "*"
        metadata[_WRITER] = uuid.uuid4().hex
    for _ in range(_CONFLICTS):
        try:
            with asking(address):
                client("s3", address).put_object(
                    Bucket=address.bucket,
                    Key=address.key,
                    Body=content,
                    Metadata=metadata,
                    **more,
                )
            return True
        except ChangedError as error:
            if not new:
                raise
            if code_of(error) == "ConditionalRequestConflict":  # another is at it, and may fail
                continue
            return _is_ours(address, metadata[_WRITER])
    raise ChangedError(f"{address} is being written by others again and again. Try again later.")


def _is_ours(address: ObjectAddress, writer: str) -> bool:
    """Return whether what is there is what this call wrote.

    Where an answer was lost, the client sent the request again, and the second found the first's.
    """
    try:
        return bool(head(address).get("Metadata", {}).get(_WRITER) == writer)
    except NotFoundError:  # deleted meanwhile
        return False


def store(source: Path, address: ObjectAddress, advance: Advance = _no_advance) -> str:
    """Copy a file into an object, with its digest.

    Parameters
    ----------
    source : Path
        The file.
    address : ObjectAddress
        Where to; an object that is there is replaced in one step.
    advance : callable
        Gets the number of bytes that have been sent since it was last called.

    Returns
    -------
    str
        SHA-256 of the content as hex.

    Raises
    ------
    StorageError
        The file cannot be read, or changed meanwhile; the object may not be written.
    """
    from boto3.s3.transfer import TransferConfig

    with asking(source):
        before = source.stat()
        digest = file_digest(source)
    with asking(address):
        client("s3", address).upload_file(
            str(source),
            address.bucket,
            address.key,
            ExtraArgs={"Metadata": {DIGEST: digest}},
            Callback=advance,
            Config=TransferConfig(
                multipart_threshold=_ONE_REQUEST, multipart_chunksize=_ONE_REQUEST
            ),
        )
    with asking(source):
        after = source.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ChangedError(f"{source} was written to while it was copied. Copy it again.")
    return digest


def fetch(address: ObjectAddress, target: Path, advance: Advance = _no_advance) -> str:
    """Copy an object into a file; the file appears when it is whole and was checked.

    Parameters
    ----------
    address : ObjectAddress
        Which.
    target : Path
        The file; its folder must be there.
    advance : callable
        Gets the number of bytes that have come since it was last called.

    Returns
    -------
    str
        SHA-256 of what was written, as hex.

    Raises
    ------
    ChangedError
        It was replaced or cut short meanwhile, or is not what its digest says.
    StorageError
        It may not be read, or the file cannot be written.
    """
    entry = look(address)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        if entry.size > _ONE_REQUEST:
            digest = _fetch_parts(address, temporary, advance)
        else:
            digest = _fetch_whole(address, entry, temporary, advance)
        size = temporary.stat().st_size
        if size != entry.size:
            raise ChangedError(
                f"{address} has {entry.size} bytes, and {size} came: it was replaced meanwhile, or "
                "the connection broke off. Try again."
            )
        if entry.digest and digest != entry.digest:
            raise ChangedError(
                f"{address} is not what was once stored there: its digest differs. Restore an "
                "earlier version (labkit.storage.versions), or store it again."
            )
        with asking(target):
            temporary.replace(target)
        return digest
    finally:
        temporary.unlink(missing_ok=True)


def _fetch_whole(address: ObjectAddress, entry: Entry, target: Path, advance: Advance) -> str:
    digest = Sha256()
    with asking(address):
        answer = client("s3", address).get_object(
            Bucket=address.bucket, Key=address.key, IfMatch=f'"{entry.version}"'
        )
        with contextlib.closing(answer["Body"]) as body, target.open("xb") as file:
            for piece in body.iter_chunks(_BLOCK):
                file.write(piece)
                digest.update(piece)
                advance(len(piece))
    return digest.hexdigest()


def _fetch_parts(address: ObjectAddress, target: Path, advance: Advance) -> str:
    from boto3.s3.transfer import TransferConfig

    with asking(address):  # its parts are asked for with If-Match: no mixture
        client("s3", address).download_file(
            address.bucket,
            address.key,
            str(target),
            Callback=advance,
            Config=TransferConfig(
                multipart_threshold=_ONE_REQUEST, multipart_chunksize=_ONE_REQUEST
            ),
        )
    return file_digest(target)


def delete(addresses: Sequence[ObjectAddress]) -> None:
    """Delete objects of one bucket; those that are not there are none.

    Raises
    ------
    StorageError
        One of them may not be deleted.
    """
    for first in range(0, len(addresses), _DELETED_AT_ONCE):
        some = addresses[first : first + _DELETED_AT_ONCE]
        with asking(some[0]):
            answer = client("s3", some[0]).delete_objects(
                Bucket=some[0].bucket,
                Delete={"Objects": [{"Key": one.key} for one in some], "Quiet": True},
            )
        for error in answer.get("Errors", ()):
            raise StorageError(
                f"s3://{some[0].bucket}/{error.get('Key')} cannot be deleted: "
                f"{error.get('Message') or error.get('Code')}."
            )
