"""Taking a person out of a group in the lab file takes them out of it in the hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from jupyterhub import orm
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from hub.portal import groups
from hub.portal.groups import SOURCE


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A hub's database: ada and bob in imaging (lab file), bob in club (admin page)."""
    address = f"sqlite:///{tmp_path}/hub.sqlite"
    with orm.new_session_factory(address)() as db:
        people = {name: orm.User(name=name) for name in ("ada", "bob")}
        db.add_all(people.values())
        db.add(orm.Group(name="imaging", properties=SOURCE, users=list(people.values())))
        db.add(orm.Group(name="club", properties={}, users=[people["bob"]]))
        db.commit()
    return address


def members(url: str) -> dict[str, list[str]]:
    with orm.new_session_factory(url)() as db:
        return {g.name: sorted(u.name for u in g.users) for g in db.query(orm.Group)}


def follow_lab_file(url: str, members: Mapping[str, Collection[str]]) -> list[str]:
    with Session(create_engine(url)) as db:
        return groups.follow_lab_file(db, members)


def test_only_the_removed_go(url: str) -> None:
    assert follow_lab_file(url, {"imaging": ("ada",)}) == ["imaging: bob"]
    assert members(url) == {"imaging": ["ada"], "club": ["bob"]}
    assert follow_lab_file(url, {"imaging": ("ada",)}) == []


def test_a_group_gone_from_the_file_is_emptied(url: str) -> None:
    assert sorted(follow_lab_file(url, {})) == ["imaging: ada", "imaging: bob"]
    assert members(url) == {"imaging": [], "club": ["bob"]}


def test_before_the_first_start(tmp_path: Path) -> None:
    assert follow_lab_file(f"sqlite:///{tmp_path}/new.sqlite", {"imaging": ("ada",)}) == []
