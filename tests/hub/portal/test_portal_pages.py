"""The portal's own pages for people and administrators, asked over HTTP as a browser does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from hub.state.messages import MessageBoard
from hub.state.paths import Paths
from tests.conftest import needs_root
from tests.support.portal import Browser, People, Portal

pytestmark = [needs_root]


@pytest.fixture(scope="module")
def boss(people: People) -> str:
    return people.add("boss")


@pytest.fixture(scope="module")
def ada(people: People) -> str:
    return people.add("ada")


@pytest.fixture(scope="module")
def portal(boss: str, ada: str) -> Iterator[Portal]:
    with Portal({"admins": [boss], "groups": {"imaging": [ada], "other": []}}) as running:
        yield running


@pytest.fixture(scope="module")
def as_boss(portal: Portal, boss: str) -> Browser:
    browser = portal.browser()
    browser.login(boss)
    return browser


@pytest.fixture(scope="module")
def as_ada(portal: Portal, ada: str) -> Browser:
    browser = portal.browser()
    browser.login(ada)
    return browser


@pytest.fixture
def board(portal: Portal) -> Iterator[MessageBoard]:
    board = MessageBoard(Paths(portal.state, portal.envs))
    yield board
    for one in board.current():
        board.remove(one.id)


def texts(browser: Browser) -> list[str]:
    return [one["text"] for one in browser.hub("GET", "/labhub/messages").json()]


# -- messages -------------------------------------------------------------------------


def test_a_message_stands_on_every_page_and_strangers_see_what_is_for_everybody(
    portal: Portal, board: MessageBoard, as_ada: Browser, as_boss: Browser
) -> None:
    board.add("The <b>freezer</b> & the fridge.", "root")
    board.add("Only imaging.", "root", groups=["imaging"])
    stranger = portal.browser()
    shown = "The &lt;b&gt;freezer&lt;/b&gt; &amp; the fridge."
    for browser, path in (
        (as_ada, "/hub/home"),
        (as_ada, "/hub/token"),
        (as_ada, "/hub/nowhere"),
        (as_boss, "/hub/admin"),
        (stranger, "/hub/login"),
    ):
        page = browser.get(path).text
        assert shown in page, path
        assert ("Only imaging." in page) == (browser is as_ada), path
    assert set(texts(as_ada)) == {"The <b>freezer</b> & the fridge.", "Only imaging."}
    assert texts(stranger) == ["The <b>freezer</b> & the fridge."]


def test_administrators_write_messages_and_take_them_back(
    board: MessageBoard, as_boss: Browser, as_ada: Browser, boss: str, ada: str, portal: Portal
) -> None:
    portal.spawn(ada)
    form = {"text": "Shown for <i>2 h</i>", "for": "7200", "group": ["imaging", "nonsense"]}
    page = as_boss.post("/hub/messages", data={**form, "_xsrf": as_boss.xsrf})
    assert page.status_code == 200
    (one,) = board.current()
    assert (one.author, one.groups, one.begins) == (boss, ("imaging",), None)
    assert one.until == pytest.approx(time.time() + 7200, abs=120)
    assert "Shown for &lt;i&gt;2 h&lt;/i&gt;" in page.text
    assert re.search(rf'<th scope="row">{ada}</th>', page.text), "who runs what"
    portal.stop_server(ada)
    empty = as_boss.post("/hub/messages", data={"text": " ", "_xsrf": as_boss.xsrf})
    assert empty.status_code == 400
    assert "is empty" in empty.text
    as_boss.post("/hub/messages", data={"remove": one.id, "_xsrf": as_boss.xsrf})
    assert board.current() == ()


def test_nobody_else_writes_messages(
    board: MessageBoard, as_ada: Browser, as_boss: Browser, portal: Portal
) -> None:
    assert as_ada.get("/hub/messages").status_code == 403
    form = {"text": "send me your password", "for": "7200"}
    assert as_ada.post("/hub/messages", data={**form, "_xsrf": as_ada.xsrf}).status_code == 403
    assert as_boss.post("/hub/messages", data=form).status_code == 403, "another page's form"
    assert portal.browser().post("/hub/messages", data=form).status_code in (403, 405)
    assert board.current() == ()


def test_no_server_starts_in_maintenance_but_an_administrators(
    board: MessageBoard, as_ada: Browser, portal: Portal, ada: str, boss: str
) -> None:
    portal.spawn(ada)
    portal.api("POST", f"/users/{boss}")
    board.add("We update.", "root", begins=time.time() - 1, until=time.time() + 3600)
    assert portal.api("GET", f"/users/{ada}").json()["servers"][""]["ready"], "it goes on"
    portal.stop_server(ada)
    answer = as_ada.hub("POST", f"/users/{ada}/server", json={"profile": "stub"})
    assert answer.status_code == 503
    assert "under maintenance" in answer.text
    form = {"profile": "stub", "_xsrf": as_ada.xsrf}
    page = as_ada.post("/hub/spawn", data=form)
    assert "The portal is under maintenance: no new servers start until" in page.text
    portal.spawn(boss)
    portal.stop_server(boss)
    for one in board.current():
        board.remove(one.id)
    portal.spawn(ada)
    portal.stop_server(ada)
