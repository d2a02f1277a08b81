"""Copy the hub's database to a file of SQLite and back, for backups.

A server's is copied row by row through SQLAlchemy, not by ``pg_dump``: archives are the same for
both kinds, the machine needs no client programs, and none whose version must fit the server's.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.state.database import HubDatabase
from labkit.base.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_ROWS = 1000  # at once


def save(database: HubDatabase, file: Path) -> None:
    """Copy a database as of one moment into a new file, also while the hub writes.

    Parameters
    ----------
    database : HubDatabase
        The hub's, which exists.
    file : Path
        SQLite's; must not be there.

    Raises
    ------
    ProblemsError
        The server does not answer.
    """
    if database.file:  # SQLite's own online backup
        with closing(sqlite3.connect(database.file)) as live, closing(sqlite3.connect(file)) as new:
            live.backup(new)
        return
    from sqlalchemy import inspect

    with (
        database.answering(),
        database.engine() as engine,
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as source,
        HubDatabase(f"sqlite:///{file}", file).engine() as copy,
        copy.begin() as target,
    ):
        names = set(inspect(source).get_table_names())
        for table in _tables():
            if table.name in names:
                table.create(target)
                _copy(table, source, target)


def load(file: Path, database: HubDatabase) -> None:
    """Replace all that a server's database holds of the hub by a copy; all of it or nothing.

    Parameters
    ----------
    file : Path
        What `save` made.
    database : HubDatabase
        A server's; it may be empty.

    Raises
    ------
    ProblemsError
        The server does not answer, or the copy is another JupyterHub's; nothing was changed.
    """
    from sqlalchemy import inspect

    with (
        database.answering(),
        HubDatabase(f"sqlite:///{file}", file).engine() as copy,
        copy.connect() as source,
        database.engine() as engine,
        engine.begin() as target,
    ):
        names = set(inspect(source).get_table_names())
        _check_version(source, names)
        for table in _tables():
            table.create(target, checkfirst=True)
        for table in reversed(_tables()):
            target.execute(table.delete())
        for table in _tables():
            if table.name in names:
                _copy(table, source, target)
                _go_on_counting(table, target)


def _tables() -> list[Table]:
    """Return the hub's tables, those first to which others refer."""
    import nativeauthenticator.orm  # noqa: F401 - it adds its table to JupyterHub's
    from jupyterhub.orm import Base
    from sqlalchemy import Column, MetaData, String, Table

    column = Column("version_num", String(32), primary_key=True)
    version = Table("alembic_version", MetaData(), column)
    return [*Base.metadata.sorted_tables, version]


def _copy(table: Table, source: Connection, target: Connection) -> None:
    for rows in source.execute(table.select()).partitions(_ROWS):
        target.execute(table.insert(), [dict(row._mapping) for row in rows])


def _check_version(source: Connection, names: set[str]) -> None:
    from alembic.script import ScriptDirectory
    from jupyterhub.dbutil import ALEMBIC_DIR
    from sqlalchemy import text

    found: Any = None
    if "alembic_version" in names:
        found = source.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found != ScriptDirectory(ALEMBIC_DIR).get_current_head():
        text_ = "its database was written by another version of JupyterHub"
        hint = "restore it with the Labhub that made it; nothing was changed"
        raise ProblemsError([Problem("the backup", text_, hint)])


def _go_on_counting(table: Table, target: Connection) -> None:
    """Let a table's next row have a number that no copied row has."""
    from sqlalchemy import func, select

    column = table.autoincrement_column
    if column is None:
        return
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    highest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
    target.execute(select(func.setval(sequence, highest, False)))
