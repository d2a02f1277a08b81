"""A lock that people could open is one that they could hold for ever."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.environments import build
from hub.environments.build import Environments
from hub.environments.toolchain import BuildError
from hub.sandbox.sandboxes import Sandboxes
from hub.state.create import make_folders
from hub.state.paths import Paths
from labkit.base.files import locked
from labkit.workflows.alignment.task_code import cache
from tests.conftest import needs_root
from tests.security.bare_sandbox import PYTHON, bare_sandboxes, run_inside

# Holds every lock under a folder that can be opened; prints how many.
ATTACK = """
import fcntl, os, sys
held = []
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            file = open(os.path.join(folder, name))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        held.append(os.path.relpath(file.name, sys.argv[1]))
print(sorted(held))
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "envs").mkdir()
    return Paths(tmp_path / "state", tmp_path / "envs")


@pytest.fixture
def sandboxes(tmp_path: Path) -> Iterator[Sandboxes]:
    with bare_sandboxes(tmp_path / "state", "10.240.24.0/24") as those:
        yield those


@needs_root
def test_nobody_holds_the_lock_of_an_environment(
    paths: Paths, sandboxes: Sandboxes, ada: str
) -> None:
    with Environments(paths)._locked("notebook"):
        pass  # the file is there from now on
    (paths.envs / "plain").write_text("")
    for parent in (paths.envs, *paths.envs.parents[:-2]):
        parent.chmod(0o755)
    shared = type(sandboxes.shared)(read_only=[paths.envs])
    sandboxes.shared = shared
    done = run_inside(sandboxes, ada, [PYTHON, "-c", ATTACK, str(paths.envs)])
    assert done.stdout.strip() == "['plain']", done.stderr


def test_the_folder_is_closed(paths: Paths) -> None:
    (paths.envs / ".locks").mkdir(mode=0o755)
    with Environments(paths)._locked("notebook"):
        assert (paths.envs / ".locks").stat().st_mode & 0o777 == 0o700


def test_a_lock_is_closed_to_others(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for before in (None, 0o666):
        lock.touch()
        lock.chmod(before) if before else lock.unlink()
        with locked(lock, 1, "the list"):
            assert lock.stat().st_mode & 0o777 == 0o600


def test_locks_of_earlier_versions_go(paths: Paths) -> None:
    """Anybody could hold them; `up` asks for each environment, also where nothing is to do."""
    for name in (".hub.lock", ".gone.lock"):
        (paths.envs / name).touch(mode=0o644)
    (paths.envs / "adopted").mkdir()
    (paths.envs / "hub").symlink_to(paths.envs / "adopted")
    assert not Environments(paths).build("hub")
    assert sorted(entry.name for entry in paths.envs.iterdir()) == ["adopted", "hub"]


def test_uvs_lock_in_an_environment_is_closed(paths: Paths) -> None:
    """It makes it for everybody to write, in a folder that every sandbox reads."""
    make_folders(paths)
    environments = Environments(paths)
    uv = environments._uv("tiny")
    folder = paths.envs / "tiny"
    for earlier in (False, True):
        if earlier:
            (folder / ".lock").chmod(0o666)
            environments._remove_open_locks()
            assert not (folder / ".lock").exists()
        else:
            subprocess.run([uv, "venv", "--quiet", "--no-project", folder], check=True)
        build._close_lock(folder)
        subprocess.run(
            [uv, "pip", "uninstall", "--quiet", "--python", folder / "bin" / "python", "nothing"],
            check=True,
        )
        assert (folder / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_held_lock_of_references_costs_time_not_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read a cache that is shared can hold its locks; renames keep it right."""
    monkeypatch.setattr(cache, "_LOCK_TIMEOUT", 0.1)
    said: list[str] = []
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "one").touch()
    with (tmp_path / "locks" / "one").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with cache.Cache(tmp_path, tell=said.append)._locked("one", "the index of bwa"):
            pass
    waiting, going_on = said
    assert waiting == f"waiting for another job that makes the index of bwa ({tmp_path}/locks/one)"
    assert "without waiting any longer" in going_on


def test_the_wait_ends_and_says_on_what(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_LOCK_TIMEOUT", 0.1)
    said: list[str] = []
    (paths.envs / ".locks").mkdir()
    with (paths.envs / ".locks" / "notebook").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(BuildError, match=r"the environment notebook .* has been held"),
            Environments(paths, said.append)._locked("notebook"),
        ):
            pytest.fail("it was held")
    assert said
    assert said[0].startswith("waiting for the environment notebook")
