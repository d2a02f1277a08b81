"""A pipeline as CellProfiler itself has it: modules and settings, after any upgrade."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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
    reads : tuple of str
        Names of the images that it asks for.
    """

    number: int
    name: str
    settings: tuple[tuple[str, str], ...]
    enabled: bool = True
    reads: tuple[str, ...] = ()

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
        settings: list[dict[str, str]] = []
        for text, value in self.settings:
            if text == first:
                settings.append({})
            if settings:
                settings[-1].setdefault(text, value)
        return settings

    def __str__(self) -> str:
        return f"{self.name} (module {self.number})"


@dataclass(frozen=True)
class Findings:
    """What CellProfiler said when it loaded a pipeline.

    Attributes
    ----------
    version : str
        Of CellProfiler.
    dropped, invalid : tuple of dict
        Modules that it cannot load, and modules whose settings it does not accept.
    across : tuple of int
        Numbers of modules that aggregate over image sets.
    embedded : int
        Files in a list that the pipeline carries; tasks run without it.
    error : str
        Why the pipeline cannot be run at all.
    """

    version: str = ""
    dropped: tuple[dict[str, str], ...] = ()
    invalid: tuple[dict[str, str], ...] = ()
    across: tuple[int, ...] = ()
    embedded: int = 0
    error: str = ""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that CellProfiler loaded; :func:`labkit.workflows.cellprofiler.probe.load` does.

    Attributes
    ----------
    path : Path
        The file that a person gave.
    modules : tuple of Module
        All of them, disabled ones too.
    text : str
        What CellProfiler wrote after it had loaded (and upgraded) the file: this is what tasks
        run.
    findings : Findings
        What it said.
    """

    path: Path
    modules: tuple[Module, ...]
    text: str = field(repr=False)
    findings: Findings = Findings()

    @cached_property
    def enabled(self) -> tuple[Module, ...]:
        """The modules that CellProfiler runs."""
        return tuple(module for module in self.modules if module.enabled)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what tasks run."""
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

    @property
    def images_read(self) -> frozenset[str]:
        """Names of the images that enabled modules read."""
        return frozenset(name for module in self.enabled for name in module.reads)


_NOT_NAMES = frozenset({"", "None", "Do not use", "Leave blank"})


def split_names(value: str) -> tuple[str, ...]:
    """Split a comma-separated list of names, leaving out "None" and the like."""
    parts = (part.strip() for part in value.split(","))
    return tuple(part for part in parts if part not in _NOT_NAMES)
