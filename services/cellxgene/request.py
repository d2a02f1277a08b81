"""What a notebook announces before it sends a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from labkit.base.problems import Problem
from labkit.portal.datasets.rules import (
    THUMBNAIL_BYTES,
    THUMBNAIL_PIXELS,
    check_name,
    check_texts,
    is_thumbnail,
)
from services.cellxgene.records import Digest, Frozen, Source, Text

_MOST = 1 << 44  # bytes; beyond it a number is a mistake


class Request(Frozen):
    """An announced version.

    Attributes
    ----------
    name : str
        The dataset's name.
    groups : list of str or None
        Who may see it; None keeps what was.
    title, description, organism, tissue : str or None
        For the catalogue; None keeps what was.
    size, sha256 : int, str
        Of the file to come.
    cells, genes, need : int
        What the sender says: it is refused early by these, and accepted by none of them.
    source, software, changes
        Provenance, see `Version`.
    thumbnail : bytes or None
        A PNG.
    """

    name: str
    groups: list[str] | None = None
    title: str | None = None
    description: str | None = None
    organism: str | None = None
    tissue: str | None = None
    size: int = Field(ge=1, le=_MOST)
    sha256: Digest
    cells: int = Field(0, ge=0, le=_MOST)
    genes: int = Field(0, ge=0, le=_MOST)
    need: int = Field(0, ge=0, le=_MOST)
    source: Source
    software: dict[Text, Text] = Field(default_factory=dict, max_length=20)
    changes: tuple[tuple[Text, Text], ...] = Field((), max_length=2000)
    thumbnail: bytes | None = None

    @field_validator("thumbnail", mode="before")
    @classmethod
    def _picture(cls, value: Any) -> bytes | None:
        if value is None:
            return None
        try:
            content = base64.b64decode(str(value), validate=True)
        except binascii.Error:
            content = b""
        if not is_thumbnail(content):
            raise ValueError(
                f"a PNG of at most {THUMBNAIL_PIXELS} pixels a side and {THUMBNAIL_BYTES // 1000} "
                "kB is needed"
            )
        return content


def parse(name: str, fields: Mapping[str, Any]) -> tuple[Request | None, list[Problem]]:
    """Return the request, or all that is wrong with it.

    Parameters
    ----------
    name : str
        From the address.
    fields : mapping
        From the body.
    """
    problems = [*check_name(name), *check_texts(fields)]
    if "name" in fields:
        problems.append(Problem("name", "it belongs into the address."))
    given = {key: value for key, value in fields.items() if key != "name"}
    try:
        request = Request.model_validate({**given, "name": name})
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            place = ".".join(map(str, one["loc"]))
            problems.append(Problem(place, str(one["msg"])))
        return None, problems
    return (None if problems else request), problems
