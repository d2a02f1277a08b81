"""One way to name data: a path, or ``s3://bucket/key``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from labkit.storage.errors import AddressError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_KEY = 1024  # bytes of UTF-8, S3's limit
# S3 takes them; servers and clients on the way resolve or drop them.
_CLIMBING = frozenset({"", ".", ".."})


@dataclass(frozen=True)
class ObjectAddress:
    """Where an object of S3 is, or all objects whose keys begin alike.

    Attributes
    ----------
    bucket : str
        Name of the bucket.
    key : str
        Key; one that is empty or ends with ``/`` stands for all objects below it.
    """

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def is_folder(self) -> bool:
        """Whether it stands for all objects below it."""
        return not self.key or self.key.endswith("/")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rstrip("/").rpartition("/")[2]

    def child(self, name: str) -> ObjectAddress:
        """Return what lies below it.

        Parameters
        ----------
        name : str
            Relative, with ``/`` between its parts.

        Raises
        ------
        AddressError
            It is empty, would lie somewhere else (``..``), or is too long.
        """
        if not name:
            raise AddressError(f"{self}: nothing below it was named.")
        start = self.key if self.is_folder else f"{self.key}/"
        address = ObjectAddress(self.bucket, start + name)
        _check_key(address, name)
        return address


Address = ObjectAddress | Path


def parse(value: str | os.PathLike[str] | ObjectAddress) -> Address:
    """Return what an address names.

    Parameters
    ----------
    value : str or path or ObjectAddress
        ``"s3://bucket/key"``, or a path; ``~`` is your home.

    Raises
    ------
    AddressError
        It is an address of another kind, or no bucket has such a name; the text says what to write.
    """
    if isinstance(value, ObjectAddress):
        return value
    text = os.fspath(value)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text or "\0" in text:
            raise AddressError(f"{text!r} names nothing. Give a path, or s3://bucket/key.")
        return Path(text).expanduser()
    rest = text[scheme.end() :]
    kind = scheme[1].lower()
    if kind == "file":
        raise AddressError(f"{text} is an address; give the path alone: {'/' + rest!r}.")
    if kind != "s3":
        raise AddressError(
            f"{text} cannot be read: {kind}:// is not known here. Give a path or s3://bucket/key; "
            "copy what is elsewhere to one of them first."
        )
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise AddressError(
            f"{text}: no bucket can be called {bucket!r}: its name has 3 to 63 small letters, "
            "digits, dots and hyphens. Write s3://bucket/key."
        )
    address = ObjectAddress(bucket, key)
    _check_key(address, key)
    return address


def _check_key(address: ObjectAddress, name: str) -> None:
    parts = name.split("/")
    if parts[-1] == "":
        parts.pop()
    if _CLIMBING & set(parts):
        raise AddressError(
            f"{address}: a key with '..', '.' or an empty part names nothing safely."
        )
    if any(ord(letter) < 32 for letter in name):
        raise AddressError(f"{str(address)!r} has control characters.")
    if len(address.key.encode()) > _LONGEST_KEY:
        raise AddressError(f"{address}: the key is longer than S3's {_LONGEST_KEY} bytes.")
