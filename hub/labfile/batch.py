"""The lab file's section ``batch``: what everybody's jobs on AWS Batch have in common."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import Field, StringConstraints, field_validator

from hub.labfile.fields import Frozen, Slug
from hub.labfile.slurm import plain_path

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")]
_PASSWORD = re.compile(r"://[^/]*@")


class Batch(Frozen):
    """AWS Batch for everybody's jobs: ``job.submit("batch")`` needs no options then.

    Keys are no setting: people have their own, or servers run with a role; see
    [Jobs on AWS Batch](../how-to/jobs-on-batch.md).
    """

    queue: str = Field(description="the job queue")
    folder: str = Field(
        description="s3://bucket/prefix for what nodes and people exchange; below it each person"
        " has a prefix"
    )
    images: dict[Slug, str] = Field(
        description="environment: image, best by digest; `worker` is for commands without one"
    )
    role: str = Field("", description="ARN of the role that jobs have; default: the instance's")
    mounted: tuple[Path, ...] = Field(
        (), description="folders that nodes see as user servers do (EFS, FSx for Lustre)"
    )
    region: Region | None = Field(
        None, description="of the queue, for all that servers ask of AWS; default: people's own"
    )
    endpoint: str | None = Field(
        None, description="web address of what answers in place of AWS, for all its services"
    )

    @field_validator("mounted")
    @classmethod
    def _plain_folders(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in value:
            if os.pathsep in str(plain_path(folder)):
                raise ValueError(f"must hold no {os.pathsep!r}")
        return value

    @field_validator("endpoint")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("must be a web address (http:// or https://)")
            if _PASSWORD.search(value):
                raise ValueError("must hold no password")
        return value

    def options(self, person: str) -> dict[str, object]:
        """Return the options of a person's jobs, as a submit would say them.

        Parameters
        ----------
        person : str
            Whose prefix.
        """
        return {
            "queue": self.queue,
            "folder": f"{self.folder.rstrip('/')}/{quote(person, safe='@')}",
            "images": dict(self.images),
            "role": self.role,
            "mounted": [str(folder) for folder in self.mounted],
        }

    def variables(self, person: str) -> dict[str, str]:
        """Return the environment variables that make them the defaults of a person's server.

        Parameters
        ----------
        person : str
            Whose server.
        """
        options = self.options(person)
        said = {
            "LABKIT_BATCH_QUEUE": self.queue,
            "LABKIT_BATCH_FOLDER": str(options["folder"]),
            "LABKIT_BATCH_IMAGES": json.dumps(options["images"], sort_keys=True),
            "LABKIT_BATCH_ROLE": self.role,
            "LABKIT_BATCH_MOUNTED": os.pathsep.join(map(str, self.mounted)),
            "AWS_DEFAULT_REGION": self.region or "",
            "AWS_ENDPOINT_URL": self.endpoint or "",
        }
        return {name: value for name, value in said.items() if value}
