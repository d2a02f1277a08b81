"""Read a CellProfiler pipeline as text, without importing CellProfiler."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

HEADER = "CellProfiler Pipeline: http"
INPUT_MODULES = ("Images", "Metadata", "NamesAndTypes", "Groups")


class PipelineError(ValueError):
    """The file is not a pipeline that can be read; the text says why and what to do."""


@dataclass(frozen=True)
class Module:
    """One module of a pipeline.

    Attributes
    ----------
    number : int
        Its place in the pipeline, from 1, as CellProfiler counts (disabled ones included).
    name : str
        For example ``IdentifyPrimaryObjects``.
    settings : tuple of (str, str)
        Setting's text and value, in order; a text can occur more than once.
    enabled : bool
        Whether CellProfiler runs it.
    revision : int
        The ``variable_revision_number``: which version of its settings this is.
    """

    number: int
    name: str
    settings: tuple[tuple[str, str], ...]
    enabled: bool = True
    revision: int = 0

    def get(self, text: str, default: str = "") -> str:
        """Return the value of the first setting with this text."""
        return next((value for name, value in self.settings if name == text), default)

    def all(self, text: str) -> list[str]:
        """Return the values of every setting with this text."""
        return [value for name, value in self.settings if name == text]

    def yes(self, text: str) -> bool:
        """Return whether a yes/no setting is on."""
        return self.get(text).strip().lower() in ("yes", "true")

    def blocks(self, first: str) -> list[dict[str, str]]:
        """Split repeated settings into one dictionary for each time ``first`` occurs."""
        found: list[dict[str, str]] = []
        for text, value in self.settings:
            if text == first:
                found.append({})
            if found:
                found[-1].setdefault(text, value)
        return found

    def __str__(self) -> str:
        return f"{self.name} (module {self.number})"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file.

    Attributes
    ----------
    path : Path
    modules : tuple of Module
        All of them, disabled ones too.
    text : str
        The file as it is.
    """

    path: Path
    modules: tuple[Module, ...]
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Pipeline:
        """Read a ``.cppipe`` or ``.json`` file.

        Raises
        ------
        PipelineError
            If it does not exist, is a project (``.cpproj``), or is not a pipeline.
        """
        path = Path(path).expanduser().resolve()
        if not path.is_file():
            raise PipelineError(f"there is no pipeline at {path}")
        data = path.read_bytes()
        if data.startswith(b"\x89HDF"):
            raise PipelineError(
                f"{path.name} is a CellProfiler project or batch file; "
                "export the pipeline instead (File > Export > Pipeline)"
            )
        text = data.decode("utf-8", errors="replace").lstrip("\ufeff")
        if path.suffix == ".json":
            modules = tuple(_read_json(text, path))
        elif text.startswith(HEADER):
            modules = tuple(_read_text(text, path))
        else:
            raise PipelineError(f"{path.name} does not begin like a CellProfiler pipeline")
        if not modules:
            raise PipelineError(f"{path.name} holds no modules")
        return cls(path, modules, text)

    @cached_property
    def enabled(self) -> tuple[Module, ...]:
        """The modules that CellProfiler runs."""
        return tuple(module for module in self.modules if module.enabled)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def named(self, *names: str) -> list[Module]:
        """Return the enabled modules of some kinds."""
        return [module for module in self.enabled if module.name in names]

    def first(self, name: str) -> Module | None:
        """Return the first enabled module of a kind, if there is one."""
        return next(iter(self.named(name)), None)

    @property
    def loads_data(self) -> bool:
        """Whether images come from a LoadData CSV and not from a list of files."""
        return self.first("LoadData") is not None

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The metadata by which the pipeline itself groups its image sets."""
        load = self.first("LoadData")
        if load is not None:
            if not load.yes("Group images by metadata?"):
                return ()
            return split_names(load.get("Select metadata tags for grouping"))
        module = self.first("Groups")
        if module is None or not module.yes("Do you want to group your images?"):
            return ()
        return tuple(name for name in module.all("Metadata category") if name != "None")

    @cached_property
    def loaded_images(self) -> tuple[str, ...]:
        """The image names that NamesAndTypes gives."""
        module = self.first("NamesAndTypes")
        if module is None:
            return ()
        if module.get("Assign a name to") == "All images":
            return (module.get("Name to assign these images"),)
        return tuple(
            block["Name to assign these images"]
            for block in module.blocks("Select the rule criteria")
            if block.get("Select the image type", "") != "Objects"
            and "Name to assign these images" in block
        )

    @cached_property
    def made(self) -> frozenset[str]:
        """Names of images and objects that the pipeline's own modules make."""
        names: set[str] = set()
        for module in self.enabled:
            if module.name in (*INPUT_MODULES, "LoadData"):
                continue
            for text, value in module.settings:
                if _GIVES_NAME.search(text):
                    names.update(split_names(value))
        return frozenset(names)

    @cached_property
    def used_images(self) -> dict[str, Module]:
        """Image names that modules read, each with the first module that does."""
        used: dict[str, Module] = {}
        for module in self.enabled:
            if module.name in (*INPUT_MODULES, "LoadData"):
                continue
            for text, value in module.settings:
                if _TAKES_IMAGE.search(text) and not _GIVES_NAME.search(text):
                    for name in split_names(value):
                        used.setdefault(name, module)
        return used

    @cached_property
    def exports(self) -> tuple[str, ...]:
        """Objects (or ``Image``, ``Experiment``) that are exported; ``("*",)`` is everything."""
        names: list[str] = []
        for module in self.named("ExportToSpreadsheet"):
            if module.yes("Export all measurement types?"):
                return ("*",)
            names += module.all("Data to export")
        return tuple(dict.fromkeys(names))


