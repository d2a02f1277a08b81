"""The tutorial on publishing, against the running app: what it says is there then."""

from __future__ import annotations

import pytest

from tests.conftest import needs_env
from tests.notebooks.test_notebooks import Tutor, tutor
from tests.services.cellxgene.conftest import folder, service
from tests.services.cellxgene.gate import BOB, Service

__all__ = ["folder", "service", "tutor"]

pytestmark = [needs_env("notebook"), needs_env("cellxgene")]

_CHECKS = """
rows = pbmc.versions()
seen = {
    "versions": list(rows.index), "shown": list(rows["shown"]), "cells": list(rows["cells"]),
    "hidden": pbmc.hidden, "url": pbmc.url, "groups": pbmc.groups, "tissue": pbmc.tissue,
}
"""


@pytest.mark.slow
def test_the_tutorial_publishes_and_takes_back(tutor: Tutor, service: Service) -> None:
    environment = {"LABHUB_SERVICES_URL": service.url, "JUPYTERHUB_API_TOKEN": "ada"}
    seen = tutor.execute("04-publish.ipynb", _CHECKS, environment)
    assert seen["versions"] == [1, 2]
    assert seen["shown"] == [True, False], "it was rolled back"
    assert seen["cells"][0] == 700 > seen["cells"][1]
    assert seen["hidden"] and seen["groups"] == ["blood"] and seen["tissue"] == "blood"
    assert seen["url"].endswith("/services/cellxgene/pbmc-ada/")
    with service.client(BOB) as bob:
        assert bob.get("pbmc-ada/").status_code == 404
