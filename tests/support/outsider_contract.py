"""What runs where the outsider is installed: its backend keeps the contract, its workflow counts.

``tests/labkit/test_outsider.py`` makes that environment and runs this there.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.jobs import plugins
from labkit.jobs.job import open_job
from labkit.jobs.jobfile import load
from tests.labkit.jobs.conftest import lab_home
from tests.support.backend_contract import BackendContract, Site

__all__ = ["lab_home"]


class TestBackground(BackendContract):
    @pytest.fixture
    def site(self, tmp_path: Path, lab_home: Path) -> Site:
        return Site("background", tmp_path, {"background_nice": 1})


def test_both_come_from_the_installed_distribution() -> None:
    for group, name in ((plugins.BACKENDS, "background"), (plugins.WORKFLOWS, "wordcount")):
        plugin = plugins.find(group, name)
        assert plugin.distribution == "outsider"
        assert "site-packages" in str(inspect.getfile(plugin.load())), "as it was installed"


def test_the_backends_own_option_is_checked(lab_home: Path) -> None:
    with pytest.raises(RefusedError, match="background_nice"):
        labkit.Command("true").plan("background", background_nice=40)


@pytest.mark.parametrize("backend", ["background", "local"])
def test_the_workflow_runs_on_every_backend(backend: str, lab_home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three")
    (tmp_path / "b.txt").write_text("a bee")
    file = tmp_path / "job.json"
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    file.write_text(json.dumps({"workflow": "wordcount", "files": paths, "longer_than": 1}))
    job: Any = load(file).submit(backend).wait(60)
    again: Any = open_job(job.name)
    assert job.counts() == {"a.txt": 3, "b.txt": 1}
    assert again.counts() == job.counts(), "found again with its own class"
    assert labkit.WordCount(paths, longer_than=1).submit(backend).path == job.path
    with pytest.raises(RefusedError, match=r"c\.txt: is no file"):
        labkit.WordCount(["c.txt"]).plan(backend)
