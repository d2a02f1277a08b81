"""A lock that people could open is one that they could hold for ever."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.environments import build
from hub.environments.build import Environments
from hub.environments.toolchain import BuildError
from hub.sandbox.sandboxes import Sandboxes
from hub.state.paths import Paths
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
