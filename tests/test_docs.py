"""The texts: every link leads somewhere, and nothing names one machine or one registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.portal import REPOSITORY

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_BINARY = {".png", ".gz", ".h5ad", ".tif", ".tiff", ".npz"}

# Built from pieces, so that this file does not match itself.
_FORBIDDEN = {
    "a package registry's host": re.compile(
        "|".join(
            re.escape(".".join(host))
            for host in (
                ("pypi", "org"),
                ("pythonhosted", "org"),
                ("registry", "npmjs", "org"),
                ("registry", "yarnpkg", "com"),
                ("conda", "anaconda", "org"),
                ("deb", "debian", "org"),
                ("archive", "ubuntu", "com"),
                ("docker", "io"),
                ("ghcr", "io"),
                ("quay", "io"),
                ("crates", "io"),
                ("repo", "maven", "apache", "org"),
                ("repo1", "maven", "org"),
                ("proxy", "golang", "org"),
            )
        )
    ),
    "a path of one machine": re.compile(
        r"(?<![\w./-])/(?:" + "|".join(("work/" + "main", "opt/" + "lh", "root/" + r"\.")) + ")"
    ),
}


def tracked() -> list[Path]:
    """Return the files of the repository; where there is no git, those that are there."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs a git clone")
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def anchors(text: str) -> set[str]:
    """Return the places of a Markdown file, named as GitHub and GitLab name them."""
    found = re.findall(r"(?m)^#+\s+(.*?)\s*$", re.sub(r"(?s)```.*?```", "", text))
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in found)
    return {title.replace(" ", "-") for title in words}


def pages() -> list[Path]:
    return [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.is_relative_to(REPOSITORY) or not place.exists():
            broken.append(target)
        elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text()):
            broken.append(f"{target} (there is no such heading)")
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    left = [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        for target in _LINK.findall(page.read_text()):
            name = target.partition("#")[0]
            if name.endswith(".md") and ":" not in name:
                left.append((page.parent / name).resolve())
    lost = [page for page in pages() if page not in seen]
    assert [str(page.relative_to(REPOSITORY)) for page in lost] == []


def test_code_and_tests_that_the_texts_name_exist() -> None:
    names = {path.name for path in tracked()}
    lost = []
    for page in (REPOSITORY / "docs").rglob("*.md"):
        text = page.read_text()
        tests = re.findall(r"`(?:[\w/]+/)?(test_[a-z_]+\.py)`", text)
        paths = re.findall(r"`((?:hub|labkit|tests|images|config)/[\w/.-]+)`", text)
        lost += [f"{page.name}: {name}" for name in tests if name not in names]
        lost += [f"{page.name}: {path}" for path in paths if not (REPOSITORY / path).exists()]
    assert lost == []


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in tracked():
        if path.suffix in _BINARY:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if _FORBIDDEN[what].search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    assert found == []
