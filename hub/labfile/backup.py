"""The lab file's section `backup`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from hub.labfile.fields import Bytes, Duration, Frozen

_PLACE = re.compile(r"(?:sftp|s3|rest|rclone|azure|gs|b2|swift):[A-Za-z0-9].*|sftp://.*|/.*")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")


def check_address(value: str) -> str:
    """Return the address of a repository of backups as it is.

    Raises
    ------
    ValueError
        It is none, or holds a password.
    """
    if not _PLACE.fullmatch(value) or not value.isprintable():
        raise ValueError("must be a folder (/mnt/backup) or like sftp:user@host:/folder, s3:...")
    if value.startswith("/") and ".." in PurePosixPath(value).parts:
        raise ValueError("must be a folder without '..'")
    if _PASSWORD.search(value):
        raise ValueError("must hold no password: secrets/backup_env is for that")
    return value


class Backup(Frozen):
    """What `labhub backup` saves, and where; see [Administer](../how-to/administer.md)."""

    to: str | None = Field(
        None, description="another place for backups: a repository of restic (its address)"
    )
    homes: bool = Field(False, description="people's homes, too, at that place")
    keep_daily: int = Field(7, ge=1, le=3660, description="at that place: one for so many days")
    keep_weekly: int = Field(5, ge=0, le=520, description="and one for so many weeks")
    keep_monthly: int = Field(12, ge=0, le=1200, description="and one for so many months")
    home_size: Bytes = Field(
        2 << 40, ge=1 << 20, description="a home that holds more is left out, by name"
    )
    home_time: Duration = Field(
        timedelta(hours=6), description="a home that is not saved within this is left out, by name"
    )
    app_size: Bytes = Field(
        64 << 30, ge=1 << 20, description="an app that has stored more is left out, by name"
    )
    app_time: Duration = Field(
        timedelta(minutes=30),
        description="an app that cannot be copied within this is left out, by name",
    )

    @field_validator("to")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return value if value is None else check_address(value)
