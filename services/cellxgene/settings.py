"""What an administrator may set: ``settings.json`` in the app's data folder, all optional."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from services.appkit.published.records import Frozen


class Settings(Frozen):
    """What published datasets may take, and where they are.

    Attributes
    ----------
    store : str
        ``s3://bucket/prefix``; empty is the folder ``datasets`` in the app's data folder.
    memory : int or None
        Bytes for all viewers together; None is what the app's own limit leaves.
    idle_minutes : float
        After so long without use a viewer is stopped.
    spare_disk : int
        Bytes of the disk that are never filled.
    cache : int
        Bytes for local copies of data in S3.
    """

    store: Annotated[str, StringConstraints(pattern=r"^(s3://[\w./=-]+)?$")] = ""
    memory: int | None = Field(None, ge=1 << 28)
    idle_minutes: float = Field(30, gt=0, le=10_000)
    spare_disk: int = Field(1 << 30, ge=0)
    cache: int = Field(100 << 30, ge=1 << 28)
