"""The lab's own Python, also asked for from a kernel that runs in a personal environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LAB = "LABKIT_LAB_ENVIRONMENT"  # what is below the layer, for processes that may run in the layer


def lab_environment() -> Path:
    """Return the lab's environment: the one below a personal layer, or the one that runs this."""
    return Path(os.environ.get(LAB) or sys.prefix)


def lab_python() -> str:
    """Return the Python to run labkit's own programs with: nothing of a person's hides there."""
    named = lab_environment() / "bin" / "python"
    return str(named) if os.environ.get(LAB) and os.access(named, os.X_OK) else sys.executable
