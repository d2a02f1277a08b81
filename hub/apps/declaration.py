"""The schema of ``service.yaml``: one web app of the lab, frozen, unknown keys refused."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from hub.labfile.fields import Bytes, Duration, Frozen, GroupName, Slug

FILE = "service.yaml"
# With the portal's own beginning it becomes a Unix account, whose names have 32 characters.
NAME = r"^[a-z](?:-?[a-z0-9])*$"
NAME_LENGTH = 22
PLACES = ("socket", "host", "port", "prefix", "folder", "data", "url")
RESERVED = frozenset({"gate", "hub", "proxy", "culler", "supervisor", "user", "services"})

_PLACE = re.compile(r"\{([^{}]*)\}")
_RELATIVE = r"^[A-Za-z0-9_-][\w. -]*(?:/[A-Za-z0-9_-][\w. -]*)*$"
# What the portal itself says to an app, and what would change how its program is found.
_OWN_VARIABLES = re.compile(r"LABHUB_|JUPYTERHUB_|LD_|(?:PATH|HOME|USER|PYTHONPATH|SHELL)$")

# The gate's own words, and what belongs to one connection alone.
_OWN_HEADERS = re.compile(
    r"x-labhub-|x-forwarded-|forwarded$|host$|cookie$|connection$|upgrade$|te$|trailer$"
    r"|transfer-encoding$|content-length$|keep-alive$|proxy-",
    re.IGNORECASE,
)

ServiceName = Annotated[str, StringConstraints(pattern=NAME, max_length=NAME_LENGTH)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Inside = Annotated[str, StringConstraints(pattern=_RELATIVE, max_length=200)]


class Service(Frozen):
    """One web app of the lab, behind the login.

    Everything that an app is: who may open it, how it is started, what it may use. The file
    lies beside the app's code; its folder's name is the app's name.
    """

    title: str = Field(min_length=1, max_length=60, description="on its card")
    description: str = Field("", max_length=300, description="one sentence on its card")
    thumbnail: str | None = Field(
        None, pattern=_RELATIVE, description="a PNG, JPEG or SVG file of the folder, for its card"
    )
    groups: tuple[GroupName, ...] = Field(
        (), description="who may open it; empty: everybody who can log in"
    )
    default: bool = Field(
        False, description="shipped apps: part of every portal, until `labhub app remove`"
    )
    command: tuple[Word, ...] = Field(
        min_length=1,
        description="program and arguments, no shell; `{socket}` and the like are filled in",
    )
    environment: Slug = Field(
        "hub", description="the environment of images/ whose programs it is started with"
    )
    variables: dict[Variable, Word] = Field(
        default_factory=dict, description="more environment variables; places are filled in"
    )
    listen: Literal["socket", "port"] = Field(
        "socket", description="a Unix socket, or, for apps that cannot, `{host}:{port}`"
    )
    strip_prefix: bool = Field(
        False, description="the app sees `/x` for `/services/<name>/x`, instead of the whole path"
    )
    health: str = Field(
        "",
        pattern=r"^[\w.~/-]{0,200}$",
        description="path below the prefix that answers (any status below 500) once it is ready",
    )
    start_timeout: Duration = Field(
        timedelta(minutes=1), description="not ready by then: it is shown as down"
    )
    idle: Duration | None = Field(
        timedelta(minutes=30), description="stopped after so long without use; null: never"
    )
    always: bool = Field(False, description="started with the portal, not on first use")
    cpu: float = Field(1.0, gt=0, le=1024, description="cores")
    memory: Bytes = Field(1 << 30, ge=64 << 20)
    processes: int = Field(256, ge=16, le=100_000, description="processes and threads at once")
    shared_folders: bool = Field(False, description="it sees the lab file's `storage.shared`")
    backup: tuple[Inside, ...] = Field(
        (),
        description="files and folders of `{data}` that `labhub backup` saves; databases of"
        " SQLite also while they are written",
    )
    headers: tuple[Header, ...] = Field(
        (),
        description="request headers that reach it beside the common ones; any client can send"
        " anything in them: none says who asks",
    )
    user_written: bool = Field(
        False,
        description="a member's own code: refused where all is on one origin, or without root",
    )

    @field_validator("command")
    @classmethod
    def _program_is_found(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "/" in value[0] and not value[0].startswith(("{folder}/", "/")):
            raise ValueError("the program is a name in the environment, or begins with {folder}/")
        return value

    @field_validator("variables")
    @classmethod
    def _not_the_portals(cls, value: dict[str, str]) -> dict[str, str]:
        taken = sorted(name for name in value if _OWN_VARIABLES.match(name))
        if taken:
            raise ValueError(f"the portal itself sets {', '.join(taken)}")
        return value

    @field_validator("headers")
    @classmethod
    def _not_the_gates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = sorted(name for name in value if _OWN_HEADERS.match(name))
        if taken:
            raise ValueError(f"the gate itself sets {', '.join(taken)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        words = [*self.command, *self.variables.values()]
        unknown = sorted({p for w in words for p in _PLACE.findall(w)} - set(PLACES))
        if unknown:
            known = ", ".join(f"{{{place}}}" for place in PLACES)
            raise ValueError(f"no such place: {{{unknown[0]}}}; there are {known}")
        if self.always and self.idle is not None and "idle" in self.model_fields_set:
            raise ValueError("always: true and idle do not go together: say idle: null")
        return self

    @property
    def stops_after(self) -> timedelta | None:
        """How long it may be unused; None: it goes on."""
        return None if self.always else self.idle


def filled(words: tuple[str, ...] | list[str], places: dict[str, str]) -> list[str]:
    """Return words with their places filled in; a value is never read for places again."""
    return [_PLACE.sub(lambda match: places[match[1]], word) for word in words]


def name_problem(name: str) -> str:
    """Say what is wrong with an app's name; empty where it is right."""
    if not re.fullmatch(NAME, name) or len(name) > NAME_LENGTH:
        return (
            f"a name has up to {NAME_LENGTH} small letters, digits and single hyphens,"
            " and begins with a letter"
        )
    return f"{name!r} is a name of the portal's own" if name in RESERVED else ""


def thumbnail_of(service: Service, folder: Path) -> Path | None:
    """Return the file of a service's thumbnail, where it is there."""
    if service.thumbnail is None:
        return None
    file = (folder / service.thumbnail).resolve()
    return file if file.is_file() and folder.resolve() in file.parents else None
