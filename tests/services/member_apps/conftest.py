"""One portal for all tests of members' apps: a Shiny app, a Dash app, and a hostile one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hub.apps.members import local
from hub.labfile.read import read
from hub.state.paths import Paths
from tests.support.app_contract import AppCase
from tests.support.gated_portal import AppPortal
from tests.support.portal import REPOSITORY, People

APPS = Path(__file__).parent / "apps"
WEBAPPS: dict[str, Any] = {"groups": ["screening"], "memory": "1G", "processes": 96, "each": 3}


@dataclass
class Scene:
    """The portal and its people.

    Attributes
    ----------
    ada : str
        May publish, in the group screening.
    bob : str
        In the group imaging, which may not publish.
    carl : str
        In both groups.
    """

    portal: AppPortal
    ada: str
    bob: str
    carl: str

    def case(self, name: str, **more: Any) -> AppCase:
        """Return an app for the contract."""
        return AppCase(
            self.portal, name, member=self.ada, outsider=self.bob, group="screening", **more
        )

    def attack(self, code: str) -> str:
        """Run Python inside the hostile app; returns what it printed."""
        with self.portal.program(self.portal.token(self.ada)) as program:
            answer = program.post(self.portal.app_url("hostile", "run"), content=code)
        assert answer.status_code == 200, answer.text
        return answer.text

    def notebook(self, name: str, code: str) -> str:
        """Run Python in somebody's own server, with labkit at hand; returns what it printed."""
        library = Path(f"/home/{name}/library")
        begin = f"import sys\nsys.path.insert(0, {str(library)!r})\nimport labkit\n"
        return self.portal.run(name, begin + code)

    def home(self, name: str) -> Path:
        return Path(f"/home/{name}")


@pytest.fixture(scope="package")
def scene(people: People) -> Iterator[Scene]:
    ada, bob, carl = people.add("ada"), people.add("bob"), people.add("carl")
    lab = {
        "groups": {"screening": [ada, carl], "imaging": [bob, carl]},
        "webapps": WEBAPPS,
    }
    portal = AppPortal(lab, [APPS / "doses"], {"doses": ["screening"]})
    settings, paths = read(portal.state / "lab.yaml"), Paths(portal.state, portal.envs)
    for name in ("waves", "hostile"):  # a portal that does not run yet takes them up at its start
        local.add(str(APPS / name), None, ["screening"], None, settings, paths)
    with portal:
        for name in (ada, bob):
            library = Path(f"/home/{name}/library")
            shutil.copytree(REPOSITORY / "labkit", library / "labkit")
            for path in (library, *library.rglob("*")):
                shutil.chown(path, name, name)
            portal.spawn(name)
        yield Scene(portal, ada, bob, carl)
