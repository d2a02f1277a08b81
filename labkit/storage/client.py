"""boto3's clients, one of each kind in a process, with the credentials of the standard chain."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from labkit.storage.errors import StorageError, explained

CONNECTIONS = 16  # at once, to one endpoint
_ATTEMPTS = 5  # where neither profile nor environment say how many
_clients: dict[tuple[int, str, bool, str], Any] = {}
_lock = threading.Lock()


def client(service: str, address: object = "", *, once: bool = False) -> Any:
    """Return a client of boto3, the same for all threads of this process.

    Profile, keys, region and endpoint are found as the AWS command line finds them: environment
    (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_S3``), ``~/.aws``, the role of the
    machine. None of them is ever an argument here.

    Parameters
    ----------
    service : str
        E.g. ``"s3"``, ``"batch"``.
    address : object
        What it is for; errors name it.
    once : bool
        Send each request once, for what must not be done twice.

    Raises
    ------
    StorageError
        boto3 is not installed, or what it finds cannot be used.
    """
    chosen = "\0".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("AWS_"))
    key = (os.getpid(), service, once, chosen)  # connections do not survive a fork
    with _lock:
        if key not in _clients:
            _clients[key] = _make(service, address, once)
        return _clients[key]


def _make(service: str, address: object, once: bool) -> Any:
    try:
        boto3, core = import_module("boto3"), import_module("botocore.session")
        config = import_module("botocore.config").Config
    except ImportError as error:
        raise StorageError(
            f"{address or service}: boto3 is needed for AWS and is not installed in this "
            "environment (pip install boto3)."
        ) from error
    with asking(address or service):
        chosen = core.get_session()
        options: dict[str, Any] = {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": 10,
            "read_timeout": 60,
        }
        if once:
            options["retries"] = {"mode": "standard", "total_max_attempts": 1}
        elif not (
            os.environ.get("AWS_MAX_ATTEMPTS") or chosen.get_scoped_config().get("max_attempts")
        ):
            options["retries"] = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        session = boto3.session.Session(botocore_session=chosen)
        if service != "s3":
            return session.client(service, config=config(**options))
        options["signature_version"] = "s3v4"  # links are signed in an older way otherwise
        made = session.client("s3", config=config(**options))
        host = urlsplit(made.meta.endpoint_url).hostname or ""
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return made
        # Only AWS gives each bucket a host name of its own.
        return session.client("s3", config=config(**options, s3={"addressing_style": "path"}))


@contextmanager
def asking(address: object) -> Iterator[None]:
    """Say a client's errors in our words, with the address they are about.

    Raises
    ------
    StorageError
        In place of whatever the client raised.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # botocore's, urllib3's and s3transfer's have no common parent
        raise explained(address, error) from error
