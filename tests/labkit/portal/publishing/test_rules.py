"""Names, texts and groups of published things, whatever their kind."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.base.problems import Problem
from labkit.portal import wire
from labkit.portal.datasets import rules as datasets
from labkit.portal.publishing.client import same_version
from labkit.portal.publishing.rules import GROUPS_MOST, Rules, is_group
from labkit.portal.webapps import rules as webapps

BOTH = pytest.mark.parametrize("rules", [datasets.RULES, webapps.RULES], ids=["dataset", "app"])


@BOTH
@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a b", "../x", "a/b", "é", "a\n", "a" * 49, 7, None]
)
def test_names_that_no_kind_has(rules: Rules, name: Any) -> None:
    assert not rules.is_name(name)
    [problem] = rules.check_name(name)
    assert f"is no name of {rules.noun}" in problem.text


def test_each_kind_has_names_of_its_own() -> None:
    assert datasets.RULES.is_name("pbmc_3k") and not webapps.RULES.is_name("pbmc_3k")
    assert datasets.RULES.is_name("a" * 48) and not webapps.RULES.is_name("a" * 23)
    assert webapps.RULES.is_name("a" * 22)


@BOTH
@pytest.mark.parametrize(
    ("title", "text"),
    [("x" * 200, "at most"), ("two\nlines", "one line"), ("\x1b[2J", "one line"), (" ", "empty")],
)
def test_a_title_is_one_line_that_says_something(rules: Rules, title: str, text: str) -> None:
    [problem] = rules.check_texts({"title": title})
    assert problem.where == "title" and text in problem.text
    assert list(rules.check_texts({"title": None, "other": 3})) == []


def test_a_datasets_description_may_have_lines() -> None:
    fields = {"description": "one\n\ttwo"}
    assert list(datasets.RULES.check_texts(fields)) == []
    assert len(list(webapps.RULES.check_texts(fields))) == 1
    [problem] = datasets.RULES.check_texts({"description": "\x00"})
    assert "cannot be shown" in problem.text


@BOTH
def test_groups_are_ones_own(rules: Rules) -> None:
    def texts(groups: Any, **more: Any) -> str:
        known: dict[str, Any] = {"admin": False, **more}
        return " ".join(map(str, rules.check_groups(groups, {"imaging"}, **known)))

    assert texts(["imaging"]) == ""
    assert "you are not in: plants. Yours are: imaging" in texts(["plants", "imaging"])
    assert texts(["plants"], admin=True) == "" and texts(["plants"], kept=["plants"]) == ""
    for wrong in ("imaging", [1], ["a,b"], [" a"], {"imaging"}):
        assert "list of names of groups" in texts(wrong), wrong
    many = [f"g{number}" for number in range(GROUPS_MOST + 1)]
    assert "more than" in texts(many, admin=True)
    assert bool(texts([])) is rules.needs_group


def test_a_group_by_a_name_that_a_header_can_carry() -> None:
    assert is_group("imaging") and is_group("École 3")
    for name in ("", " a", "a,b", "a\nb", "x" * 129, None):
        assert not is_group(name)


def test_what_a_notebook_refuses_before_it_asks() -> None:
    found = datasets.RULES.check_request("No Such", {"title": "a\nb", "groups": "imaging"})
    assert [one.where for one in found] == ["name", "title", "groups"]


def test_a_refusal_arrives_as_it_was_sent() -> None:
    sent = [Problem("name", "it is taken.", "Choose another."), Problem("groups", "none.")]
    body = wire.refusal(sent)
    assert body["message"] == "name: it is taken.; groups: none."
    assert wire.problems(body) == tuple(sent)
    assert wire.problems({}) == () and wire.problems({"problems": ["x", 3]}) == ()


def test_the_same_bytes_are_the_version_that_has_them() -> None:
    versions = [{"number": n, "sha256": digest} for n, digest in ((1, "a"), (2, "b"), (3, "a"))]
    mine = {"may_change": True, "versions": versions}
    assert [same_version(mine, digest) for digest in "abc"] == [3, 2, None]
    assert same_version({**mine, "may_change": False}, "a") is None
    assert same_version(None, "a") is None
