"""The lab's further environments as kernels: which are, and CellProfiler's for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.environments.lab import lab_environments
from tests.conftest import needs_env
from tests.labkit.environments.notebook import notebook
from tests.labkit.server.conftest import Server
from tests.support.portal import REPOSITORY

TUTORIAL = REPOSITORY / "notebooks" / "06-cellprofiler-one-image.ipynb"


def made(folder: Path, *packages: str) -> None:
    """Make what looks like an environment."""
    for package in packages:
        (folder / "lib" / "python3.11" / "site-packages" / package).mkdir(parents=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch(mode=0o755)


def test_kernels_are_environments_with_ipykernel_that_are_no_servers(tmp_path: Path) -> None:
    made(tmp_path / "cellprofiler", "ipykernel", "cellprofiler")
    made(tmp_path / "notebook", "ipykernel", "jupyter_server")
    made(tmp_path / "alignment", "numpy")
    made(tmp_path / ".half", "ipykernel")
    (tmp_path / "gone" / "lib" / "python3.11" / "site-packages" / "ipykernel").mkdir(parents=True)
    assert [one.name for one in lab_environments(tmp_path)] == ["cellprofiler"]
    assert list(lab_environments(tmp_path / "nowhere")) == []


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.mark.slow
@needs_env("cellprofiler")
def test_the_tutorial_on_one_image_runs_in_cellprofilers_kernel(server: Server) -> None:
    cells = json.loads(TUTORIAL.read_text())
    name = cells["metadata"]["kernelspec"]["name"]
    with server.client() as client:
        specs = client.get("api/kernelspecs").json()["kernelspecs"]
    shown = specs[name]["spec"]["display_name"]
    assert shown == cells["metadata"]["kernelspec"]["display_name"] == "Python 3 (cellprofiler)"
    with notebook(server, name) as running:
        for cell in cells["cells"]:
            if cell["cell_type"] == "code":
                said = running.run("".join(cell["source"]))
                assert "Error" not in said, said
        assert running.run("print(len(nuclei) == len(truth) > 5, len(large))") == "True 6\n"
        areas = "print(sorted(nuclei['AreaShape_Area']) == sorted(truth['area']))"
        assert running.run(areas) == "True\n"
        assert "cellprofiler/bin/python" in running.run("!which python")
