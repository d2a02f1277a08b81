"""The published datasets: who may see and change them, and every change, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem, ProblemsError
from labkit.portal.datasets.rules import TEXTS, check_groups, check_texts
from services.appkit.identity import Person
from services.cellxgene.records import Dataset, Version
from services.cellxgene.request import Request
from services.cellxgene.store import Store

log = logging.getLogger(__name__)
# What `change` may set.
CHANGES = frozenset({*TEXTS, "groups", "current", "hidden"})


class RefusedPublishError(ProblemsError):
    """Not allowed, with all the reasons."""


class Catalogue:
    """All datasets, as the store has them.

    Parameters
    ----------
    store : Store
        The truth; this process is the only one that writes it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._datasets: dict[str, Dataset] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def load(self) -> None:
        """Read the store."""
        self._datasets = {one.name: one for one in self._store.load()}

    @property
    def store(self) -> Store:
        """Where they are kept."""
        return self._store

    def free(self) -> int | None:
        """Return the bytes that are left for data; None where there is no end."""
        return self._store.free()

    def next_number(self, name: str) -> int:
        """Return the number of a version to come."""
        return self._store.next_number(name)

    def title(self, request: Request) -> str:
        """Return what an announced version is called: as the dataset, where nothing is said."""
        known = self._datasets.get(request.name)
        return request.title or (known.title if known else request.name)

    def visible(self, person: Person) -> list[Dataset]:
        """Return the datasets that a person may open, the newest first."""
        found = [one for one in self._datasets.values() if one.may_open(person) and one.shown]
        return sorted(found, key=_changed, reverse=True)

    def get(self, person: Person, name: str) -> Dataset | None:
        """Return a dataset where a person may open it; what is not theirs is not there."""
        dataset = self._datasets.get(name)
        return dataset if dataset is not None and dataset.may_open(person) else None

    def problems(self, person: Person, name: str, request: Request) -> Iterator[Problem]:
        """Yield why a person may not publish that."""
        known = self._datasets.get(name)
        if known is not None and not known.may_change(person):
            yield Problem("name", f"'{name}' is somebody else's.", "Choose another name.")
            return
        if request.groups is None and known is None:
            yield Problem(
                "groups",
                "say who may see it.",
                'E.g. groups=["imaging"]; groups=[] is you and the administrators alone.',
            )
        if request.groups is not None:
            yield from self._group_problems(person, known, request.groups)

    @staticmethod
    def _group_problems(person: Person, known: Dataset | None, groups: Any) -> Iterator[Problem]:
        kept = known.groups if known is not None else ()
        yield from check_groups(groups, person.groups, admin=person.admin, kept=kept)

    async def add(
        self,
        person: Person,
        request: Request,
        version: Version,
        data: Path,
        beside: Mapping[str, bytes],
    ) -> Dataset:
        """Make a version part of its dataset, and show it.

        Raises
        ------
        RefusedPublishError
            What was allowed when it was announced no longer is.
        """
        name = request.name
        async with self._locks[name]:
            problems = list(self.problems(person, name, request))
            if problems:
                raise RefusedPublishError(problems)
            known = self._datasets.get(name) or Dataset(
                name=name, owner=person.name, title=name, created=version.created
            )
            await asyncio.to_thread(self._store_version, known, version, data, beside)
            log.info("%s has published %s, version %d", person.name, name, version.number)
            texts = {field: getattr(request, field) for field in TEXTS}
            return await self._save(
                known.with_(
                    **{field: text.strip() for field, text in texts.items() if text is not None},
                    groups=known.groups if request.groups is None else _groups(request.groups),
                    versions=(*known.versions, version),
                    current=version.number,
                    hidden=False,
                )
            )

    def _store_version(
        self, known: Dataset, version: Version, data: Path, beside: Mapping[str, bytes]
    ) -> None:
        if not known.versions:
            # Its owner is on record before its data: after a crash it is nobody else's.
            self._store.save(known)
        try:
            self._store.add(known.name, version, data, beside)
        except BaseException:
            if not known.versions:
                self._store.delete(known.name)
            raise

    async def change(self, person: Person, name: str, fields: Mapping[str, Any]) -> Dataset:
        """Change title, groups, the version that is shown, or whether it is shown at all.

        Raises
        ------
        RefusedPublishError
            A value is not allowed.
        KeyError
            There is no such dataset for that person to change.
        """
        async with self._locks[name]:
            known = self._mine(person, name)
            problems = list(self._change_problems(person, known, fields))
            if problems:
                raise RefusedPublishError(problems)
            given: dict[str, Any] = {k: v for k, v in fields.items() if v is not None}
            if "groups" in given:
                given["groups"] = _groups(given["groups"])
            given |= {field: given[field].strip() for field in TEXTS if field in given}
            log.info("%s changes %s: %s", person.name, name, ", ".join(sorted(given)))
            return await self._save(known.with_(**given))

    def _change_problems(
        self, person: Person, known: Dataset, fields: Mapping[str, Any]
    ) -> Iterator[Problem]:
        for unknown in sorted(set(fields) - CHANGES):
            yield Problem(unknown, "this cannot be changed.")
        yield from check_texts(fields)
        if fields.get("groups") is not None:
            yield from self._group_problems(person, known, fields["groups"])
        current = fields.get("current")
        if current is not None:
            numbers = [one.number for one in known.versions]
            if isinstance(current, bool) or current not in numbers:
                there = ", ".join(map(str, numbers))
                yield Problem(
                    "current", f"there is no version {current!r}.", f"There are: {there}."
                )
        if not isinstance(fields.get("hidden", False), bool):
            yield Problem("hidden", "true or false is needed.")

    async def remove(self, person: Person, name: str) -> None:
        """Remove a dataset with all its versions, for good.

        Raises
        ------
        KeyError
            There is no such dataset for that person to remove.
        """
        async with self._locks[name]:
            self._mine(person, name)
            log.info("%s deletes %s", person.name, name)
            await asyncio.to_thread(self._store.delete, name)
            del self._datasets[name]

    def _mine(self, person: Person, name: str) -> Dataset:
        known = self._datasets.get(name)
        if known is None or not known.may_change(person):
            raise KeyError(name)
        return known

    async def _save(self, dataset: Dataset) -> Dataset:
        await asyncio.to_thread(self._store.save, dataset)
        self._datasets[dataset.name] = dataset
        return dataset


def _groups(groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(groups)))


def _changed(dataset: Dataset) -> tuple[str, str]:
    shown = dataset.shown
    return (shown.created if shown else "", dataset.name)
