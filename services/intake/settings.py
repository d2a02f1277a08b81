"""What the queue's consumer is told by its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class SettingsError(ValueError):
    """A setting is missing or wrong; the text says which."""


@dataclass(frozen=True)
class Settings:
    """The settings of a consumer.

    Attributes
    ----------
    bucket : str
        The only bucket that messages can name.
    folder : Path
        Where requests and run folders are kept; on a disk that outlives the process.
    backend : str
        Where jobs run.
    options : mapping
        Further options of each submit, e.g. ``batch_folder``.
    queue, dead_letters : str
        Addresses of the SQS queues; ``dead_letters`` gets what can never run, with all problems.
    """

    bucket: str
    folder: Path
    backend: str = "batch"
    options: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""
    dead_letters: str = ""

    @classmethod
    def of_environment(cls) -> Settings:
        """Read ``LABHUB_INTAKE_BUCKET``, ``_FOLDER``, ``_BACKEND``, ``_OPTIONS`` and the queues.

        Raises
        ------
        SettingsError
            One is missing, or is not what it must be.
        """
        bucket, folder = _value("BUCKET"), _value("FOLDER")
        if not bucket or not folder:
            raise SettingsError("LABHUB_INTAKE_BUCKET and LABHUB_INTAKE_FOLDER must be set.")
        try:
            options = json.loads(_value("OPTIONS") or "{}")
        except ValueError as error:
            raise SettingsError(f"LABHUB_INTAKE_OPTIONS is no JSON: {error}.") from error
        if not isinstance(options, dict):
            raise SettingsError("LABHUB_INTAKE_OPTIONS must hold names and values.")
        return cls(
            bucket,
            Path(folder).absolute(),
            _value("BACKEND") or "batch",
            options,
            _value("QUEUE"),
            _value("DEAD_LETTERS"),
        )


def _value(name: str) -> str:
    return os.environ.get(f"LABHUB_INTAKE_{name}", "").strip()
