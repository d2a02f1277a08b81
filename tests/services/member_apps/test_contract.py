"""What every app keeps, for a real Shiny and a real Dash app of a member."""

from __future__ import annotations

import json
import shutil

import pytest
from websockets.sync.client import ClientConnection

from tests.conftest import needs_env, needs_root
from tests.services.member_apps.conftest import Scene
from tests.support.app_contract import AppCase, AppContract

pytestmark = [needs_root, needs_env("proxy"), needs_env("dash")]
needs_shiny = pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with shiny")


def talk_shiny(ws: ClientConnection) -> None:
    """Begin a session of Shiny, move the slider, and wait for what it says."""

    def until(text: str) -> str:
        while text not in (message := str(ws.recv(timeout=30))):
            pass
        return message

    shown = {f".clientdata_output_{name}_hidden": False for name in ("who",)}
    ws.send(json.dumps({"method": "init", "data": {"n:shiny.number": 4, **shown}}))
    until('"config"')
    assert "looks at 4 periods" in until("looks at")
    ws.send(json.dumps({"method": "update", "data": {"n:shiny.number": 7}}))
    until("looks at 7 periods")


class TestDash(AppContract):
    @pytest.fixture(scope="class")
    @classmethod
    def app(cls, scene: Scene) -> AppCase:
        return scene.case(
            "doses",
            says="_dash-config",
            assets=("_dash-layout", "_dash-dependencies"),
            upload="upload",
            uploaded=lambda answer, size, digest: answer.json() == {"size": size, "sha256": digest},
            download="download",
            sets_cookie="whoami",
            whoami="whoami",
        )


@needs_shiny
class TestShiny(AppContract):
    @pytest.fixture(scope="class")
    @classmethod
    def app(cls, scene: Scene) -> AppCase:
        return scene.case(
            "waves",
            says="Waves",
            assets=("shared/shiny.min.js", "shared/jquery.min.js"),
            websocket="websocket/",
            talk=talk_shiny,
            upload="?upload=1",
            uploaded=lambda answer, size, _: answer.text == f"{size} bytes",
            download="?download=1",
            sets_cookie="?whoami=1",
            whoami="?whoami=1",
        )


def test_the_members_code_never_sees_the_secret(scene: Scene) -> None:
    with scene.portal.program(scene.portal.token(scene.ada)) as program:
        told = program.get(scene.portal.app_url("doses", "whoami")).json()
    assert told["user"] == scene.ada
    assert not [name for name in told["headers"] if "secret" in name.lower()]
    assert not [name for name in told["headers"] if name.lower() == "authorization"]


@needs_shiny
def test_shiny_knows_who_asks_and_nobody_tells_it_otherwise(scene: Scene) -> None:
    forged = {"Shiny-Server-Credentials": '{"user": "root", "groups": ["admins"]}'}
    with scene.portal.program(scene.portal.token(scene.carl)) as program:
        text = program.get(scene.portal.app_url("waves", "?whoami=1"), headers=forged).text
    assert f'"user": "{scene.carl}"' in text and '"root"' not in text
    assert '"groups": ["imaging", "screening"]' in text
    assert "SECRET" not in text
