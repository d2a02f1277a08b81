"""What images/ says of an environment: the files that it is made from, and their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hub.state.paths import REPOSITORY

IMAGES = REPOSITORY / "images"
PROXY = "proxy"  # no Python: configurable-http-proxy, by npm


def image(name: str) -> Path:
    """Return the folder of an environment in images/."""
    return IMAGES / name


def lock(name: str) -> Path:
    """Return an environment's hashed lock."""
    return (
        IMAGES / "hub" / "package-lock.json" if name == PROXY else image(name) / "requirements.lock"
    )


def jars(name: str) -> Path:
    """Return the lock of an environment's jars, which need not be there."""
    return image(name) / "jars.lock"


def sources_digest(name: str) -> str:
    """Return one SHA-256 over what says how programs are compiled."""
    return digest(image(name) / "sources.lock", image(name) / "build")


def programs(name: str) -> list[Path]:
    """Return the programs that call the jars."""
    return sorted((image(name) / "bin").glob("*"))


def verify_script(name: str) -> Path:
    """Return the program that proves that an environment works."""
    return IMAGES / "hub" / "verify-proxy" if name == PROXY else image(name) / "verify"


def labkit_sources() -> list[Path]:
    """Return all that goes into labkit's wheel, in a fixed order."""
    files = [REPOSITORY / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    files += sorted(IMAGES.glob("*/requirements.in"))
    files += sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    for path in sorted((REPOSITORY / "labkit").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files.append(path)
    return files


def digest(*files: Path) -> str:
    """Return one SHA-256 over files; a lone file's is what sha256sum prints."""
    if len(files) == 1:
        return hashlib.sha256(files[0].read_bytes()).hexdigest() if files[0].is_file() else ""
    lines = "".join(f"{digest(file)}  {file.relative_to(REPOSITORY)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
