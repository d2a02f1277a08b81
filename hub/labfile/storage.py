"""The lab file's section ``storage``: homes and shared folders."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from hub.labfile.fields import Bytes, Frozen, GroupName


class SharedFolder(Frozen):
    """A folder of this machine that user servers see at the same path."""

    path: Path
    mode: Literal["ro", "rw"] = "ro"
    groups: tuple[GroupName, ...] = Field(
        (), description="local: whose members alone see it; empty: everybody"
    )

    @field_validator("path")
    @classmethod
    def _no_system_folder(cls, value: Path) -> Path:
        return _shareable(value)


class Scratch(Frozen):
    """A folder for each person, for what need not be kept; seen as ``~/scratch``."""

    path: Path
    days: int = Field(
        30, ge=1, le=3650, description="files that were neither changed nor read for so long go"
    )

    @field_validator("path")
    @classmethod
    def _no_system_folder(cls, value: Path) -> Path:
        return _shareable(value)


class Storage(Frozen):
    """Where homes are, and what people share."""

    homes: Path = Path("/home")
    home_quota: Bytes | None = Field(
        None,
        ge=64 << 20,
        description="local: what each home may hold, where its file system can enforce it",
    )
    shared: tuple[SharedFolder, ...] = ()
    group_folders: Path | None = Field(
        None,
        description="local: for each group of the lab file a folder of its name is made in here,"
        " which its members alone see and write",
    )

    scratch: Scratch | None = Field(None, description="local: scratch folders")

    @field_validator("group_folders")
    @classmethod
    def _no_system_folder(cls, value: Path | None) -> Path | None:
        return value if value is None else _shareable(value)

    def folders(self, groups: Iterable[str]) -> tuple[SharedFolder, ...]:
        """Return all shared folders, those of the lab file's groups among them."""
        top = self.group_folders
        if top is None:
            return self.shared
        own = (SharedFolder(path=top / name, mode="rw", groups=(name,)) for name in groups)
        return (*self.shared, *own)

    def problem(self, target: str, groups: Iterable[str]) -> str:
        """Return what is wrong with the folders on a target; empty: nothing."""
        if self.scratch and target != "local":
            return f"target {target} has no storage.scratch: use the cluster's own"
        limited = self.group_folders or any(one.groups for one in self.shared)
        if limited and target != "local":
            return (
                f"target {target} shows folders as the cluster's own rights say:"
                " remove storage.group_folders and groups of storage.shared"
            )
        paths = [folder.path for folder in self.folders(groups)]
        twice = sorted({str(path) for path in paths if paths.count(path) > 1})
        return f"storage names these folders twice: {', '.join(twice)}" if twice else ""


def seen_by(folders: Iterable[SharedFolder], groups: Collection[str]) -> tuple[SharedFolder, ...]:
    """Return the folders that a member of these groups sees.

    Parameters
    ----------
    folders : iterable of SharedFolder
        All.
    groups : collection of str
        The person's.
    """
    return tuple(
        folder for folder in folders if not folder.groups or set(folder.groups) & set(groups)
    )


def _shareable(value: Path) -> Path:
    if not value.is_absolute() or ".." in value.parts:
        raise ValueError("must be an absolute path without '..'")
    if value == Path("/") or value.parts[1] in ("proc", "sys", "dev", "run", "root", "etc"):
        raise ValueError("a system folder cannot be shared")
    return value
