"""An object or a file, without its content."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """An object, or a file.

    Attributes
    ----------
    address : str
        Its address; ends with ``/`` where it stands for all that is below.
    size : int
        Bytes; 0 for a folder.
    changed : float
        When it was written, seconds since 1970; 0 for a folder.
    version : str
        What changes when the content does: an object's ETag, a file's size and time.
    storage_class : str
        ``"STANDARD"``, ``"GLACIER"``, …; empty for files.
    digest : str
        SHA-256 of the content as hex, where it is known without reading it; else empty.
    """

    address: str
    size: int = 0
    changed: float = 0.0
    version: str = ""
    storage_class: str = ""
    digest: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it stands for all that is below it."""
        return self.address.endswith("/")
