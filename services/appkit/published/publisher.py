"""Who may do what with published things, and what a record becomes when they do it.

Everything is checked here, on the portal's side, whatever the notebook has checked before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic

from labkit.base.problems import Problem
from services.appkit.person import Person
from services.appkit.published.records import Record, V
from services.appkit.published.statements import Change, RefusedPublishError, Statement
from services.appkit.published.store import R, Store


class Publisher(Generic[R, V]):
    """The published things of one kind.

    Changes of one name come one at a time: who calls holds a lock.

    Parameters
    ----------
    store : Store
        Where they are kept.
    record : type
        The model of a record.
    """

    def __init__(self, store: Store[R, V], record: type[R]) -> None:
        self.store = store
        self.record = record
        self.rules = record.rules

    # -- what there is ----------------------------------------------------------------

    def records(self) -> Mapping[str, R]:
        """Return all records, by name."""
        return {one.name: one for one in self.store.load()}

    def visible(self, person: Person) -> list[R]:
        """Return the records that a person may know of, the newest version first."""
        records = [one for one in self.records().values() if one.shown and one.may_open(person)]
        return sorted(records, key=_newest, reverse=True)

    def get(self, person: Person, name: str) -> R | None:
        """Return a record where a person may know of it; what is not theirs is not there."""
        record = self.records().get(name)
        return record if record is not None and record.may_open(person) else None

    # -- what is wrong ----------------------------------------------------------------

    def problems(self, person: Person, name: str, statement: Statement) -> Iterator[Problem]:
        """Yield why a person may not publish a version under a name, saying that of it."""
        yield from self.rules.check_name(name)
        record = self.records().get(name)
        if record is not None and not record.may_change(person):
            yield Problem("name", f"'{name}' is somebody else's.", "Choose another name.")
            return
        most = self.rules.versions_most
        if record is not None and most is not None and len(record.versions) >= most:
            hint = "Publish it under another name."
            yield Problem("versions", f"it has {len(record.versions)} versions.", hint)
        if record is None and statement.groups is None:
            alone = "" if self.rules.needs_group else "; groups=[] is you and the administrators"
            yield Problem("groups", "say who may open it.", f'E.g. groups=["imaging"]{alone}.')
        yield from self._said_problems(person, record, statement)

    def change_problems(self, person: Person, record: R, change: Change) -> Iterator[Problem]:
        """Yield why a person who may change a record may not change it so."""
        yield from self._said_problems(person, record, change)
        if change.current is not None and record.version(change.current) is None:
            numbers = ", ".join(str(one.number) for one in record.versions)
            text = f"there is no version {change.current}."
            yield Problem("current", text, f"There are: {numbers}.")

    def _said_problems(
        self, person: Person, record: R | None, statement: Statement
    ) -> Iterator[Problem]:
        yield from self.rules.check_texts(statement.model_dump(include=set(self.rules.texts)))
        if statement.groups is not None:
            kept = record.groups if record is not None else ()
            yield from self.rules.check_groups(
                statement.groups, person.groups, admin=person.admin, kept=kept
            )

    # -- what changes -----------------------------------------------------------------

    def add(
        self,
        person: Person,
        name: str,
        statement: Statement,
        version: V,
        data: Path,
        beside: Mapping[str, bytes] | None = None,
    ) -> R:
        """Keep a version, and make it the one that is shown.

        Parameters
        ----------
        person : Person
            Who publishes it.
        name : str
            The record's; new, or theirs to change.
        statement : Statement
            What they say of it.
        version : Version
            What is kept of the data for good.
        data : Path
            A file or folder; it is taken over.
        beside : mapping of str to bytes, optional
            Files that lie beside the data.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        """
        if problems := list(self.problems(person, name, statement)):
            raise RefusedPublishError(problems)
        return self._keep(person, name, statement, version, data, beside or {})

    def _keep(
        self,
        person: Person,
        name: str,
        statement: Statement,
        version: V,
        data: Path,
        beside: Mapping[str, bytes],
    ) -> R:
        """Do what `add` says of a statement that was checked."""
        known = self.records().get(name)
        said = {"current": version.number, "hidden": False, **statement.said(self.rules)}
        if known is not None:
            record = known.with_(**said, versions=(*known.versions, version))
        elif self.store.holds(name):
            text = "what is kept under this name is damaged."  # and is its owner's all the same
            hint = "Choose another name, or ask an administrator."
            raise RefusedPublishError([Problem("name", text, hint)])
        else:
            first = {"name": name, "owner": person.name, "title": name, "created": version.created}
            record = self.record.model_validate({**first, **said, "versions": (version,)})
            self.store.reserve(record)
        try:
            self.store.add(name, version, data, beside)
        except BaseException:
            if known is None:
                self.store.delete(name)
            raise
        return self._save(record)

    def change(self, person: Person, name: str, change: Change) -> R:
        """Change texts, groups, the version that is shown, or whether it is published.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        KeyError
            There is no such record for that person to change.
        """
        record = self.own(person, name)
        if problems := list(self.change_problems(person, record, change)):
            raise RefusedPublishError(problems)
        return self._save(record.with_(**change.said(self.rules)))

    def remove(self, person: Person, name: str) -> None:
        """Remove a record with all its versions, for good.

        Raises
        ------
        KeyError
            There is no such record for that person to change.
        """
        self.own(person, name)
        self.store.delete(name)

    def own(self, person: Person, name: str) -> R:
        """Return a record that a person may change.

        Raises
        ------
        KeyError
            There is none.
        """
        record = self.records().get(name)
        if record is None or not record.may_change(person):
            raise KeyError(name)
        return record

    def _save(self, record: R) -> R:
        self.store.save(record)
        return record


def _newest(record: Record[Any]) -> tuple[str, str]:
    return (record.shown.created if record.shown else "", record.name)


def now() -> str:
    """Return this moment as records have it: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
