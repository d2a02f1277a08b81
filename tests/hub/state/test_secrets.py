"""A secret that the group can read: only in the folder that the lab file names."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

import pytest

from hub.labfile.read import parse
from hub.state import create, secrets
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError

VALUE = token_hex(32)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(state=tmp_path / "state", envs=tmp_path / "envs")
    create.make_folders(made)
    return made


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """As Kubernetes mounts a Secret: each name is a link into a folder that is swapped."""
    folder = tmp_path / "mounted"
    (folder / "..data").mkdir(parents=True)
    for name in ("oauth_client_secret", "gate_key"):
        (folder / "..data" / name).write_text(VALUE)
        (folder / "..data" / name).chmod(0o440)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def test_a_mounted_secret_may_be_the_groups(paths: Paths, mounted: Path) -> None:
    named = parse(f"secrets: {{mounted: {mounted}}}").secrets.mounted
    assert secrets.read(paths, "oauth_client_secret", mounted=named) == VALUE
    assert create.read_secret(paths, "gate_key", named) == VALUE
    assert create.secret_problems(paths, named) == []
    assert "gate_key" not in create.make_secrets(paths, named)


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o441, 0o442])
def test_a_mounted_secret_is_never_everybodys_or_written_by_the_group(
    paths: Paths, mounted: Path, mode: int
) -> None:
    for name in ("oauth_client_secret", "gate_key"):
        (mounted / name).chmod(mode)
    with pytest.raises(ProblemsError, match="other accounts can read it"):
        secrets.read(paths, "oauth_client_secret", mounted=mounted)
    with pytest.raises(ProblemsError, match=r"other accounts can read it.*where .* comes from"):
        create.read_secret(paths, "gate_key", mounted)


@pytest.mark.parametrize("named", [False, True])
def test_elsewhere_it_is_refused_as_before(
    paths: Paths, mounted: Path, tmp_path: Path, named: bool
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("oauth_client_secret", "gate_key"):
        file = paths.secrets / name
        file.write_text(VALUE)
        file.chmod(0o440)
    where = other if named else None
    with pytest.raises(ProblemsError, match=r"mode 440"):
        secrets.read(paths, "oauth_client_secret", mounted=where)
    with pytest.raises(ProblemsError, match=r"mode 440"):
        create.read_secret(paths, "gate_key", where)
    assert mounted.is_dir()


def test_without_the_lab_files_word_a_mounted_folder_is_not_looked_into(
    paths: Paths, mounted: Path
) -> None:
    assert mounted.is_dir()
    with pytest.raises(ProblemsError, match="is missing"):
        secrets.read(paths, "oauth_client_secret", mounted=parse("").secrets.mounted)
