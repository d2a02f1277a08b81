"""What a submit to AWS Batch can say, and what the portal says for everybody."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.errors import AddressError

HELP: Mapping[str, str] = {
    "queue": "job queue; default: $LABKIT_BATCH_QUEUE",
    "folder": "s3://bucket/prefix for what nodes and you exchange; default: $LABKIT_BATCH_FOLDER",
    "images": "environment -> image address; default: $LABKIT_BATCH_IMAGES, as JSON",
    "role": "ARN of the role that jobs have; default: $LABKIT_BATCH_ROLE, else the instance's",
    "mounted": "folders that the nodes see as you do (EFS, FSx), as a list; others are refused; "
    "default: $LABKIT_BATCH_MOUNTED, with : between them",
}
_QUEUE = re.compile(r"[A-Za-z0-9][\w:/-]{0,255}", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII)
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]{1,256}", re.ASCII)


@dataclass(frozen=True)
class Options:
    """The options of one submission.

    Attributes
    ----------
    queue : str
        The job queue.
    folder : ObjectAddress
        Below which run folders are exchanged.
    images : mapping of str to str
        Environment -> image.
    role : str
        ARN; may be empty.
    mounted : tuple of Path
        Folders that the nodes see.
    """

    queue: str
    folder: ObjectAddress
    images: Mapping[str, str]
    role: str
    mounted: tuple[Path, ...]


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a submission's options with what the environment says, as plain JSON."""
    known: dict[str, Any] = {
        "queue": os.environ.get("LABKIT_BATCH_QUEUE"),
        "folder": os.environ.get("LABKIT_BATCH_FOLDER"),
        "images": os.environ.get("LABKIT_BATCH_IMAGES"),
        "role": os.environ.get("LABKIT_BATCH_ROLE"),
        "mounted": list(filter(None, os.environ.get("LABKIT_BATCH_MOUNTED", "").split(os.pathsep))),
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {**{name: value for name, value in known.items() if value}, **given}


def read(options: Mapping[str, Any]) -> tuple[Options | None, list[Problem]]:
    """Return the options as they are meant, and what is wrong with them.

    Returns
    -------
    tuple
        None where something is wrong.
    """
    problems = []
    chosen = complete(options)
    queue = chosen.get("queue", "")
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        hint = "Give the name of a job queue; the lab file can name one for all (batch:)."
        problems.append(Problem("batch_queue", f"{queue!r} is no job queue.", hint))
    folder: Any = None
    try:
        folder = parse(chosen.get("folder", ""))
    except (AddressError, TypeError) as error:
        problems.append(Problem("batch_folder", f"{error}"))
    else:
        if not isinstance(folder, ObjectAddress):
            hint = "Give s3://bucket/prefix; the lab file can name one for all (batch:)."
            problems.append(Problem("batch_folder", f"{folder} is no address in S3.", hint))
    images = chosen.get("images", {})
    if isinstance(images, str):
        try:
            images = json.loads(images)
        except ValueError:
            images = None
    if not isinstance(images, Mapping) or not all(
        isinstance(image, str) and _IMAGE.fullmatch(image) for image in images.values()
    ):
        hint = "Write it like {'alignment': 'registry/alignment@sha256:…'}."
        problems.append(Problem("batch_images", f"{images!r} names no images.", hint))
    role = chosen.get("role", "")
    if role and not (isinstance(role, str) and _ROLE.fullmatch(role)):
        problems.append(Problem("batch_role", f"{role!r} is no ARN of a role."))
    mounted = chosen.get("mounted", ())
    if isinstance(mounted, str | Path):
        mounted = [mounted]
    if problems:
        return None, problems
    return Options(queue, folder, dict(images), role, tuple(map(Path, mounted))), []
