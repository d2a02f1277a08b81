"""SHA-256 of what is moved."""

from __future__ import annotations

import hashlib
from pathlib import Path

Sha256 = hashlib.sha256


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
