"""What never changes once it was written is read once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labkit.storage.client import CONNECTIONS
from labkit.storage.store import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (store TEXT, name TEXT, content BLOB, PRIMARY KEY (store, name))
"""
_TIMEOUT = 10.0  # seconds for another process that writes


class Reader:
    """Reads many contents of a store; those that never change are kept on this machine.

    The cache may be removed at any time; where it cannot be used everything is read from the store.

    Parameters
    ----------
    store : Store
        What is read.
    cache : Path
        A file, for us alone; several stores and processes may share it.
    unchanging : callable
        Whether the content of a name never changes once it is there.
    """

    def __init__(self, store: Store, cache: Path, unchanging: Callable[[str], bool]) -> None:
        self._store = store
        self._cache = cache
        self._unchanging = unchanging

    def read_all(self, prefix: str, after: str = "") -> dict[str, bytes]:
        """Return all contents whose names begin with ``prefix``, by name, in order.

        One that is deleted meanwhile is left out.

        Raises
        ------
        StorageError
            The store cannot be listed, or one of them not be read.
        """
        names = list(self._store.list(prefix, after))
        kept = self._kept(prefix)
        missing = [name for name in names if name not in kept]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            contents = dict(zip(missing, pool.map(self._store.read, missing), strict=True))
        new = {name: content for name, content in contents.items() if content is not None}
        self._keep({name: content for name, content in new.items() if self._unchanging(name)})
        everything = {**kept, **new}
        return {name: everything[name] for name in names if name in everything}

    def _kept(self, prefix: str) -> dict[str, bytes]:
        query = "SELECT name, content FROM contents WHERE store = ? AND substr(name, 1, ?) = ?"
        with contextlib.suppress(sqlite3.Error, OSError), self._open() as database:
            answer: Iterable[tuple[str, bytes]] = database.execute(
                query, (self._store.address, len(prefix), prefix)
            )
            return dict(answer)
        return {}

    def _keep(self, contents: Mapping[str, bytes]) -> None:
        if not contents:
            return
        rows = [(self._store.address, name, content) for name, content in contents.items()]
        with contextlib.suppress(sqlite3.Error, OSError), self._open() as database, database:
            database.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.closing(sqlite3.connect(self._cache, timeout=_TIMEOUT)) as database:
            database.execute(_SCHEMA)
            yield database
