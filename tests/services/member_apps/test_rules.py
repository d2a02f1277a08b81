"""Members' apps without a portal: what is taken of a folder, what is kept, what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.apps import catalogue, member_records
from hub.apps.members import local
from hub.apps.members.publish import Announcement, AppPublisher
from hub.cli import cli
from hub.labfile.read import parse
from hub.labfile.schema import Settings
from hub.runtime import backups
from hub.state.paths import Paths
from labkit.base.files import locked
from labkit.base.problems import ProblemsError
from labkit.portal.webapps import git
from labkit.portal.webapps.package import collect
from labkit.portal.webapps.rules import is_path
from services.appkit.person import Person
from services.appkit.published.statements import Change, RefusedPublishError
from tests.conftest import needs_root

ADA = Person("ada", frozenset({"imaging"}))
LAB = "groups: {imaging: [ada]}\nwebapps: {groups: [imaging], size: 1M}\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "state", tmp_path / "envs")
    found.state.mkdir()
    for env in ("dash",):
        (found.envs / env / "bin").mkdir(parents=True)
        (found.envs / env / "bin" / "python").touch()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "plates"
    (place / "data").mkdir(parents=True)
    (place / "app.py").write_text("from dash import Dash\napp = Dash()\n")
    (place / "data" / "a table.csv").write_text("a,b\n")
    return place


def archive(folder: Path, target: Path) -> Path:
    with target.open("wb") as stream:
        collect(folder, 1 << 20).write(stream)
    return target


def publisher(paths: Paths, lab: str = LAB) -> AppPublisher:
    return AppPublisher(parse(lab), paths)


def published(paths: Paths, folder: Path, lab: str = LAB) -> member_records.MemberApp:
    packed = archive(folder, paths.state / "a.zip")
    return publisher(paths, lab).publish(ADA, "plates", Announcement(groups=("imaging",)), packed)


# -- what is taken ---------------------------------------------------------------------


def test_files_of_a_folder_and_nothing_hidden(folder: Path) -> None:
    for name in (".env", ".git", "__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    package = collect(folder, 1 << 20)
    assert set(package.files) == {"app.py", "data/a table.csv"}
    assert set(package.left_out) == {".env", ".git", "__pycache__"}
    assert (package.kind, package.problems) == ("dash", [])


def test_one_file_alone(folder: Path) -> None:
    assert set(collect(folder / "app.py", 1 << 20).files) == {"app.py"}
    (folder / "other.py").touch()
    assert "called app.R or app.py" in str(collect(folder / "other.py", 1 << 20).problems[0])


def test_links_pipes_and_size_are_told_together(folder: Path) -> None:
    (folder / "out").symlink_to("/etc")
    (folder / "hosts").symlink_to("/etc/hosts")
    os.mkfifo(folder / "pipe")
    (folder / "large").write_bytes(b"x" * (2 << 20))
    (folder / "app.R").touch()
    told = "\n".join(map(str, collect(folder, 1 << 20).problems))
    for text in (
        "out: is a link",
        "hosts: is a link",
        "pipe: is no file",
        "2 MB",
        "Shiny and of",
    ):
        assert text in told


def test_the_same_files_make_the_same_archive(folder: Path, tmp_path: Path) -> None:
    first = archive(folder, tmp_path / "1.zip").read_bytes()
    os.utime(folder / "app.py", (1, 1))
    assert archive(folder, tmp_path / "2.zip").read_bytes() == first


def test_a_link_that_comes_late_is_not_followed(folder: Path, tmp_path: Path) -> None:
    package = collect(folder, 1 << 20)
    (folder / "app.py").unlink()
    (folder / "app.py").symlink_to("/etc/passwd")
    with pytest.raises(OSError), (tmp_path / "a.zip").open("wb") as stream:
        package.write(stream)


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "../a", "a/..", ".a", "a/.b", "a\\b", "a\nb", " a", "a ", "x" * 500]
)
def test_paths_that_no_app_has(path: str) -> None:
    assert not is_path(path)


def test_addresses_of_repositories() -> None:
    assert git.is_address("https://example.org/a.git") and git.is_address("git@example.org:a/b")
    for other in ("ext::sh -c id", "plates/", "--upload-pack=x", "http://example.org/a", "/srv/a"):
        assert not git.is_address(other), other
    assert git.shown("https://ada:secret@example.org/a") == "https://example.org/a"


# -- what is kept ----------------------------------------------------------------------


@needs_root
def test_versions_never_change_and_are_closed(paths: Paths, folder: Path) -> None:
    published(paths, folder)
    (folder / "app.py").write_text("second = 2\n")
    record = published(paths, folder)
    assert [one.number for one in record.versions] == [1, 2]
    first = member_records.store(paths).version_folder("plates", 1)
    assert "Dash()" in (first / "app.py").read_text()
    back = publisher(paths).change(ADA, "plates", Change(current=1))
    app = next(one for one in catalogue.read(parse(LAB), paths)[0] if one.name == "plates")
    assert (back.current, app.folder, app.kind) == (1, first, "dash")
    assert app.groups == ("imaging",) and app.service.user_written
    assert app.service.description == "By ada."
    assert stat.S_IMODE(member_records.store(paths).folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((first / "app.py").stat().st_mode) == 0o644


@needs_root
def test_only_the_owner_and_administrators_change_it(paths: Paths, folder: Path) -> None:
    published(paths, folder)
    other = Person("bob", frozenset({"imaging"}))
    with pytest.raises(KeyError):
        publisher(paths).change(other, "plates", Change(title="mine"))
    with pytest.raises(KeyError):
        publisher(paths).remove(other, "plates")
    packed = archive(folder, paths.state / "b.zip")
    with pytest.raises(RefusedPublishError, match="somebody else's"):
        publisher(paths).publish(other, "plates", Announcement(), packed)
    root = Person("root", admin=True)
    assert publisher(paths).change(root, "plates", Change(hidden=True)).owner == "ada"


@needs_root
def test_who_left_the_publishers_can_only_take_away(paths: Paths, folder: Path) -> None:
    published(paths, folder)
    late = Person("ada", frozenset())
    with pytest.raises(RefusedPublishError, match="may not publish"):
        publisher(paths).change(late, "plates", Change(current=1))
    assert publisher(paths).change(late, "plates", Change(hidden=True)).hidden


@needs_root
def test_two_changes_at_once_are_both_kept(paths: Paths, folder: Path) -> None:
    """The hub's and the command line's: who waits for the other begins with what it has left."""
    kept = member_records.store(paths)
    record = published(paths, folder)
    with ThreadPoolExecutor() as others:
        with locked(paths.state / "webapps.lock", 30, "the apps"):
            title = others.submit(publisher(paths).change, ADA, "plates", Change(title="Wells"))
            with pytest.raises(TimeoutError):
                title.result(timeout=0.5)
            kept.save(record.with_(description="of the reader"))
        assert title.result(timeout=30).description == "of the reader"
    assert (member_records.read(paths)["plates"].title, len(kept.load())) == ("Wells", 1)


@needs_root
def test_a_change_that_never_ends_is_waited_for_no_longer(
    paths: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.apps.members.publish._LOCK_SECONDS", 0.1)
    record = published(paths, folder)
    with locked(paths.state / "webapps.lock", 30, "the apps"):
        for change in (
            lambda: publisher(paths).change(ADA, "plates", Change(title="Wells")),
            lambda: publisher(paths).remove(ADA, "plates"),
            lambda: published(paths, folder),
        ):
            with pytest.raises(RefusedPublishError, match="another change") as refused:
                change()
            assert str(paths.state) not in str(refused.value), "no place of the portal's is told"
    assert member_records.read(paths)["plates"] == record


@needs_root
def test_a_bomb_is_refused(paths: Paths) -> None:
    """It says of itself that it is small."""
    bomb = paths.state / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("app.py", b"0" * (8 << 20))
    content = bomb.read_bytes().replace((8 << 20).to_bytes(4, "little"), b"\1\0\0\0")
    bomb.write_bytes(content)
    with pytest.raises(RefusedPublishError):
        publisher(paths).publish(ADA, "bomb", Announcement(groups=("imaging",)), bomb)
    assert [path.name for path in member_records.store(paths).folder.iterdir()] == []


@needs_root
def test_a_link_in_an_archive_is_refused(paths: Paths) -> None:
    packed = paths.state / "link.zip"
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("app.py", "")
        link = zipfile.ZipInfo("shadow")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/shadow")
    with pytest.raises(RefusedPublishError, match="no plain file"):
        publisher(paths).publish(ADA, "link", Announcement(groups=("imaging",)), packed)


@needs_root
def test_a_damaged_record_leaves_the_others_alone(paths: Paths, folder: Path) -> None:
    published(paths, folder)
    other = member_records.store(paths).folder / "other"
    other.mkdir()
    (other / member_records.LAYOUT.file).write_text('{"name": "other", "owner": "ada"}')
    assert set(member_records.read(paths)) == {"plates"}


@needs_root
def test_a_backup_has_them(paths: Paths, folder: Path) -> None:
    (paths.state / "lab.yaml").write_text(LAB)
    published(paths, folder)
    (member_records.store(paths).folder / ".unpacked-x").mkdir()
    (member_records.store(paths).folder / ".unpacked-x" / "half").touch()
    saved = backups.create(paths).file
    member_records.store(paths).delete("plates")
    backups.restore(paths, saved)
    assert member_records.read(paths)["plates"].owner == "ada"
    assert (
        member_records.store(paths).version_folder("plates", 1) / "data" / "a table.csv"
    ).exists()


# -- where none may be -----------------------------------------------------------------


@needs_root
def test_with_one_origin_for_all_they_are_refused(paths: Paths, folder: Path) -> None:
    with pytest.raises(RefusedPublishError, match="isolation: path"):
        published(paths, folder, LAB + "isolation: path\n")
    published(paths, folder)
    apps, problems = catalogue.read(parse(LAB + "isolation: path\n"), paths)
    assert "plates" not in [app.name for app in apps]
    assert "isolation: path" in str(problems[-1])


def test_without_root_they_are_refused(
    paths: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RefusedPublishError, match="account of its own"):
        published(paths, folder)


def settings() -> Settings:
    return parse(LAB)


@needs_root
def test_the_command_line_tells_all_that_is_wrong(paths: Paths, folder: Path) -> None:
    (folder / "app.py").write_text("def f(:\n")
    with pytest.raises(ProblemsError) as caught:
        local.add(str(folder), "No Name", ["nobody"], None, settings(), paths)
    for text in ("app.py, line 1", "no name of an app", "groups that do not exist: nobody"):
        assert text in str(caught.value)
    assert local.is_webapp(str(folder)) and local.is_webapp(str(folder / "app.py"))
    with pytest.raises(ProblemsError, match="You may name any group"):
        local.add(str(folder), "plates", [], None, settings(), paths)
    for_all = CliRunner().invoke(cli, ["app", "add", str(folder), "--everybody"])
    assert for_all.exit_code == 2 and "name them by --group" in for_all.output
    (folder / "service.yaml").touch()
    assert not local.is_webapp(str(folder)) and not local.is_webapp("cellxgene")


@needs_root
def test_a_portal_without_dash_says_so(paths: Paths, folder: Path) -> None:
    shutil.rmtree(paths.envs / "dash")
    with pytest.raises(RefusedPublishError, match="Dash apps is not built"):
        published(paths, folder)
    # The command line, which comes next, builds it.
    assert local.add(str(folder), None, ["imaging"], None, settings(), paths).kind == "dash"
