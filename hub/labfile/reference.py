"""The lab file's reference page, made from the schema so that it cannot be out of date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter

from hub.labfile.schema import Settings
from labkit.base.units import exact_duration, exact_size

HEAD = """# The lab file

Every key of `lab.yaml`. The commented examples are in `config/`; editors that know JSON schema
complete and check the file with `config/lab.schema.json`. `./labhub check` names every mistake.

Sizes are written `512M`, `2G` or `1.5 GB`, durations `30m`, `1h30m`, `2d` or `1-12:00:00`. As in
SLURM 1K is 1024 bytes and 1G 1024M; pages, messages and labkit count the same.
A `[]` after a key means a list of such sections. A key it does not know is an error.
"""


def markdown() -> str:
    """Return the page ``docs/reference/lab-file.md``."""
    return HEAD + tables(Settings)


def tables(model: type[BaseModel]) -> str:
    """Return the keys of a schema, a table for each section."""
    schema = model.model_json_schema()
    out = []
    for path, node in _sections(schema, schema, ""):
        about = str(node.get("description", "")).split("\n\n", 1)[0].replace("\n", " ")
        out.append(f"\n## {f'`{path}`' if path else 'Top level'}\n\n{about}\n")
        out.append("\n| key | value | default | |\n|---|---|---|---|\n")
        required = node.get("required", [])
        for key, value in node["properties"].items():
            default = "**required**" if key in required else _default(schema, value)
            text = value.get("description", "") if "$ref" not in value else ""
            out.append(f"| `{key}` | {_kind(schema, value)} | {default} | {text} |\n")
    return "".join(out)


def _sections(
    schema: dict[str, Any], node: dict[str, Any], path: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for key, value in node["properties"].items():
        below, many = _section(schema, value)
        if below is not None:
            name = f"{path}.{key}" if path else key
            yield from _sections(schema, below, name + ("[]" if many else ""))


def _section(schema: dict[str, Any], value: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """Return the section that a value refers to, and whether it is a list of them."""
    for option in [value, *value.get("anyOf", [])]:
        for node, many in ((option, False), (option.get("items", {}), True)):
            if "$ref" in node:
                definition: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
                return (definition, many) if "properties" in definition else (None, False)
    return None, False


def _kind(schema: dict[str, Any], value: dict[str, Any]) -> str:
    if _section(schema, value)[0] is not None:
        return "section"
    if "x-kind" in value:
        return str(value["x-kind"])
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    for option in value.get("anyOf", []):
        if option.get("type") != "null":
            return _kind(schema, option)
    kind = {"string": "text", "integer": "number", "array": "list", "object": "map"}
    name = str(value.get("type", "string"))
    return kind.get(name, name)


def _default(schema: dict[str, Any], value: dict[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", [], {}) or isinstance(default, dict | list):
        return ""
    kind = _kind(schema, value)
    if kind == "duration":
        default = exact_duration(TypeAdapter(timedelta).validate_python(default))
    elif kind == "size":
        default = exact_size(default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
