"""The version, which stands in one place: ``pyproject.toml``."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def version() -> str:
    """Return the version of the sources that this file belongs to, or else of what is installed."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        import tomllib  # a checkout: the hub and the tests run from one

        declared = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if declared.get("name") == "labhub":
            return str(declared["version"])
    return metadata.version("labhub")


__version__ = version()
