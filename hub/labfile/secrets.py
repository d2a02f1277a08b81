"""The lab file's section ``secrets``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from hub.labfile.fields import Frozen


class Secrets(Frozen):
    """Where secrets come from that the portal does not make itself."""

    mounted: Path | None = Field(
        None,
        description="a folder into which another program mounts secrets (a Kubernetes Secret,"
        " systemd's credentials): a file there may be readable by the portal's group, and goes"
        " before the one in the secrets folder",
    )

    @field_validator("mounted")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and (not value.is_absolute() or ".." in value.parts):
            raise ValueError("must be an absolute path without '..'")
        return value
