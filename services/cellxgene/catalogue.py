"""The published datasets: every change of one comes after the other, and none holds the loop up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from services.appkit.person import Person
from services.appkit.published.publisher import Publisher
from services.appkit.published.store import Store
from services.cellxgene.records import Dataset, Version
from services.cellxgene.request import Announcement, Change

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Catalogue(Publisher[Dataset, Version]):
    """All datasets, as the store has them.

    Parameters
    ----------
    store : Store
        The truth; this process is the only one that writes it, so it is read once.
    """

    def __init__(self, store: Store[Dataset, Version]) -> None:
        super().__init__(store, Dataset)
        self._datasets: dict[str, Dataset] = {}
        self._editing = threading.Lock()
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def load(self) -> None:
        """Read the store."""
        self._datasets = dict(super().records())

    def records(self) -> Mapping[str, Dataset]:
        """Return all datasets, by name; it is replaced, never changed."""
        return self._datasets

    def _save(self, record: Dataset) -> Dataset:
        super()._save(record)
        with self._editing:
            self._datasets = {**self._datasets, record.name: record}
        return record

    def remove(self, person: Person, name: str) -> None:
        """Remove a dataset with all its versions, for good."""
        super().remove(person, name)
        with self._editing:
            self._datasets = {key: one for key, one in self._datasets.items() if key != name}

    def title(self, name: str, announced: Announcement) -> str:
        """Return what an announced version is called: as the dataset, where nothing is said."""
        known = self._datasets.get(name)
        return announced.title or (known.title if known else name)

    async def publish(
        self,
        person: Person,
        name: str,
        announced: Announcement,
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
        async with self._locks[name]:
            args = (person, name, announced, version, data, beside)
            dataset = await _to_its_end(self.add, *args)
        log.info("%s has published %s, version %d", person.name, name, version.number)
        return dataset

    async def alter(self, person: Person, name: str, change: Change) -> Dataset:
        """Change title, groups, the version that is shown, or whether it is shown at all.

        Raises
        ------
        RefusedPublishError
            A value is not allowed.
        KeyError
            There is no such dataset for that person to change.
        """
        async with self._locks[name]:
            dataset = await _to_its_end(self.change, person, name, change)
        said = change.model_dump(exclude_none=True)
        log.info("%s has changed %s: %s", person.name, name, ", ".join(sorted(said)))
        return dataset

    async def delete(self, person: Person, name: str) -> None:
        """Remove a dataset with all its versions, for good.

        Raises
        ------
        KeyError
            There is no such dataset for that person to remove.
        """
        async with self._locks[name]:
            await _to_its_end(self.remove, person, name)
        log.info("%s has deleted %s", person.name, name)


async def _to_its_end(change: Callable[..., Result], *args: Any) -> Result:
    """Make a change in a thread, and wait for it also when that is cancelled: it cannot be."""
    work = asyncio.ensure_future(asyncio.to_thread(change, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        return work.result()
