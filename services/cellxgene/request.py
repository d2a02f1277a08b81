"""What a notebook says of a dataset: an announced version, or a change."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic import Field, field_validator

from labkit.base.units import format_size
from labkit.portal.datasets.rules import THUMBNAIL_BYTES, THUMBNAIL_PIXELS, is_thumbnail
from services.appkit.published import statements
from services.appkit.published.records import Digest
from services.cellxgene.records import Source, Text

_MOST = 1 << 44  # bytes; beyond it a number is a mistake


class Change(statements.Change):
    """What changes of a dataset; None keeps what was.

    Attributes
    ----------
    organism, tissue : str or None
        For the catalogue.
    """

    organism: str | None = None
    tissue: str | None = None


class Announcement(statements.Statement):
    """An announced version; what it does not say of the dataset stays.

    Attributes
    ----------
    organism, tissue : str or None
        For the catalogue; None keeps what was.
    size, sha256 : int, str
        Of the file to come, in bytes.
    cells, genes, need : int
        What the sender says: it is refused early by these, and accepted by none of them.
    source, software, changes
        Provenance, see `Version`.
    thumbnail : bytes or None
        A PNG.
    """

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
                f"a PNG of at most {THUMBNAIL_PIXELS} pixels a side and "
                f"{format_size(THUMBNAIL_BYTES)} is needed"
            )
        return content
