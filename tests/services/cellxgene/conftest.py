"""One running service for each test module, with one published dataset of ada's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import labkit
from labkit.portal.datasets.dataset import Published
from tests.labkit.viewers.cellxgene.helpers import make
from tests.services.cellxgene.gate import ADA, Service, Who, running

if TYPE_CHECKING:
    import anndata as ad

GROUPS = ["imaging"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short path: there are sockets in it."""
    place = Path(tempfile.mkdtemp(prefix="cxg-"))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """The running app, nothing published."""
    with running(folder / "app") as app:
        yield app


class Notebook:
    """A person's notebook: the environment that the portal gives it."""

    def __init__(self, service: Service, cache: Path) -> None:
        self._service = service
        self._cache = cache
        self.said: list[str] = []

    def environ(self, who: Who) -> dict[str, str]:
        return {
            "LABHUB_SERVICES_URL": self._service.url,
            "JUPYTERHUB_API_TOKEN": who.name,
            "XDG_CACHE_HOME": str(self._cache),
        }

    def publish(
        self, data: ad.AnnData | str | Path, name: str, who: Who = ADA, **kwargs: object
    ) -> Published:
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.environ(who).items():
                patch.setenv(variable, value)
            self.said = []
            told: dict[str, Any] = {"progress": self.said.append, **kwargs}
            return labkit.publish(data, name, **told)

    def published(self, who: Who = ADA) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.environ(who).items():
                patch.setenv(variable, value)
            return labkit.published()


@pytest.fixture(scope="module")
def notebook(service: Service, folder: Path) -> Notebook:
    return Notebook(service, folder / "cache")


@pytest.fixture(scope="module")
def cells(notebook: Notebook) -> Published:
    """A dataset of ada's that the group imaging may see."""
    return notebook.publish(make(seed=1), "cells", title="Cells", groups=GROUPS)
