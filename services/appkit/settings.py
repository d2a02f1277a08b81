"""What an administrator may set of an app: a JSON file in its data folder, all optional."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from labkit.base.problems import Problem, ProblemsError

FILE = "settings.json"
M = TypeVar("M", bound=BaseModel)


def read(data: Path, model: type[M]) -> M | None:
    """Return the settings of an app's data folder; None where there is no file.

    Parameters
    ----------
    data : Path
        The folder.
    model : type
        What they must be.

    Raises
    ------
    ProblemsError
        With all that is wrong in the file.
    """
    file = data / FILE
    if not file.exists():
        return None
    try:
        return model.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ProblemsError(_problems(file, error)) from None


def _problems(file: Path, error: ValidationError) -> Iterator[Problem]:
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(map(str, one["loc"]))
        text = f"is no JSON: {one['msg']}" if one["type"] == "json_invalid" else one["msg"]
        yield Problem(f"{file} {place}".rstrip(), f"{text}.")
