"""What a run folder keeps of inputs in S3: their versions, and how they are reached."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

# Keys are secrets: they stay in ~/.aws, or come from the role of the machine.
_SETTINGS = (
    "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)  # fmt: skip


def settings() -> dict[str, str]:
    """Return by which profile, region and endpoint S3 is reached here; no keys."""
    return {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)}


def identities(addresses: Sequence[str]) -> Iterator[str]:
    """Yield address, size and version of each input in S3.

    Parameters
    ----------
    addresses : sequence of str
        ``s3://bucket/key``.

    Raises
    ------
    StorageError
        One is not there, or may not be read.
    """
    if not addresses:
        return
    from labkit.storage.looking import look_all

    for address, entry in look_all(addresses).items():
        if isinstance(entry, Exception):
            raise entry
        yield f"{address}\0{entry.size}\0{entry.version}"
