"""Apps of other kinds: on a port, without a prefix, put to sleep; what `labhub app` refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from hub.apps import catalogue, install, jupyterhub_services
from hub.apps import roles as rights
from hub.apps.app_paths import AppPaths
from hub.labfile.read import parse
from hub.labfile.schema import Settings
from hub.sandbox.instance import Instance
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_env, needs_root
from tests.support.gated_portal import AppPortal, eventually
from tests.support.portal import People

APPS = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def scene(people: People) -> Iterator[tuple[AppPortal, str]]:
    ada = people.add("ada")
    with AppPortal({"groups": {"imaging": [ada]}}, [APPS / "portapp"]) as portal:
        yield portal, ada


@needs_root
@needs_env("proxy")
def test_an_app_on_a_port_without_a_prefix(scene: tuple[AppPortal, str]) -> None:
    portal, ada = scene
    with portal.program(portal.token(ada)) as program:
        answer = program.get(portal.app_url("portapp", "x/y?z=%20"))
        assert answer.text == f"/x/y?z=%20 {ada}"
        moved = program.get(portal.app_url("portapp", "moved"))
        assert moved.headers["Location"] == "/services/portapp/there?x=1"
        assert moved.headers["Set-Cookie"] == "a=1; Path=/services/portapp/there"


@needs_root
@needs_env("proxy")
def test_its_port_is_open_to_the_gate_alone(scene: tuple[AppPortal, str]) -> None:
    """It knows no secret: its network keeps everybody else out, also on its own host."""
    portal, ada = scene
    with portal.program(portal.token(ada)) as program:
        assert program.get(portal.app_url("portapp")).status_code == 200
        place = json.loads((portal.state / "sockets" / "portapp.json").read_text())
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", place["port"]), timeout=3).close()
        code = (
            "import socket\n"
            f"try: socket.create_connection(({place['host']!r}, {place['port']}), timeout=3)\n"
            "except OSError as error: print(type(error).__name__)\nelse: print('open')"
        )
        portal.spawn(ada)
        assert portal.run(ada, code).strip() != "open"
        portal.stop_server(ada)


@needs_root
@needs_env("proxy")
def test_an_app_that_nobody_uses_is_stopped(scene: tuple[AppPortal, str]) -> None:
    portal, ada = scene
    with portal.program(portal.token(ada)) as program:
        assert program.get(portal.app_url("portapp")).status_code == 200
        eventually(lambda: portal.app_state("portapp") == "stopped", 60)
        eventually(lambda: not (portal.state / "sockets" / "portapp.json").exists())
        assert program.get(portal.app_url("portapp")).status_code == 200


@needs_root
@needs_env("proxy")
def test_a_server_that_runs_may_open_an_app_that_is_added(scene: tuple[AppPortal, str]) -> None:
    """Nobody starts their server anew for it; a narrow token of the same name opens nothing."""
    portal, ada = scene
    portal.spawn(ada)
    code = "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])"
    own = portal.run(ada, code).strip()
    note = f"Server at /user/{ada}/"
    narrow = portal.token(ada, note=note, scopes=["access:services!service=portapp"])
    portal.labhub("app", "add", str(APPS / "testapp"))
    try:
        with portal.program(own) as program:
            assert program.get(portal.app_url("testapp", "told")).status_code == 200
            assert program.get(portal.app_url("portapp")).status_code == 200
        with portal.program(narrow) as program:
            assert program.get(portal.app_url("testapp", "told")).status_code == 403
            assert program.get(portal.app_url("portapp")).status_code == 200
    finally:
        portal.labhub("app", "remove", "testapp", "--yes")
        portal.stop_server(ada)


# -- what is refused, before anything is started ---------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    state = tmp_path / "state"
    state.mkdir()
    return Paths(state, tmp_path / "envs")


def app_in(folder: Path, **more: str) -> Path:
    folder.mkdir()
    lines = {"title": "A", "command": "[python, '{folder}/a.py']", **more}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    (folder / "service.yaml").write_text(text)
    return folder


def refused(source: Path | str, paths: Paths, settings: Settings | None = None) -> str:
    with pytest.raises(ProblemsError) as caught:
        install.add(str(source), None, settings or parse(""), paths)
    assert not AppPaths(paths).choices.exists()
    return str(caught.value)


def test_all_that_is_wrong_with_a_folder(tmp_path: Path, paths: Paths) -> None:
    folder = app_in(tmp_path / "plates", groups="[nobody]", thumbnail="none.png")
    (folder / "secret").symlink_to("/etc/shadow")
    text = refused(folder, paths)
    assert "groups that do not exist: nobody" in text
    assert "none.png is not in the folder" in text
    assert "link out of the folder" in text


def test_names_and_folders_that_are_no_apps(tmp_path: Path, paths: Paths) -> None:
    assert "small letters" in refused(app_in(tmp_path / "Plates"), paths)
    assert "portal's own" in refused(app_in(tmp_path / "gate"), paths)
    assert "no service.yaml" in refused(tmp_path, paths)
    assert "no service.yaml" in refused("../../etc", paths)
    for name in catalogue.shipped():
        assert "shipped app has this name" in refused(app_in(tmp_path / name), paths)


def test_a_members_app_needs_an_origin_of_its_own(tmp_path: Path, paths: Paths) -> None:
    folder = app_in(tmp_path / "mine", user_written="true")
    assert "isolation: path" in refused(folder, paths, parse("isolation: path"))


def test_a_broken_app_leaves_the_others_alone(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(jupyterhub_services.TOKEN, "00" * 32)
    monkeypatch.setattr(AppPaths, "make", lambda self: self.own.mkdir(exist_ok=True))
    settings = parse("groups: {imaging: []}")
    install.add(str(app_in(tmp_path / "good", groups="[imaging]")), None, settings, paths)
    app_in(AppPaths(paths).own / "bad", memory="lots")
    apps, problems = catalogue.read(settings, paths)
    assert "good" in [app.name for app in apps]
    assert [problem.where for problem in problems] == ["bad/service.yaml:3 memory"]
    roles = {role["name"]: role for role in jupyterhub_services.roles(settings, paths)}
    assert roles["app-good"]["groups"] == ["imaging"]
    assert "access:services!service=good" not in roles["user"]["scopes"]


def test_rights_are_exactly_what_is_declared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    session = orm.new_session_factory(url)
    imaging = {"name": "app-plates", "scopes": ["access:services!service=plates"]}
    with session() as db:
        for name in ("imaging", "other"):
            db.add(orm.Group(name=name))
        rights.give(db, [{**imaging, "groups": ["imaging", "other"]}])
        assert {group.name for group in orm.Role.find(db, "app-plates").groups} == {
            "imaging",
            "other",
        }
    with session() as db:
        gone = rights.before_start(db, [{**imaging, "groups": ["imaging"]}])
    assert gone == ["app-plates: other"]
    with session() as db:
        rights.give(db, [{**imaging, "groups": ["new"]}])
        assert [group.name for group in orm.Role.find(db, "app-plates").groups] == ["new"]
    with session() as db:
        assert rights.before_start(db, []) == ["app-plates: new"]
        assert orm.Role.find(db, "app-plates") is None
    with Session(create_engine(f"sqlite:///{tmp_path}/none.sqlite")) as db:
        assert rights.before_start(db, []) == []


def test_tokens_of_running_servers_follow_their_owners_rights(tmp_path: Path) -> None:
    here = "access:servers!server=ada/"
    server = [here, "custom:labhub:publish-apps", "users:activity!user"]
    gone = "access:services!service=gone"
    tokens = {
        "running": ("Server at /user/ada/", [*server, gone]),
        "narrow": ("Server at /user/ada/", ["access:services!service=gone"]),
        "of another name": ("mine", server),
        "stopped": ("Server at /user/ada/old/", [server[1], "access:servers!server=ada/old"]),
    }
    with orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")() as db:
        ada, imaging = orm.User(name="ada"), orm.Group(name="imaging")
        ada.groups = [imaging]
        db.add_all([ada, imaging])
        db.add(orm.Spawner(name="", user=ada, server=orm.Server(base_url="/user/ada/")))
        db.add(orm.Spawner(name="old", user=ada))
        for note, scopes in tokens.values():
            db.add(orm.APIToken(user=ada, note=note, scopes=scopes))
        db.commit()
        for name, groups in (("plates", ["imaging"]), ("secret", ["other"])):
            scope = f"access:services!service={name}"
            rights.give(db, [{"name": f"app-{name}", "scopes": [scope], "groups": groups}])
            if name == "plates":
                rights.give_to_servers(db)
        left = [set(token.scopes) for token in db.query(orm.APIToken).order_by(orm.APIToken.id)]
    assert left[0] == {*server, "access:services!service=plates"}
    assert left[1:] == [set(scopes) for _, scopes in list(tokens.values())[1:]]


def test_an_added_app_is_a_copy(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppPaths, "make", lambda self: self.own.mkdir(exist_ok=True))
    folder = app_in(tmp_path / "plates")
    (folder / "a.py").write_text("1")
    (folder / ".git").mkdir()
    install.add(str(folder), None, parse(""), paths)
    (folder / "a.py").write_text("2")
    copy = AppPaths(paths).own / "plates"
    assert (copy / "a.py").read_text() == "1"
    assert not (copy / ".git").exists()
    install.add(str(folder), (), parse(""), paths)
    assert (copy / "a.py").read_text() == "2"
    assert [p.name for p in AppPaths(paths).own.iterdir()] == ["plates"]
    install.remove("plates", parse(""), paths)
    assert list(AppPaths(paths).own.iterdir()) == []
    with pytest.raises(ProblemsError, match="no such app"):
        install.remove("../../etc", parse(""), paths)


def test_accounts_of_two_portals_differ(tmp_path: Path) -> None:
    names = {
        AppPaths(Paths(tmp_path / one, tmp_path)).account("a" * 22) for one in ("first", "second")
    }
    assert len(names) == 2
    assert all(len(name) <= 32 for name in names)
    assert (
        Instance.of(Paths(tmp_path / "first", tmp_path)).id in sorted(names)[0] + sorted(names)[1]
    )
