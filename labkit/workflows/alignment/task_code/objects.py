"""Files that may be objects in S3: read them as streams, fetch and put them.

boto3 is imported when the first ``s3://`` is met: it finds credentials and ``AWS_ENDPOINT_URL``
by itself.
"""

from __future__ import annotations

import io
import re
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\0\n]*)")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ATTEMPTS = 5
_clients: dict[str, Any] = {}
_lock = threading.Lock()


class ObjectError(OSError):
    """An object cannot be read or written; the text says which and why."""


def is_object(path: str) -> bool:
    """Whether it is an ``s3://`` address."""
    return path.startswith("s3://")


def address_problem(path: str) -> str:
    """Return why an address is none that is read; empty of paths and of ``s3://``."""
    match = _ADDRESS.match(path)
    if not match or is_object(path):
        return ""
    if match[1] == "file":
        return f"{path} is an address: write the path alone"
    return f"{path} is an address, and {match[1]}:// is not read: download the file first"


def split(url: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``.

    Raises
    ------
    ObjectError
        It is no such address.
    """
    match = _URL.fullmatch(url)
    if not match:
        raise ObjectError(f"{url!r} is no address of an object: write s3://bucket/key")
    return match[1], match[2]


def client() -> Any:
    """Return the S3 client, one for all threads.

    Raises
    ------
    ObjectError
        boto3 is not installed.
    """
    with _lock:
        if "s3" not in _clients:
            try:
                boto3 = import_module("boto3")
            except ImportError as error:
                raise ObjectError("boto3 is needed for s3:// and is not installed here") from error
            _clients["s3"] = boto3.session.Session().client("s3")
        return _clients["s3"]


def size(path: str) -> int:
    """Return the bytes of a file or object.

    Raises
    ------
    OSError
        It is not there, or may not be read.
    """
    if not is_object(path):
        return Path(path).stat().st_size
    return int(_ask("head_object", path)["ContentLength"])


def version(path: str) -> str:
    """Return what changes when the content does: of an object its ETag, of a file its time."""
    if is_object(path):
        return str(_ask("head_object", path)["ETag"])
    status = Path(path).stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def open_bytes(path: str) -> BinaryIO:
    """Open a file or object to read its bytes.

    Raises
    ------
    OSError
        It is not there, or may not be read.
    """
    if not is_object(path):
        return Path(path).open("rb")
    return io.BufferedReader(ObjectReader(path), 1024 * 1024)


class ObjectReader(io.RawIOBase):
    """An object as a stream; a broken connection is taken up where it broke.

    Parameters
    ----------
    url : str
        ``s3://bucket/key``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        head = _ask("head_object", url)
        self._etag = head["ETag"]
        self._size = int(head["ContentLength"])
        self._position = 0
        self._body: Any = None

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        if self._position >= self._size:
            return 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._body is None:
                    wanted = f"bytes={self._position}-"
                    answer = _ask("get_object", self.url, Range=wanted, IfMatch=self._etag)
                    self._body = answer["Body"]
                data = self._body.read(len(buffer))
                if data:
                    break
                raise ObjectError(f"{self.url} ended at byte {self._position} of {self._size}")
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:  # urllib3's and botocore's have no common parent
                self._body = None
                if attempt == _ATTEMPTS:
                    raise ObjectError(f"{self.url} cannot be read on: {error}") from error
                time.sleep(0.2 * 2**attempt)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def fetch(url: str, target: Path) -> None:
    """Copy an object into a file."""
    bucket, key = split(url)
    try:
        client().download_file(bucket, key, str(target))
    except Exception as error:
        raise _explained(url, error) from error


def put(source: Path, url: str) -> None:
    """Copy a file into an object."""
    bucket, key = split(url)
    try:
        client().upload_file(str(source), bucket, key)
    except Exception as error:
        raise _explained(url, error) from error


def _ask(operation: str, url: str, **more: Any) -> Any:
    bucket, key = split(url)
    s3 = client()
    try:
        return getattr(s3, operation)(Bucket=bucket, Key=key, **more)
    except Exception as error:
        raise _explained(url, error) from error


def _explained(url: str, error: Exception) -> OSError:
    """Return botocore's error as one of a file."""
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
        return FileNotFoundError(f"there is no object {url}")
    if code in ("403", "AccessDenied", "Forbidden"):
        return PermissionError(f"no permission to read or write {url}")
    if code in ("412", "PreconditionFailed"):
        return ObjectError(f"{url} was replaced while it was read")
    return ObjectError(f"{url}: {error}")
