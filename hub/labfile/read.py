"""Read the lab file: every problem at once, each with its line and a hint."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hub.labfile.schema import Settings
from labkit.base.problems import Problem, ProblemsError

Model = TypeVar("Model", bound=BaseModel)


def read(path: Path) -> Settings:
    """Read and validate a lab file.

    Parameters
    ----------
    path : Path
        The YAML file.

    Returns
    -------
    Settings
        The frozen settings.

    Raises
    ------
    ProblemsError
        With every problem of the file.
    """
    return parse(_text(path), path.name)


def parse(text: str, name: str = "lab.yaml") -> Settings:
    """Validate the text of a lab file; see `read`."""
    return validated(Settings, text, name)


def read_as(model: type[Model], path: Path, name: str = "") -> Model:
    """Read and validate another YAML file of the portal's, as `read` does the lab file.

    Parameters
    ----------
    model : type
        Its schema.
    path : Path
        The file.
    name : str
        What the problems call it; its own name where empty.

    Raises
    ------
    ProblemsError
        With every problem of the file.
    """
    return validated(model, _text(path), name or path.name)


def section(path: Path, key: str, model: type[Model]) -> Model:
    """Read and validate one section of a lab file alone, whatever is wrong in the others.

    Parameters
    ----------
    path : Path
        The lab file.
    key : str
        The section.
    model : type
        Its schema.

    Raises
    ------
    ProblemsError
        The file is no YAML, or the section is wrong.
    """
    node = _document(_text(path), path.name).get(key)
    node = CommentedMap() if node is None else node
    try:
        return model.model_validate(_plain(node))
    except ValidationError as error:
        raise ProblemsError(_problems(model, error, node, path.name, key)) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemsError([Problem(str(path), f"cannot be read: {error}")]) from None


def validated(model: type[Model], text: str, name: str) -> Model:
    """Validate the text of a YAML file; see `read_as`."""
    document = _document(text, name)
    try:
        return model.model_validate(_plain(document))
    except ValidationError as error:
        raise ProblemsError(_problems(model, error, document, name)) from None


def _document(text: str, name: str) -> CommentedMap:
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        what = str(error.problem or error)
        raise ProblemsError([Problem(place, what, "correct the YAML at this line")]) from None
    except YAMLError as error:
        raise ProblemsError([Problem(name, str(error), "correct the YAML")]) from None
    if document is None:
        document = CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ProblemsError([Problem(name, "must be a list of 'key: value' lines")])
    return document


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    return node


def _problems(
    model: type[BaseModel],
    error: ValidationError,
    document: CommentedMap,
    name: str,
    section: str = "",
) -> list[Problem]:
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        where = list(item["loc"])
        line = _line(document, where)
        dotted = ".".join(str(part) for part in ([section] if section else []) + where)
        place = f"{name}:{line}" if line else name
        message = item["msg"].removeprefix("Value error, ")
        hint = ""
        if item["type"] == "extra_forbidden":
            message = f"{where[-1]} is no setting"
            keys = _keys(model, where[:-1])
            near = difflib.get_close_matches(str(where[-1]), keys, n=1)
            known = ", ".join(keys)
            hint = f"did you mean {near[0]}?" if near else f"known here: {known}"
        elif item["type"] == "missing":
            message = f"{where[-1]} is missing"
        problems.append(Problem(f"{place} {dotted}".strip(), message, hint))
    return problems


def _line(document: CommentedMap, where: list[Any]) -> int | None:
    """Line of the deepest part of the place that the file has."""
    node: Any = document
    line: int | None = None
    for part in where:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0] + 1
        else:
            break
        node = node[part]
    return line


def _keys(model: type[BaseModel], where: list[Any]) -> list[str]:
    """Return the keys that the schema knows at a place."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in where:
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or {}
        for option in node.get("anyOf", []):
            if "$ref" in option or option.get("type") == "array":
                node = option
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return sorted(node.get("properties", {}))


def json_schema() -> str:
    """Return the JSON schema of the lab file, for editors."""
    return schema_of(Settings, "Labhub's lab file")


def schema_of(model: type[BaseModel], title: str) -> str:
    """Return the JSON schema of one of the portal's files, for editors."""
    schema = model.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
