"""The checksums of what a task has written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import layout

_BLOCK = 4 * 1024 * 1024


def write_checksums(out: Path) -> None:
    """Write the SHA-256 of all files, as ``sha256sum -c`` reads them."""
    lines = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        lines.append(f"{digest.hexdigest()}  {path.relative_to(out)}\n")
    (out / layout.CHECKSUMS).write_text("".join(lines))
