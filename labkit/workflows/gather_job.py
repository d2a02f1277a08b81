"""A job whose last stage gathers: where its results are, and what the gather said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit.base.problems import LabkitError
from labkit.jobs.job import Job


class GatheredJob(Job):
    """A job with a stage ``gather`` that writes ``gather.json`` at its end."""

    @property
    def gathered(self) -> Path:
        """Folder of the gathered results.

        Raises
        ------
        LabkitError
            The gather has not ended well (yet); the text says what to do.
        """
        notes = sorted(self.run.folder.results.glob("gather/*/gather.json"))
        if not notes:
            raise LabkitError(
                f"{self.name} has no gathered results yet: it is {self.state}. "
                "job.wait() waits for them; job.failed() tells what went wrong."
            )
        return notes[0].parent

    @property
    def summary(self) -> dict[str, Any]:
        """What the gather found: tables with their rows, what failed and why."""
        content: dict[str, Any] = json.loads((self.gathered / "gather.json").read_text())
        return content
