"""The hub's database: the only module that opens it.

SQLite in the state folder, or a PostgreSQL server that the lab file names. SQLAlchemy is imported
where it is used: ``labhub status`` reads SQLite without it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.labfile.database import Database
from hub.labfile.read import section
from hub.labfile.schema import Settings
from hub.labfile.secrets import Secrets
from hub.state import secrets
from hub.state.paths import Paths
from labkit.base.files import write_atomic
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_size

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm import Session

PASSWORD = "database_password"  # noqa: S105 - the secret's name
VARIABLE = "LABHUB_DATABASE_PASSWORD"
_PASSFILE = "database.pgpass"
_TIMEOUT = 5  # seconds to wait for another's lock
_CONNECT = 10  # seconds to wait for a server
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# PostgreSQL's classes and codes for "not now": connection, resources, shutdown, locks.
_LATER = ("08", "53", "57P0", "55P03", "40001", "40P01")
_NO_TABLE = "42P01"  # PostgreSQL's code


class HiddenText(str):
    """A secret that no ``repr`` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class HubDatabase:
    """The hub's database, whether or not it is there yet.

    Attributes
    ----------
    url : str
        SQLAlchemy's address, without a password.
    file : Path or None
        SQLite's file; None for a server.
    password : str
        Of a server; empty where it asks for none.
    """

    url: str
    file: Path | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings, paths: Paths) -> HubDatabase:
        """Return the database of a lab file; see `named`."""
        return cls.named(settings.database, paths, settings.secrets.mounted)

    @classmethod
    def named(cls, section: Database, paths: Paths, mounted: Path | None = None) -> HubDatabase:
        """Return the database that a lab file's section names.

        Parameters
        ----------
        section : Database
            The lab file's section.
        paths : Paths
            Where the portal keeps its state.
        mounted : Path, optional
            The lab file's folder of mounted secrets.

        Raises
        ------
        ProblemsError
            Its password is open to other accounts or cannot be read.
        """
        url = section.url
        if url is None:
            return cls(f"sqlite:///{paths.database}", paths.database)
        if url.startswith("sqlite:"):
            return cls(url, Path(url.removeprefix("sqlite:///")))
        url = f"postgresql+psycopg:{url.partition(':')[2]}"
        kept = _kept(paths)
        password = os.environ.get(VARIABLE) or (kept.read_text("utf-8") if kept.exists() else "")
        if secrets.exists(paths, PASSWORD, mounted):
            password = secrets.read(paths, PASSWORD, "the database's password", mounted)
        return cls(url, None, HiddenText(password))

    @classmethod
    def in_force(cls, paths: Paths) -> HubDatabase:
        """Return the database of the lab file in force, whatever else is wrong in that file.

        Raises
        ------
        ProblemsError
            The section cannot be read.
        """
        if not paths.lab_file.exists():
            return cls.named(Database(), paths)
        mounted = section(paths.lab_file, "secrets", Secrets).mounted
        return cls.named(section(paths.lab_file, "database", Database), paths, mounted)

    @property
    def place(self) -> str:
        """What problems call it."""
        return str(self.file) if self.file else self.url

    def exists(self) -> bool:
        """Whether the hub has made its tables.

        Raises
        ------
        ProblemsError
            The server does not answer.
        """
        if self.file:
            return self.file.exists()
        from sqlalchemy import inspect

        with self.answering(), self.engine() as engine:
            return bool(inspect(engine).has_table("users"))

    # -- reading and writing ----------------------------------------------------------

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query of ours finds, also while the hub is down; nothing is changed.

        Parameters
        ----------
        query : str
            Plain SQL without values.

        Returns
        -------
        list of tuple
            Empty where the hub has not made its tables yet.

        Raises
        ------
        ProblemsError
            The server does not answer, or another program has held SQLite's file for too long.
        """
        if self.file:
            if not self.file.exists():
                return []
            address = f"{self.file.as_uri()}?mode=ro"
            try:
                db = sqlite3.connect(address, uri=True, timeout=_TIMEOUT)
                with contextlib.closing(db):
                    return list(db.execute(query))
            except sqlite3.OperationalError as error:
                if str(error).startswith("no such table"):
                    return []
                # Not "nobody is there": a job without a server would count as left over.
                hint = "try again; labhub doctor says whether the database is whole"
                raise ProblemsError([Problem(self.place, str(error), hint)]) from None
        from sqlalchemy import text
        from sqlalchemy.exc import ProgrammingError

        with self.answering(), self.engine() as engine, engine.connect() as connection:
            try:
                return [tuple(row) for row in connection.execute(text(query))]
            except ProgrammingError as error:
                if getattr(error.orig, "sqlstate", None) == _NO_TABLE:
                    return []
                raise ProblemsError([Problem(self.place, _reason(error))]) from None

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        """Open it outside the hub, also while the hub runs."""
        from sqlalchemy import create_engine, event

        engine = create_engine(self.url, connect_args=self._connect_args())
        if self.file:
            event.listen(engine, "connect", _keep_references)
        try:
            yield engine
        finally:
            engine.dispose()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session outside the hub; the caller commits."""
        from sqlalchemy.orm import Session

        with self.engine() as engine, Session(engine) as session:
            yield session

    # -- the hub's own ----------------------------------------------------------------

    def for_hub(self, run: Path) -> str:
        """Return the address for ``JupyterHub.db_url``, without a password.

        JupyterHub hands it on to Alembic, so the password is not in `connect_args`: libpq reads
        it from a file.

        Parameters
        ----------
        run : Path
            The portal's folder for what lives as long as it runs.
        """
        if not self.password:
            return self.url
        passfile = run / _PASSFILE
        escaped = self.password.replace("\\", "\\\\").replace(":", "\\:")
        write_atomic(passfile, f"*:*:*:*:{escaped}\n", mode=0o600)
        from sqlalchemy import make_url

        named = make_url(self.url).update_query_dict({"passfile": str(passfile)})
        return named.render_as_string(hide_password=False)

    def use_write_ahead_log(self) -> None:
        """Let SQLite's readers and its one writer not wait for each other.

        The mode is the file's own. One that somebody holds open, or a disk that cannot do it,
        keeps the earlier mode, which is as right.
        """
        if self.file is None:
            return
        with contextlib.closing(sqlite3.connect(self.file, timeout=_TIMEOUT)) as db:
            self.file.chmod(0o600)
            with contextlib.suppress(sqlite3.OperationalError):
                db.execute("PRAGMA journal_mode=WAL")

    # -- looking after it -------------------------------------------------------------

    def look(self) -> tuple[str, list[Problem]]:
        """Say how it is, for ``labhub doctor``: a line, and what is wrong."""
        if self.file is None:
            return self._look_at_server()
        if not self.file.exists():
            return "none yet", []
        address = f"{self.file.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_TIMEOUT)) as db:
            try:
                state = str(db.execute("PRAGMA quick_check").fetchone()[0])
            except sqlite3.DatabaseError as error:
                state = str(error)
        found = []
        if state != "ok":
            hint = "labhub down, then labhub restore with the newest backup"
            found.append(Problem(self.place, f"is damaged: {state}", hint))
        # What was written last is in the write-ahead log, and there mostly stays.
        log = self.file.with_name(f"{self.file.name}-wal")
        return format_size(
            sum(part.stat().st_size for part in (self.file, log) if part.exists())
        ), found

    def problems(self) -> list[Problem]:
        """Return what keeps the hub from its database, for ``labhub check``."""
        if self.file is None:
            return self._look_at_server()[1]
        if self.file.parent.is_dir() or self.file.parent == self.file:
            return []
        return [Problem("database.url", f"there is no folder {self.file.parent}", "make it")]

    def _look_at_server(self) -> tuple[str, list[Problem]]:
        from sqlalchemy import text

        query = "SELECT current_setting('server_version'), pg_database_size(current_database())"
        try:
            with self.answering(), self.engine() as engine, engine.connect() as connection:
                version, size = connection.execute(text(query)).one()
        except ProblemsError as error:
            return self.url, list(error.problems)
        return f"PostgreSQL {version}, {format_size(size)}", []

    def _connect_args(self) -> dict[str, Any]:
        if self.file:
            return {"timeout": _TIMEOUT}
        password = {"password": self.password} if self.password else {}
        return {"connect_timeout": _CONNECT, **password}

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turn a server that does not answer into a problem."""
        from sqlalchemy.exc import OperationalError

        try:
            yield
        except OperationalError as error:
            hint = f"start the server, or correct database.url and secrets/{PASSWORD}"
            raise ProblemsError([Problem("database.url", _reason(error), hint)]) from None


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _keep_references(connection: Any, _record: object) -> None:
    # As JupyterHub does: what belongs to a deleted row goes with it.
    connection.execute("PRAGMA foreign_keys=ON")


def is_busy(error: BaseException) -> bool:
    """Whether a database error will pass by itself: a lock, a server that is restarted."""
    from sqlalchemy import exc

    if isinstance(error, exc.TimeoutError):  # all connections are in use
        return True
    if not isinstance(error, exc.OperationalError):
        return False
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return cause.sqlite_errorcode & 0xFF in _BUSY
    state = getattr(cause, "sqlstate", None)
    return state is None or str(state).startswith(_LATER)


def keep_variable(paths: Paths) -> None:
    """Keep the password that `labhub up` was given as a variable, where it is another.

    The supervisor goes on with the variables with which it was started, maybe long ago; and
    backups are made without any.
    """
    password = os.environ.get(VARIABLE)
    file = _kept(paths)
    if password and not (file.exists() and file.read_text("utf-8") == password):
        write_atomic(file, password, mode=0o600, sync=True)


def password_files(paths: Paths, mounted: Path | None = None) -> list[Path]:
    """Return where a server's password may be, the first of them first."""
    return [secrets.place(paths, PASSWORD, mounted), _kept(paths)]


def _kept(paths: Paths) -> Path:
    return paths.run / PASSWORD


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables without the database's password, which no program inherits."""
    return {name: value for name, value in variables.items() if name != VARIABLE}
