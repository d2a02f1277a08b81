"""The documentation as a site: built strictly, complete, and alone in the world."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import labkit
from tests.support.portal import REPOSITORY

_ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
_LINKS_THAT_LOAD = {"stylesheet", "preload", "icon", "preconnect", "modulepreload", "manifest"}


class Loads(HTMLParser):
    """What a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        url = values.get(_LOADS.get(tag, ""), "")
        if tag == "link" and _LINKS_THAT_LOAD & set(values.get("rel", "").split()):
            url = values.get("href", "")
        if _ELSEWHERE.match(url):
            self.elsewhere.append(f"{tag} {url}")


def loads(text: str) -> list[str]:
    parser = Loads()
    parser.feed(text)
    return parser.elsewhere


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_every_page_is_there_and_can_be_found(site: Path) -> None:
    written = {
        path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")
    }
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert written <= built
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in index}
    assert {"reference/labkit.html", "changes.html", "how-to/jobs.html"} <= found


def test_every_public_name_of_labkit_has_its_reference(site: Path) -> None:
    text = (site / "reference" / "labkit.html").read_text()
    names = set(re.findall(r'id="labkit\.[\w.]*?\.?(\w+)" class="doc doc-heading"', text))
    assert {name for name in labkit.__all__ if not name.startswith("_")} <= names
    assert "Parameters:" in text and "Raises:" in text  # numpydoc was understood


def test_the_site_takes_nothing_from_other_servers(site: Path) -> None:
    pages = {path: loads(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 20
    assert {path.name: found for path, found in pages.items() if found} == {}
    for style in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s]+)", style.read_text())
        assert [url for url in urls if _ELSEWHERE.match(url)] == [], style.name


def test_what_would_be_loaded_from_elsewhere_is_seen() -> None:
    assert loads('<script src="https://cdn.example/x.js"></script>')
    assert loads('<link rel="stylesheet" href="//fonts.example/css">')
    assert not loads('<a href="https://example.org">text</a><script src="../assets/x.js"></script>')


def test_the_reference_names_what_labkit_offers() -> None:
    place = REPOSITORY / ".ci" / "site_hooks.py"
    spec = importlib.util.spec_from_file_location("site_hooks", place)
    assert spec and spec.loader
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert set(hooks.public_names()) == {name for name in labkit.__all__ if name[0] != "_"}
