"""What people expect of a project: license, version, citation, and a release that can be made."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import labkit
from labkit.base import version
from tests.support.portal import REPOSITORY

CITATION = REPOSITORY / "CITATION.cff"


def project() -> dict[str, object]:
    declared: dict[str, object] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return declared["project"]  # type: ignore[return-value]


def copy_of_the_repository(folder: Path) -> Path:
    """Copy the files of the repository, and commit them there."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run(
        [*command, "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs a git clone")
    for name in filter(None, done.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("docs/", "tests/", "bench/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


def release(top: Path, number: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(top / ".ci" / "release.py"), number, "--out", str(top / "dist")]
    return subprocess.run(command, cwd=top, capture_output=True, text=True, check=False)


def test_the_version_is_the_project_s_everywhere() -> None:
    number = project()["version"]
    assert labkit.__version__ == number
    assert re.search(rf"(?m)^version: {re.escape(str(number))}$", CITATION.read_text())
    package = REPOSITORY / "labkit" / "server" / "data" / "labextension" / "package.json"
    assert json.loads(package.read_text())["version"] == number
    headings = re.findall(r"(?m)^## (.*)$", (REPOSITORY / "CHANGELOG.md").read_text())
    newest = [heading for heading in headings if not heading.endswith("(unreleased)")]
    assert headings and (not newest or newest[0].startswith(f"{number} ("))


def test_an_installed_labkit_has_the_version_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "__file__", str(tmp_path / "labkit" / "base" / "version.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 9")
    assert version.version() == "labhub 9"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "1"\n')
    assert version.version() == "labhub 9"


def test_license_and_citation_are_what_they_say(tmp_path: Path) -> None:
    assert (REPOSITORY / "LICENSE").read_text().startswith("BSD 3-Clause License\n")
    assert project()["license"] == "BSD-3-Clause"
    assert project()["authors"]
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    check.append("vendor.citation-file-format")
    subprocess.run([*check, str(CITATION)], check=True)
    wrong = tmp_path / "CITATION.cff"
    wrong.write_text(CITATION.read_text().replace("authors:", "writers:"))
    assert subprocess.run([*check, str(wrong)], check=False, capture_output=True).returncode


def test_the_development_container_has_what_is_in_its_file() -> None:
    folder = REPOSITORY / ".devcontainer"
    declared = json.loads((folder / "devcontainer.json").read_text())
    assert (folder / declared["build"]["dockerfile"]).is_file()
    assert (folder / declared["build"]["context"]).resolve() == REPOSITORY
    sources = re.findall(r"(?m)^COPY (\S+)", (folder / "Containerfile").read_text())
    assert sources and all((REPOSITORY / name).exists() for name in sources)


@pytest.mark.slow
def test_a_release_is_made_of_a_copy(tmp_path: Path) -> None:
    top = copy_of_the_repository(tmp_path)
    older = release(top, "0.0.9")
    assert older.returncode == 1 and "0.0.9 is older than" in older.stderr
    assert (
        release(top, "1.0").stderr == "release: '1.0' is no version: three numbers with dots are\n"
    )
    done = release(top, "99.1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(top / "dist" / "labhub-99.1.0-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read("labhub-99.1.0.dist-info/METADATA").decode()
    assert wheel_is_labkit_alone(names)
    assert "Requires-Dist: pandas" in metadata and "License-Expression: BSD-3-Clause" in metadata
    changes = (top / "CHANGELOG.md").read_text()
    assert re.search(r"(?m)^## 99\.1\.0 \(20\d\d-\d\d-\d\d\)$", changes)
    assert "date-released: 20" in (top / "CITATION.cff").read_text()
    again = release(top, "99.2.0")
    assert again.returncode == 1 and "not committed" in again.stderr


def wheel_is_labkit_alone(names: set[str]) -> bool:
    tops = {name.partition("/")[0] for name in names}
    return tops == {"labkit", "labhub-99.1.0.dist-info", "labhub-99.1.0.data"}
