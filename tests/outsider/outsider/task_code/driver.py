"""Runs on the node: this whole package was copied into the run folder."""

import json
from pathlib import Path

from . import words


def run(task):
    """Count the words of the task's file."""
    text = Path(task.params["file"]).read_text()
    number = words.count(text, task.params["longer_than"])
    (task.out / "words.json").write_text(json.dumps({"words": number}))
