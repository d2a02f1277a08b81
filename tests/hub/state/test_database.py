"""The hub's database: its address, its password, WAL, locks, copies."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from jupyterhub import orm

from hub.labfile.read import parse
from hub.state import create, database_copy
from hub.state.database import HubDatabase, is_busy, keep_variable, password_files
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.support.postgres import Postgres, needs_postgres

SECRET = "pa:ss\\word 9"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(state=tmp_path / "state", envs=tmp_path / "state" / "envs")
    create.make_folders(made)
    return made


def password_file(paths: Paths, text: str = SECRET, mode: int = 0o600) -> None:
    file = paths.secrets / "database_password"
    file.write_text(text + "\n")
    file.chmod(mode)


def server(paths: Paths, url: str = "postgresql://labhub@db.lab.example/hub") -> HubDatabase:
    return HubDatabase.of(parse(f"database: {{url: '{url}'}}"), paths)


def test_its_size_counts_what_is_still_in_the_write_ahead_log(paths: Paths) -> None:
    database = HubDatabase.of(parse(""), paths)
    assert database.file is not None
    sqlite3.connect(database.file).close()
    database.use_write_ahead_log()
    with closing(sqlite3.connect(database.file)) as hub:
        hub.execute("CREATE TABLE blobs (blob)")
        hub.execute("INSERT INTO blobs VALUES (zeroblob(3000000))")
        hub.commit()
        assert database.file.stat().st_size < 100_000, "SQLite has moved nothing yet"
        size, problems = database.look()
        assert size.endswith(" MB"), size
        assert problems == []


def test_without_a_url_it_is_sqlite_at_its_place(paths: Paths) -> None:
    database = HubDatabase.of(parse(""), paths)
    assert database.file == paths.state / "jupyterhub.sqlite"
    assert database.url == f"sqlite:///{paths.state}/jupyterhub.sqlite"
    assert not database.exists()
    assert database.rows("SELECT name FROM users") == []


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://labhub:{SECRET}@db/hub",
        "postgresql://labhub:@db/hub",
        f"postgresql://labhub@db/hub?password={SECRET}",
        f"postgresql://labhub@db/hub?sslpassword={SECRET}",
        f"sqlite://x:{SECRET}@/srv/hub.sqlite",
        "mysql://labhub@db/hub",
        "postgresql://labhub@db",
        "postgresql://labhub@db:port/hub",
        "sqlite:///relative.sqlite",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////srv/../etc/hub.sqlite",
        "sqlite:////srv/hub.sqlite?mode=ro",
        "/srv/hub.sqlite",
    ],
)
def test_other_addresses_are_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        parse(f"database:\n  url: '{url}'\n")
    assert [p.where for p in caught.value.problems] == ["lab.yaml:2 database.url"]
    assert SECRET not in str(caught.value)


def test_the_password_comes_from_a_file_and_is_in_no_address(paths: Paths) -> None:
    password_file(paths)
    database = server(paths)
    assert database.password == SECRET
    assert SECRET not in repr(database)
    assert SECRET not in repr(database._connect_args())
    address = database.for_hub(paths.run)
    assert SECRET not in address
    passfile = Path(sqlalchemy.make_url(address).query["passfile"])  # type: ignore[arg-type]
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
    assert passfile.read_text() == "*:*:*:*:pa\\:ss\\\\word 9\n"


def test_the_password_comes_from_the_environment(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_DATABASE_PASSWORD", SECRET)
    assert server(paths).password == SECRET
    assert SECRET not in repr(server(paths))


def test_a_password_from_the_environment_is_kept_for_what_is_started_later(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABHUB_DATABASE_PASSWORD", raising=False)
    keep_variable(paths)
    assert server(paths).password == ""
    monkeypatch.setenv("LABHUB_DATABASE_PASSWORD", SECRET)
    keep_variable(paths)
    (kept,) = (file for file in password_files(paths) if file.exists())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    written = kept.stat().st_mtime_ns
    keep_variable(paths)
    assert kept.stat().st_mtime_ns == written, "the hub would start anew"
    monkeypatch.delenv("LABHUB_DATABASE_PASSWORD")
    keep_variable(paths)
    assert server(paths).password == SECRET
    monkeypatch.setenv("LABHUB_DATABASE_PASSWORD", "another")
    assert server(paths).password == "another"
    keep_variable(paths)
    assert kept.stat().st_mtime_ns > written
    monkeypatch.delenv("LABHUB_DATABASE_PASSWORD")
    assert server(paths).password == "another"
    password_file(paths)
    assert server(paths).password == SECRET


def test_a_password_that_others_can_read_is_refused(paths: Paths) -> None:
    password_file(paths, mode=0o640)
    with pytest.raises(ProblemsError, match="other accounts can read it"):
        server(paths)


def test_a_server_that_does_not_answer_is_a_problem_without_its_password(paths: Paths) -> None:
    password_file(paths)
    database = server(paths, "postgresql://labhub@127.0.0.1:9/hub")
    (problem,) = database.problems()
    assert problem.where == "database.url"
    assert "refused" in problem.text
    assert SECRET not in str(problem)
    with pytest.raises(ProblemsError, match="refused"):
        database.exists()


def test_what_else_is_wrong_in_the_lab_file_does_not_hide_the_database(paths: Paths) -> None:
    paths.lab_file.write_text("isolaton: 1\ndatabase:\n  url: sqlite:////srv/hub.sqlite\n")
    assert HubDatabase.in_force(paths).file == Path("/srv/hub.sqlite")
    paths.lab_file.write_text("database:\n  url: nonsense\n")
    with pytest.raises(ProblemsError, match=r"lab.yaml:2 database.url"):
        HubDatabase.in_force(paths)


# -- WAL --------------------------------------------------------------------------------------


@pytest.fixture
def earlier(paths: Paths) -> Iterator[HubDatabase]:
    """A database as earlier versions have left it, with a person and a running server."""
    database = HubDatabase.of(parse(""), paths)
    db = orm.new_session_factory(database.url)()
    ada = orm.User(name="ada")
    ada._orm_spawners.append(orm.Spawner(name="", server=orm.Server(ip="10.98.0.2", port=8888)))
    db.add(ada)
    db.commit()
    db.close()
    db.get_bind().dispose()
    with closing(sqlite3.connect(paths.database)) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    yield database


SERVERS = "SELECT users.name FROM spawners JOIN users ON users.id = spawners.user_id"


def test_an_earlier_database_becomes_wal_and_keeps_its_servers(
    earlier: HubDatabase, paths: Paths
) -> None:
    earlier.use_write_ahead_log()
    with closing(sqlite3.connect(paths.database)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert earlier.rows(SERVERS) == [("ada",)]
    assert stat.S_IMODE(paths.database.stat().st_mode) == 0o600


def test_one_that_is_in_use_keeps_its_mode_and_stays_right(
    earlier: HubDatabase, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.state.database._TIMEOUT", 0.1)
    with closing(sqlite3.connect(paths.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        earlier.use_write_ahead_log()
        assert earlier.rows(SERVERS) == [("ada",)]


def test_a_reader_does_not_wait_for_a_writer(earlier: HubDatabase, paths: Paths) -> None:
    earlier.use_write_ahead_log()
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("UPDATE users SET admin = 1")
        assert earlier.rows(SERVERS) == [("ada",)]


def test_what_cannot_be_read_is_not_taken_for_empty(
    earlier: HubDatabase, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.state.database._TIMEOUT", 0.1)
    assert earlier.rows("SELECT * FROM none_such") == []
    with pytest.raises(ProblemsError, match="no such column"):
        earlier.rows("SELECT none_such FROM users")
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ProblemsError, match="locked"):
            earlier.rows(SERVERS)


def test_a_lock_is_busy_and_a_missing_table_is_not(
    earlier: HubDatabase, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.state.database._TIMEOUT", 0.1)
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with earlier.session() as db, pytest.raises(sqlalchemy.exc.OperationalError) as locked:
            db.add(orm.User(name="bob"))
            db.commit()
    assert is_busy(locked.value)
    with earlier.session() as db, pytest.raises(sqlalchemy.exc.OperationalError) as missing:
        db.execute(sqlalchemy.text("SELECT * FROM none_such"))
    assert not is_busy(missing.value)


# -- PostgreSQL -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@needs_root
@needs_postgres
def test_a_copy_of_a_server_is_whole_and_comes_back(
    postgres: Postgres, paths: Paths, tmp_path: Path
) -> None:
    password_file(paths, postgres.password)
    database = server(paths, postgres.url)
    assert not database.exists()
    db = orm.new_session_factory(database.for_hub(paths.run))()
    ada = orm.User(name="ada", admin=True, encrypted_auth_state=b"\0\xff", created=None)
    ada.groups.append(orm.Group(name="imaging", properties={"source": "lab file"}))
    ada._orm_spawners.append(orm.Spawner(name="", state={"job_id": "7"}))
    db.add_all([ada, orm.OAuthClient(identifier="jupyterhub")])  # as the hub's start does
    db.commit()
    token = ada.new_api_token()
    copy = tmp_path / "copy.sqlite"
    database_copy.save(database, copy)
    db.delete(ada)
    db.add(orm.User(name="eve"))
    db.commit()
    db.close()
    database_copy.load(copy, database)
    with database.session() as db:
        (user,) = db.query(orm.User)
        assert (user.name, user.admin, bytes(user.encrypted_auth_state)) == ("ada", True, b"\0\xff")
        assert [group.properties for group in user.groups] == [{"source": "lab file"}]
        assert user.orm_spawners[""].state == {"job_id": "7"}
        assert orm.APIToken.find(db, token).user.name == "ada"
        db.add(orm.User(name="bob"))  # with a number of its own
        db.commit()
    with HubDatabase(f"sqlite:///{copy}", copy).engine() as engine, engine.begin() as other:
        other.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'older'"))
    with pytest.raises(ProblemsError, match="another version of JupyterHub"):
        database_copy.load(copy, database)
    assert sorted(database.rows("SELECT name FROM users")) == [("ada",), ("bob",)]


@needs_root
@needs_postgres
def test_what_a_server_does_not_show_is_not_taken_for_empty(
    postgres: Postgres, paths: Paths
) -> None:
    password_file(paths, postgres.password)
    name = "shut"
    postgres.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'; CREATE TABLE closed (x int)")
    assert server(paths, postgres.url).rows("SELECT * FROM closed") == []
    assert server(paths, postgres.url).rows("SELECT * FROM none_such") == []
    password_file(paths, name)
    other = server(paths, postgres.url.replace("labhub@", f"{name}@"))
    with pytest.raises(ProblemsError, match="permission denied"):
        other.rows("SELECT * FROM closed")
