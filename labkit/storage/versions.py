"""Earlier versions of an object, links for others, and what it costs to keep."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

from labkit.base.units import format_duration, parse_duration
from labkit.storage import objects
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.client import asking, client
from labkit.storage.errors import AddressError, NotFoundError

#: What S3 offers for keeping an object, with what people should know of it.
STORAGE_CLASSES = {
    "STANDARD": "read often",
    "INTELLIGENT_TIERING": "S3 moves it by how often it is read",
    "STANDARD_IA": "read seldom; 30 days at least",
    "ONEZONE_IA": "read seldom, can be made again; 30 days at least",
    "GLACIER_IR": "read once a quarter, at once; 90 days at least",
    "GLACIER": "archive: minutes to hours until it can be read; 90 days at least",
    "DEEP_ARCHIVE": "archive: up to 48 hours until it can be read; 180 days at least",
}
_LONGEST_LINK = timedelta(days=7)  # S3's own limit


@dataclass(frozen=True)
class Version:
    """One version of an object that was overwritten or deleted.

    Attributes
    ----------
    id : str
        What S3 calls it.
    changed : float
        When it was written, seconds since 1970.
    size : int
        Bytes.
    current : bool
        Whether it is what one reads now.
    deleted : bool
        Whether it says that the object was deleted; it has no content then.
    """

    id: str
    changed: float
    size: int = 0
    current: bool = False
    deleted: bool = False


def versions(address: str | os.PathLike[str]) -> list[Version]:
    """Return the versions of an object, the newest first.

    A bucket that does not keep versions has the current one alone.

    Parameters
    ----------
    address : str
        ``s3://bucket/key``.

    Raises
    ------
    StorageError
        There is none, or they may not be listed.
    """
    place = _object(address)
    pages = client("s3", place).get_paginator("list_object_versions")
    found: list[Version] = []
    with asking(place):
        for page in pages.paginate(Bucket=place.bucket, Prefix=place.key):
            for kind, deleted in (("Versions", False), ("DeleteMarkers", True)):
                found += [
                    Version(
                        one["VersionId"],
                        one["LastModified"].timestamp(),
                        int(one.get("Size", 0)),
                        bool(one["IsLatest"]),
                        deleted,
                    )
                    for one in page.get(kind, ())
                    if one["Key"] == place.key
                ]
    if not found:
        objects.check_bucket(place)
        raise NotFoundError(f"There is no object {place}, and no earlier version of it.")
    return sorted(found, key=lambda version: (version.current, version.changed), reverse=True)


def restore(address: str | os.PathLike[str], version: str) -> None:
    """Make an earlier version of an object the current one again; what is current stays a version.

    Parameters
    ----------
    address : str
        ``s3://bucket/key``.
    version : str
        ``id`` of one of :func:`versions`.

    Raises
    ------
    StorageError
        There is no such version, or it may not be read or written.
    """
    place = _object(address)
    wanted = next((one for one in versions(address) if one.id == version), None)
    if wanted is None or wanted.deleted:
        text = "says that it was deleted" if wanted else "is none of its versions"
        raise NotFoundError(f"{place}: {version!r} {text}. labkit.storage.versions() lists them.")
    _rewrite(place, {"VersionId": version}, {}, version)


def set_storage_class(address: str | os.PathLike[str], storage_class: str) -> None:
    """Keep an object in another storage class from now on.

    Parameters
    ----------
    address : str
        ``s3://bucket/key``.
    storage_class : str
        One of :data:`STORAGE_CLASSES`.

    Raises
    ------
    StorageError
        There is no such class or object, or it may not be written.
    """
    if storage_class not in STORAGE_CLASSES:
        known = "; ".join(f"{name} ({text})" for name, text in STORAGE_CLASSES.items())
        raise AddressError(f"There is no storage class {storage_class!r}. There are: {known}.")
    place = _object(address)
    _rewrite(place, {}, {"StorageClass": storage_class})


def link(address: str | os.PathLike[str], valid: timedelta | float | str = "1h") -> str:
    """Return a link by which anybody who has it can read an object for a while, without a login.

    It carries your permission: whoever gets it reads as you. With credentials that end sooner (a
    role, a single sign-on) it ends with them.

    Parameters
    ----------
    address : str
        ``s3://bucket/key``.
    valid : timedelta, seconds or str
        How long, 7 days at most: ``"2 days"``.

    Raises
    ------
    StorageError
        The object is not there, or the time is none.
    """
    place = _object(address)
    try:
        span = parse_duration(valid)
    except ValueError as error:
        raise AddressError(f"A link to {place}: {error}.") from None
    if not timedelta(0) < span <= _LONGEST_LINK:
        raise AddressError(
            f"A link can be valid for 7 days at most, and not {format_duration(span)}."
        )
    objects.look(place)  # S3 would sign for anything
    with asking(place):
        made: str = client("s3", place).generate_presigned_url(
            "get_object",
            Params={"Bucket": place.bucket, "Key": place.key},
            ExpiresIn=int(span.total_seconds()) or 1,
        )
    return made


def _rewrite(
    place: ObjectAddress, source: dict[str, str], change: dict[str, str], version: str = ""
) -> None:
    """Copy an object, or a version of it, over itself; what stands beside it is kept."""
    known = objects.head(place, version)
    kept = {
        name: known[name]
        for name in ("ContentType", "ContentEncoding", "ContentDisposition", "CacheControl")
        if known.get(name)
    }
    if known.get("StorageClass"):  # it is left out of STANDARD
        kept["StorageClass"] = known["StorageClass"]
    with asking(place):
        client("s3", place).copy(
            {"Bucket": place.bucket, "Key": place.key, **source},
            place.bucket,
            place.key,
            ExtraArgs={
                **kept,
                **change,
                "Metadata": known.get("Metadata", {}),
                "MetadataDirective": "REPLACE",
                "CopySourceIfMatch": known["ETag"],
            },
        )


def _object(address: str | os.PathLike[str]) -> ObjectAddress:
    place = parse(address)
    if not isinstance(place, ObjectAddress) or place.is_folder:
        raise AddressError(f"{address} is no object of S3. Give s3://bucket/key.")
    return place
