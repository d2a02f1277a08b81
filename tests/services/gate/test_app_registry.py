"""The gate's memory: what it asks the hub, how long it believes it, and what it forgets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from labkit.relay.origin import is_foreign
from services.gate import config, identity
from services.gate.app_registry import AppRegistry
from services.gate.config import App, Config, Portal
from services.gate.headers import from_app, to_app
from services.gate.identity import FRESH, HubAwayError, Identity, Person

KEY = "ab" * 32
APP = App("plates", "Plates", "/services/plates/", "http://plates--service.localhost:8000")
PORTAL = Portal(
    "Lab", "", "http://localhost:8000", "http://127.0.0.1:1/hub", True, 0, "10.0.0.1", ""
)
ADA = {"name": "ada", "groups": ["a"], "scopes": ["access:services!service=plates"]}


class Hub:
    """Stands in for the hub: answers as it is told, and counts."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self, token: str, session: str) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("services.gate.identity.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def people(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Identity:
    known = Identity(APP, PORTAL, KEY)
    monkeypatch.setattr(known, "_ask", hub)
    return known


async def test_twenty_requests_at_once_ask_once(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(ADA)
    known = people(hub, monkeypatch)
    await asyncio.gather(*(known.model("t", "s") for _ in range(20)))
    assert hub.asked == 1
    assert await known.model("t", "other session") == ADA
    assert hub.asked == 2


async def test_an_answer_is_believed_for_seconds_only(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(ADA)
    known = people(hub, monkeypatch)
    await known.model("t")
    hub.answer = None
    assert await known.model("t") == ADA
    clock(identity.FRESH + 0.1)
    assert await known.model("t") is None


async def test_while_the_hub_is_away(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(ADA)
    known = people(hub, monkeypatch)
    await known.model("t")
    hub.answer = OSError("away")
    clock(identity.FRESH + 0.1)
    assert await known.model("t") == ADA
    clock(identity.STALE)
    with pytest.raises(HubAwayError):
        await known.model("t")
    with pytest.raises(HubAwayError):
        await known.model("stranger")


async def test_a_service_of_the_hub_is_no_person(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(ADA, "t", "", by_cookie=False, allowed=True)
    for model in (
        {**ADA, "kind": "service"},
        {**ADA, "scopes": ["access:services!service=other"]},
        {**ADA, "scopes": []},
        {**ADA, "name": "bob"},
        None,
    ):
        assert await people(Hub(model), monkeypatch).still(person) is None
    again = await people(Hub(ADA), monkeypatch).still(person)
    assert again is not None and again.allowed
    assert "t" not in repr(person).removeprefix("Person")


class Request:
    def __init__(self, person: Person) -> None:
        self.person = person
        self.revoked = 0

    def revoke(self) -> None:
        self.revoked += 1


async def test_an_app_is_there_as_soon_as_it_is_declared(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text(config.dump(Config(PORTAL, {})))
    known = AppRegistry(file, KEY)
    assert known.get("plates") is None
    new = tmp_path / "new.json"
    new.write_text(config.dump(Config(PORTAL, {"plates": APP})))
    new.replace(file)
    route = known.get("plates")  # without a tick of the clock
    assert route is not None and route.app == APP
    await known._reload()
    assert known.get("plates") is route
    assert known.get("elsewhere") is None


async def test_only_who_is_out_is_thrown_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "apps.json"
    file.write_text(config.dump(Config(PORTAL, {"plates": APP})))
    known = AppRegistry(file, KEY)
    route = known.get("plates")
    assert route is not None
    person = Person(ADA, "t", "", by_cookie=True, allowed=True)
    old, young = Request(person), Request(person)
    route.open = {old: -1e9, young: 1e18}
    hub = Hub(OSError("away"))
    monkeypatch.setattr(route.identity, "_ask", hub)
    await known._ask_again()
    assert old.revoked == 0  # the hub is away: nobody can have been thrown out
    hub.answer = None
    await known._ask_again()
    assert (old.revoked, young.revoked) == (1, 0)
    # An app that is taken away takes its open requests with it; a broken file does not.
    file.write_text("{")
    await known._reload()
    assert known.get("plates") is route
    file.write_text(config.dump(Config(PORTAL, {})))
    await known._reload()
    assert known.get("plates") is None
    assert (old.revoked, young.revoked) == (2, 1)
    await known.close()


def test_the_gates_file_has_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text(config.dump(Config(PORTAL, {"plates": APP})))
    assert config.load(file) == Config(PORTAL, {"plates": APP})
    for broken in ("{}", "[]", '{"portal": {}, "apps": []}', json.dumps({"apps": [{"name": 1}]})):
        file.write_text(broken)
        with pytest.raises(ValueError):
            config.load(file)
    assert FRESH * 3 <= 30


@pytest.mark.parametrize(
    ("headers", "method", "websocket", "foreign"),
    [
        ({}, "GET", False, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "GET", False, False),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, "GET", False, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, "GET", False, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "POST", False, True),
        ({"Origin": APP.origin}, "POST", False, False),
        ({"Origin": "null"}, "POST", False, True),
        ({"Origin": f"{APP.origin}.evil.example"}, "POST", False, True),
        ({"Origin": APP.origin}, "GET", True, False),
        ({}, "GET", True, True),
        ({"Origin": "http://localhost:8000"}, "GET", True, True),
    ],
)
def test_which_requests_are_another_pages(
    headers: dict[str, str], method: str, websocket: bool, foreign: bool
) -> None:
    assert is_foreign(HTTPHeaders(headers), method, APP.origin, websocket=websocket) is foreign


def test_headers_are_set_once_and_by_the_gate_alone() -> None:
    sent = HTTPHeaders()
    for name in ("X-Labhub-User", "x-labhub-user", "X-Forwarded-Host", "X-Labhub-Groups"):
        sent.add(name, "root")
        sent.add(name, "again")
    sent.add("Accept", "text/html")
    out = to_app(sent, APP, {"name": "ada"}, secret="s", tokens=(), app_made=lambda _: False)
    pairs = list(out.get_all())
    assert len({name for name, _ in pairs}) == len(pairs)
    assert "root" not in dict(pairs).values()
    assert (out["X-Labhub-Groups"], out["X-Labhub-Admin"], out["Accept"]) == (
        "",
        "false",
        "text/html",
    )
    for odd in (1, "true", "yes", None):  # only the hub's own True is an administrator
        model = {"name": "ada", "admin": odd}
        told = to_app(sent, APP, model, secret="s", tokens=(), app_made=lambda _: False)
        assert told["X-Labhub-Admin"] == "false"


def test_addresses_of_an_app_without_prefix_come_back_below_it() -> None:
    app = App(**{**vars(APP), "strip_prefix": True})
    for value, seen in (
        ("/x?y=1", "/services/plates/x?y=1"),
        (f"{APP.origin}/x", "/services/plates/x"),
        ("http://localhost/x", "/services/plates/x"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("x", "x"),
    ):
        assert from_app("Location", value, app, "/", lambda _: None) == seen
    assert from_app("Location", "/x", APP, "/", lambda _: None) == "/x"
    assert from_app("Clear-Site-Data", '"*"', APP, "/", lambda _: None) is None
