"""The lab's own Python, also asked for from a kernel that runs in a personal environment."""

from __future__ import annotations

import os
import sys

LAB_PYTHON = "LABKIT_LAB_PYTHON"


def lab_python() -> str:
    """Return the Python to run labkit's own programs with: nothing of a person's hides there."""
    named = os.environ.get(LAB_PYTHON, "")
    return named if named and os.access(named, os.X_OK) else sys.executable
