"""The picture of the packages: it is what the imports say."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Any

import pytest

from tests.support.portal import REPOSITORY


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    place = REPOSITORY / ".ci" / "package_picture.py"
    spec = importlib.util.spec_from_file_location("package_picture", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def edges(picture: ModuleType) -> Any:
    return picture.imports()


def graph(**imports: str) -> dict[str, frozenset[str]]:
    return {
        f"hub.{name}": frozenset(f"hub.{other}" for other in used.split())
        for name, used in imports.items()
    }


def test_the_picture_in_the_documentation_is_current(picture: ModuleType, edges: Any) -> None:
    hint = "draw it anew: PYTHONPATH=. python .ci/package_picture.py, with the Python of dev"
    assert picture.FILE.read_text(encoding="utf-8") == picture.draw(edges), hint
    page = (REPOSITORY / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    assert f"]({picture.FILE.name})" in page


def test_every_package_is_in_the_picture(picture: ModuleType, edges: Any) -> None:
    shown = re.findall(r">([\w]+)</text>", picture.draw(edges))
    folders = {
        path.parent.name
        for root in picture.ROOTS
        for path in REPOSITORY.glob(f"{root}/*/__init__.py")
    }
    assert len(folders) > 20
    assert folders <= set(shown)


def test_what_the_imports_say_is_seen(edges: Any) -> None:
    assert {"hub.state", "services.gate", "labkit.base"} <= edges["hub.apps"]
    assert "hub.runtime" not in edges["hub.apps"]
    assert edges["hub.labfile"] == {"labkit.base"}


def test_packages_stand_above_all_that_they_import(picture: ModuleType) -> None:
    edges = graph(cli="state sandbox", sandbox="state", state="", labfile="")
    assert picture.layers(edges) == [["hub.cli"], ["hub.sandbox"], ["hub.state", "hub.labfile"]]


def test_a_circle_has_no_layers(picture: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"among: hub\.apps, hub\.portal$"):
        picture.layers(graph(apps="portal state", portal="apps", state=""))


def test_an_edge_that_follows_from_others_is_counted_and_not_drawn(picture: ModuleType) -> None:
    edges = graph(cli="state sandbox", sandbox="state", state="")
    assert picture.reduced(edges) == graph(cli="sandbox", sandbox="state", state="")
    drawn = picture.draw({**edges, "labkit.base": frozenset()})
    assert drawn.count("<path ") == 2
    assert "hub: 3 packages and modules in 3 layers, 3 edges, 0 to services, 0 to labkit" in drawn
