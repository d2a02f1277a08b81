from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets.config import Config

from hub.environments import rstudio
from hub.labfile.schema import App, Culling, Lab, Profile, Settings
from hub.portal import cards, pages
from hub.portal.home import Home
from hub.portal.pages import TEMPLATES
from hub.state.paths import Paths
from labkit.base.problems import Problem

PATHS = Paths(state=Path("/nowhere"), envs=Path("/nowhere/envs"))
NOW = datetime(2026, 5, 1, 12, 0)


def person(**spawners: Any) -> Any:
    orm = {name.replace("_", ""): s.orm for name, s in spawners.items()}
    return SimpleNamespace(
        name="ada",
        admin=False,
        groups=[],
        orm_user=SimpleNamespace(orm_spawners=orm),
        spawners={name.replace("_", ""): s for name, s in spawners.items()},
        server_url=lambda name: f"http://ada.localhost/user/ada/{name + '/' if name else ''}",
    )


def spawner(pending: str | None = None, ready: bool = False, error: Any = None, **orm: Any) -> Any:
    values = {"user_options": {"profile": "standard"}, "started": None, "last_activity": None}
    return SimpleNamespace(
        pending=pending,
        ready=ready,
        _failed=error is not None,
        _spawn_future=SimpleNamespace(exception=lambda: error),
        orm=SimpleNamespace(**{**values, **orm}),
        ends_at=None,
        remark="",
        ended=None,
    )


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("help@lab.example", "mailto:help@lab.example"),
        ("https://lab.example/help", "https://lab.example/help"),
        ("Dr. Ada, room 5", None),
        ("javascript:alert(1)", None),
        ("ask ada@lab.example", None),
        (None, None),
    ],
)
def test_a_contact_leads_to_mail_or_web_or_nowhere(contact: str | None, link: str | None) -> None:
    assert pages.contact_link(contact) == link


def test_static_files_are_named_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a")
    before = pages.assets(tmp_path)["a.css"]
    assert before.startswith("a.css?v=")
    (tmp_path / "a.css").write_text("b")
    assert pages.assets(tmp_path)["a.css"] != before


@pytest.mark.parametrize(
    ("isolation", "hub_url"),
    [("subdomain", "http://localhost:8000/hub/"), ("path", "/hub/")],
)
def test_links_to_the_hub_leave_a_users_own_origin(isolation: Any, hub_url: str) -> None:
    c = Config()
    pages.configure(c, Settings(isolation=isolation), PATHS)
    assert c.JupyterHub.template_vars["hub_url"] == hub_url
    assert c.JupyterHub.template_vars["portal"](None) is None


def test_the_labs_own_logo_is_used(tmp_path: Path) -> None:
    logo = tmp_path / "logo.png"
    logo.write_bytes(b"png")
    c = Config()
    pages.configure(c, Settings(lab=Lab(logo=logo)), PATHS)
    assert c.JupyterHub.logo_file == str(logo)


def test_apps_are_shown_to_those_who_may_open_them() -> None:
    settings = Settings(
        apps=(
            App(name="wiki", title="Wiki", url="https://w.example"),
            App(name="rota", title="Rota", url="https://r.example", groups=("staff",)),
        ),
        groups={"staff": ()},
    )

    def titles(*args: Any) -> list[str]:
        return [card.title for card in cards.cards(settings, PATHS, *args)]

    assert titles([]) == ["JupyterLab", "CellxGene", "Wiki"]
    assert titles(["staff"]) == ["JupyterLab", "CellxGene", "Wiki", "Rota"]
    assert titles([], True) == ["JupyterLab", "CellxGene", "Wiki", "Rota"]