# Settings that name something new ("Name the output image"), and settings that read an image.
_GIVES_NAME = re.compile(r"^(Name the|Name to assign|Enter the name|Enter the image name)")
_TAKES_IMAGE = re.compile(
    r"^(Select (the |an? )?(input |source |)images?\b(?! type| to save as| name)"
    r"|Select the illumination function|Select images? to |Select the images? to )"
)
_NOT_NAMES = frozenset({"", "None", "Do not use", "Leave blank"})


def split_names(value: str) -> tuple[str, ...]:
    """Split a comma-separated list of names, leaving out "None" and the like."""
    parts = (part.strip() for part in value.split(","))
    return tuple(part for part in parts if part not in _NOT_NAMES)


def _read_text(text: str, path: Path) -> Iterator[Module]:
    """Read the text format: modules parted by blank lines, their settings indented."""
    number = 0
    head: re.Match[str] | None = None
    settings: list[tuple[str, str]] = []
    lines = text.splitlines()
    for line in [*lines, ""]:
        if head is not None and line.startswith("    "):
            name, _, value = line.strip("\n")[4:].partition(":")
            settings.append((name, _decode(value)))
            continue
        if head is not None:
            yield _module(number, head, tuple(settings))
            head, settings = None, []
        match = re.match(r"(\w+):\[(.*)\]\s*$", line)
        if match:
            number += 1
            head = match
    declared = next((line for line in lines[:10] if line.startswith("ModuleCount:")), "")
    if declared and int(declared.partition(":")[2]) != number:
        raise PipelineError(
            f"{path.name} is incomplete: it says it has {declared.partition(':')[2]} modules, "
            f"but {number} are in it"
        )


def _module(number: int, head: re.Match[str], settings: tuple[tuple[str, str], ...]) -> Module:
    attributes = head[2]
    enabled = re.search(r"\|enabled:(\w+)", attributes)
    revision = re.search(r"variable_revision_number:(\d+)", attributes)
    return Module(
        number,
        head[1],
        settings,
        enabled is None or enabled[1] == "True",
        int(revision[1]) if revision else 0,
    )


def _decode(value: str) -> str:
    r"""Undo CellProfiler's escapes (``\x5B``) in a setting's value."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), value)


def _read_json(text: str, path: Path) -> Iterator[Module]:
    """Read the JSON format ("v6")."""
    try:
        content = json.loads(text)
        for number, module in enumerate(content["modules"], 1):
            attributes = module["attributes"]
            settings = tuple((str(s["text"]), str(s["value"])) for s in module["settings"])
            yield Module(
                number,
                str(attributes["module_name"]),
                settings,
                bool(attributes.get("enabled", True)),
                int(attributes.get("variable_revision_number", 0)),
            )
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path.name} is not a pipeline in JSON: {error!r}") from error
