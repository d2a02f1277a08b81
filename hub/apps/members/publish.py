"""Who may do what with members' apps, and what an app becomes when they do it.

Everything is checked here, on the portal's side, whatever the notebook has checked before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from hub.apps import catalogue
from hub.apps.declaration import name_problem
from hub.apps.members import declare, records, store
from hub.apps.members.records import Record, Version
from hub.labfile.fields import Frozen
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError
from labkit.portal.webapps.rules import check_audience, check_name, check_size, check_texts
from services.member_apps import SYSTEM_PATH

_LOCK_TIMEOUT = 120.0  # seconds

Text = Annotated[str, StringConstraints(max_length=1000)]
VERSIONS_MOST = 200


class RefusedPublishError(ProblemsError):
    """It may not be done, with all the reasons."""


@dataclass(frozen=True)
class Person:
    """Who asks, by the hub's own database.

    Attributes
    ----------
    name : str
        The hub's name; empty: the administrator of the machine, at its command line.
    groups : frozenset of str
        The hub's groups.
    admin : bool
        Whether the person is an administrator.
    """

    name: str
    groups: frozenset[str] = field(default_factory=frozenset)
    admin: bool = False

    def may_change(self, record: Record) -> bool:
        """Return whether they may publish versions, see the log, unpublish."""
        return self.admin or (bool(record.owner) and self.name == record.owner)

    def may_see(self, record: Record) -> bool:
        """Return whether they may know of an app."""
        shown = not record.hidden and bool(self.groups & set(record.groups))
        return shown or self.may_change(record)


class Asked(Frozen):
    """What is said of an app when it is published or changed; None keeps what was.

    Attributes
    ----------
    groups : tuple of str or None
        Who may open it.
    title, description : str or None
        For its card.
    source : str
        What it was made from.
    size, files, kind : int, int, str or None
        What is to come: it is refused early by these, and accepted by none of them.
    current : int or None
        The version that is to run.
    hidden : bool or None
        Whether it is unpublished.
    """

    groups: tuple[Text, ...] | None = None
    title: Text | None = None
    description: Text | None = None
    source: Text = ""
    size: int = Field(0, ge=0, le=1 << 44)
    files: int = Field(0, ge=0, le=1 << 44)
    kind: Literal["shiny", "dash"] | None = None
    current: int | None = Field(None, ge=1)
    hidden: bool | None = None


def asked(fields: Any) -> Asked:
    """Return what is asked for.

    Raises
    ------
    RefusedPublishError
        It has keys or values that there are not.
    """
    try:
        return Asked.model_validate(fields)
    except ValidationError as error:
        raise RefusedPublishError(
            [
                Problem(".".join(map(str, one["loc"])) or "request", f"{one['msg']}.")
                for one in error.errors(include_url=False, include_input=False)
            ]
        ) from None


class Publisher:
    """The members' apps of one portal.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self.settings = settings
        self.paths = paths

    # -- what there is ----------------------------------------------------------------

    def visible(self, person: Person) -> list[Record]:
        """Return the apps that a person may know of."""
        return [one for one in records.read(self.paths).values() if person.may_see(one)]

    def get(self, person: Person, name: str) -> Record | None:
        """Return an app that a person may know of."""
        record = records.read(self.paths).get(name)
        return record if record is not None and person.may_see(record) else None

    def described(self, record: Record, person: Person) -> dict[str, Any]:
        """Return what a person is told of an app, as JSON knows it."""
        parts = self.settings.parts
        origin = f"{parts.scheme}://{record.name}--service.{parts.netloc}"
        told = record.model_dump(mode="json", exclude={"versions"})
        mine = person.may_change(record)
        return {
            **told,
            "url": f"{origin}/services/{record.name}/",
            "kind": record.shown.kind,
            "may_change": mine,
            "versions": [one.model_dump(mode="json") for one in record.versions] if mine else [],
        }

    def may_publish(self, person: Person) -> bool:
        """Return whether the lab lets a person publish."""
        return person.admin or bool(person.groups & set(self.settings.webapps.groups))

    # -- what is wrong ----------------------------------------------------------------

    def problems(self, person: Person, name: str, wanted: Asked, taken: set[str]) -> list[Problem]:
        """Return all that is wrong with publishing an app.

        Parameters
        ----------
        person : Person
            Who asks.
        name : str
            The app's.
        wanted : Asked
            What they say of it.
        taken : set of str
            Names of services that are not the portal's apps.
        """
        found = [*check_name(name)]
        if not found and name_problem(name):
            found.append(Problem("name", f"{name_problem(name)}.", "Choose another."))
        found += self._portal_problems(person)
        record = records.read(self.paths).get(name)
        kept = record.groups if record else ()
        if record is None:
            found += self._new_problems(person, name, wanted, taken)
        elif not person.may_change(record):
            found.append(Problem("name", f"'{name}' is somebody else's app.", "Choose another."))
        elif len(record.versions) >= VERSIONS_MOST:
            text = f"it has {VERSIONS_MOST} versions."
            found.append(Problem("versions", text, "Publish it under another name."))
        found += check_texts(wanted.model_dump(include={"title", "description", "source"}))
        if wanted.groups is not None:
            audience = check_audience(wanted.groups, person.groups, admin=person.admin, kept=kept)
            found += audience
        found += self._kind_problems(person, wanted.kind)
        found += check_size(wanted.files, wanted.size, self.settings.webapps.size)
        found += store.room(self.paths, wanted.size)
        return found

    def _portal_problems(self, person: Person) -> Iterator[Problem]:
        if not self.may_publish(person):
            named = ", ".join(self.settings.webapps.groups) or "only administrators, so far"
            text = "you may not publish apps in this lab."
            yield Problem("you", text, f"Who may: {named}. Ask an administrator.")
        service = declare.trial(self.settings.webapps)
        for one in catalogue.misfits("portal", service, self.settings):
            yield Problem(one.where, f"{one.text}.", f"An administrator can {one.hint}.")

    def _kind_problems(self, person: Person, kind: str | None) -> Iterator[Problem]:
        hint = "Ask an administrator: docs/how-to/apps-of-your-own.md says what it takes."
        # The command line builds it.
        built = not person.name or self.paths.env_bin("dash", "python").exists()
        if kind == "dash" and not built:
            yield Problem("app", "the environment of Dash apps is not built here.", hint)
        if kind == "shiny" and shutil.which("Rscript", path=SYSTEM_PATH) is None:
            yield Problem("app", "there is no R on the portal's machine.", hint)

    def _new_problems(
        self, person: Person, name: str, wanted: Asked, taken: set[str]
    ) -> Iterator[Problem]:
        if name in taken | {one for one, _, _ in catalogue.folders(self.paths)}:
            yield Problem("name", f"the portal has another app named '{name}'.", "Choose another.")
        if wanted.groups is None:
            yield Problem("groups", "a new app needs them.", 'Who may open it: groups=["imaging"].')
        limit = self.settings.webapps.each
        mine = [one.name for one in records.read(self.paths).values() if one.owner == person.name]
        if len(mine) >= limit and not person.admin:
            text = f"you have {len(mine)} apps already, and the lab allows {limit}."
            hint = (
                f"Remove one for good, e.g. app.unpublish(delete=True); yours: {', '.join(mine)}."
            )
            yield Problem("name", text, hint)

    # -- what changes -----------------------------------------------------------------

    def add(
        self, person: Person, name: str, wanted: Asked, archive: Path, taken: set[str]
    ) -> Record:
        """Make an archive the version of an app that runs; `hub.apps.install` then runs it.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        """
        with self._changing():
            problems = self.problems(person, name, wanted, taken)
            if problems:
                raise RefusedPublishError(problems)
            try:
                with store.unpacked(self.paths, archive, self.settings.webapps.size) as found:
                    wrong = list(self._kind_problems(person, found.kind))
                    if wrong:
                        raise RefusedPublishError(wrong)
                    return self._commit(person, name, wanted, found)
            except store.PackageError as error:
                raise RefusedPublishError(error.problems) from None

    def _commit(self, person: Person, name: str, wanted: Asked, found: store.Unpacked) -> Record:
        number = store.next_number(self.paths, name)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        version = Version(
            number=number,
            created=now,
            author=person.name,
            kind=found.kind,
            files=found.files,
            size=found.size,
            sha256=found.sha256,
            source=wanted.source,
        )
        said = {
            key: value
            for key in ("groups", "title", "description")
            if (value := getattr(wanted, key)) is not None
        }
        known = records.read(self.paths).get(name)
        if known is not None:
            versions = (*known.versions, version)
            record = known.with_(**said, current=number, versions=versions, hidden=False)
        else:
            record = Record(
                name=name,
                owner=person.name,
                created=now,
                current=number,
                versions=(version,),
                **{"title": name, **said},
            )
        store.add(self.paths, name, number, found)
        records.save(self.paths, record)
        return record

    def alter(self, person: Person, name: str, wanted: Asked) -> Record:
        """Change what is said of an app, which version runs, or whether it is published.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        KeyError
            There is no such app, or it is not theirs to change.
        """
        with self._changing():
            record = self._own(person, name)
            problems: list[Problem] = []
            if wanted.hidden is not True:  # to take it away is always allowed
                problems += self._portal_problems(person)
            problems += check_texts(wanted.model_dump(include={"title", "description"}))
            if wanted.groups is not None:
                problems += check_audience(
                    wanted.groups, person.groups, admin=person.admin, kept=record.groups
                )
            numbers = [one.number for one in record.versions]
            if wanted.current is not None and wanted.current not in numbers:
                there = ", ".join(map(str, numbers))
                text = f"there is no version {wanted.current}."
                problems.append(Problem("current", text, f"There are: {there}."))
            if problems:
                raise RefusedPublishError(problems)
            fields = ("groups", "title", "description", "current", "hidden")
            said = {key: getattr(wanted, key) for key in fields}
            changed = record.with_(**{k: v for k, v in said.items() if v is not None})
            records.save(self.paths, changed)
            return changed

    def remove(self, person: Person, name: str) -> None:
        """Remove an app with all its versions; its account and data go by `change.forget`.

        Raises
        ------
        KeyError
            There is no such app, or it is not theirs to change.
        """
        with self._changing():
            self._own(person, name)
            store.delete(self.paths, name)

    def _own(self, person: Person, name: str) -> Record:
        record = records.read(self.paths).get(name)
        if record is None or not person.may_change(record):
            raise KeyError(name)
        return record

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one change happen at a time, of the hub's and of the command line's."""
        with files.locked(self.paths.state / "webapps.lock", _LOCK_TIMEOUT, "the members' apps"):
            yield


def log_tail(paths: Paths, program: str, lines: int, most: int = 256 << 10) -> str:
    """Return the end of an app's log.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    program : str
        Name of its program.
    lines : int
        At most so many.
    most : int
        Bytes that are read.
    """
    return files.tail(paths.log / f"{program}.log", lines, most=most)