def test_r_is_shown_to_those_whose_profiles_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        profiles=(
            Profile(name="standard", title="Standard"),
            Profile(name="r", title="R", environment="r", groups=("stats",)),
        ),
        groups={"stats": ()},
    )

    def titles(groups: list[str]) -> list[str]:
        return [card.title for card in cards.cards(settings, PATHS, groups)][2:]

    monkeypatch.setattr(rstudio, "_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert titles([]) == []
    assert titles(["stats"]) == ["Shiny preview"]

    def missing(settings: Settings, *, here: bool = True) -> list[Problem]:
        return list(rstudio.problems(settings.profiles, on_this_machine=here))

    (problem,) = missing(settings)
    assert missing(settings, here=False) == []  # nodes are other machines
    assert problem.warning
    assert "docs/how-to/rstudio.md" in problem.hint
    assert missing(Settings()) == []  # nobody has R: nothing is missing

    (tmp_path / "rserver").touch(mode=0o755)
    assert titles([]) == []
    assert titles(["stats"]) == ["RStudio", "Shiny preview"]
    assert missing(settings) == []


def test_a_tutorial_is_called_by_its_first_heading(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["# no heading\n"]},
        {"cell_type": "markdown", "source": ["text\n", "# Cells and genes\n"]},
    ]
    (tmp_path / "02 a&b.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "01_broken.ipynb").write_text("{")
    (tmp_path / "notes.md").write_text("# no")
    first, second = cards.tutorials(tmp_path)
    assert first.title == "01 broken"
    assert second.title == "Cells and genes"
    assert second.url == "user-redirect/lab/tree/tutorials/02%20a%26b.ipynb"
    assert cards.tutorials(tmp_path / "none") == []


def test_home_tells_when_an_idle_server_would_stop() -> None:
    used = NOW - timedelta(minutes=10)
    running = spawner(ready=True, started=NOW - timedelta(hours=3), last_activity=used)

    def stops(culling: Culling) -> tuple[datetime | None, str]:
        server = Home(Settings(culling=culling), PATHS, person(_=running)).servers[0]
        return server.stops, server.stops_because

    hours = timedelta(hours=1)
    assert stops(Culling(idle=2 * hours)) == ((used + 2 * hours).replace(tzinfo=UTC), "idle")
    assert stops(Culling(idle=2 * hours, max_age=4 * hours)) == (
        (NOW + hours).replace(tzinfo=UTC),
        "age",
    )
    assert stops(Culling(idle=None)) == (None, "")
    running.ends_at = (NOW + hours / 2).replace(tzinfo=UTC).timestamp()  # its job's time limit
    end = (NOW + hours / 2).replace(tzinfo=UTC)
    assert stops(Culling(idle=2 * hours)) == (end, "limit")


def test_home_shows_each_server_in_its_state() -> None:
    user = person(
        _=spawner(ready=True, started=NOW),
        one=spawner(pending="spawn"),
        two=spawner(pending="stop"),
        three=spawner(error=RuntimeError("no room")),
        four=spawner(user_options={"profile": "gone"}),
    )
    home = Home(Settings(), PATHS, user)
    found = {s.name: (s.state, s.reason, s.profile) for s in home.servers}
    assert found == {
        "": ("running", "", "Standard"),
        "one": ("starting", "", "Standard"),
        "two": ("stopping", "", "Standard"),
        "three": ("failed", "no room", "Standard"),
        "four": ("stopped", "", ""),
    }
    assert home.servers[0].name == ""
    assert home.named == 4
    assert not home.is_new
    assert home.servers[1].url == "http://ada.localhost/user/ada/four/"
    assert home.servers[1].path == "ada/four"


def test_somebody_who_never_came_is_new() -> None:
    home = Home(Settings(), PATHS, person())
    assert home.is_new
    assert [s.state for s in home.servers] == ["stopped"]


def test_every_page_says_which_scripts_may_run() -> None:
    """A page extends one of the two that hold the policy; JupyterHub's own extend page.html."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy" content="script-src ([^;"]+);')
    rules = {}
    for template in TEMPLATES.glob("*.html"):
        text = template.read_text()
        said, above = policy.search(text), re.search(r'{% extends "([^"]+)" %}', text)
        if said:
            rules[template.name] = said[1]
        elif above:
            assert above[1] in ("lab.html", "page.html", "error.html")
            assert not re.search(r"<script(?![^>]*\bsrc=)", text), template.name
        else:
            assert not re.search(r"<(html|body)\b", text), template.name  # a part of a page
    assert rules == {"lab.html": "'self'", "page.html": "'self' 'unsafe-inline'"}
