"""Further environments: made by uv, each a kernel, frozen and removed; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import cli
from labkit.environments import named
from labkit.environments.personal import EnvironmentChangeError
from tests.conftest import needs_env
from tests.labkit.environments.notebook import notebook, wheel
from tests.labkit.server.conftest import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@needs_env("uv")
def test_an_environment_is_made_is_a_kernel_and_goes(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(server.home / ".local" / "share"))
    wheel(tmp_path, "labprobe", "1.5", "ANSWER = 42")
    package = str(tmp_path / "labprobe-1.5-py3-none-any.whl")
    assert cli.main(["env", "create", "cells", package]) == 0
    assert "cells is ready" in capsys.readouterr().out
    with notebook(server, "env-cells") as running:
        said = running.run("import sys, labprobe; print(sys.prefix, labprobe.ANSWER)")
        assert said == f"{server.home}/.local/share/labkit/python/cells 42\n"
        # it stands by itself: nothing of the lab's
        assert "No module named 'anndata'" in running.run("import anndata")
    with server.client() as client:
        specs = client.get("api/kernelspecs").json()["kernelspecs"]
    assert specs["env-cells"]["spec"]["display_name"] == "Python 3 (cells)"
    assert cli.main(["env", "freeze", "cells"]) == 0
    assert "labprobe==1.5" in capsys.readouterr().out.splitlines()
    assert cli.main(["env", "create", "cells"]) == 1
    assert "There is an environment 'cells'" in capsys.readouterr().err
    assert cli.main(["env", "remove", "cells"]) == 0  # nobody to ask: nothing goes
    assert "Nothing was removed: say --yes" in capsys.readouterr().err
    assert [one.name for one in named.environments()] == ["cells"]
    assert cli.main(["env", "remove", "cells", "--yes"]) == 0
    assert list(named.environments()) == []
    assert cli.main(["env", "remove", "cells"]) == 1
    assert "There is no environment 'cells'. Yours: none yet." in capsys.readouterr().err


@needs_env("uv")
def test_an_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(EnvironmentChangeError, match="uv could not do it"):
        named.create("cells", [str(tmp_path / "no-such-package-1.0-py3-none-any.whl")])
    assert list((tmp_path / "labkit" / "python").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "Cells", "a b", "personal-3.11", "-x", "x" * 41])
def test_names_that_cannot_be_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(EnvironmentChangeError, match="no name for an environment"):
        named.create(name)
    with pytest.raises(EnvironmentChangeError, match="There is no environment"):
        named.find(name)


def test_an_option_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(EnvironmentChangeError, match="'--index-url=x' is no package"):
        named.create("cells", ["--index-url=x"])
