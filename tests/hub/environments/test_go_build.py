"""Programs that are compiled from Go modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.environments import go_build
from hub.environments.image_files import IMAGES
from hub.environments.toolchain import BuildError


def made(folder: Path) -> Path:
    (folder / "tool").mkdir(parents=True)
    (folder / "tool" / "main.go").write_text("package main\n")
    (folder / "go.mod").write_text("module x\n\nrequire (\n\tk8s.io/kubernetes v1.33.13\n)\n")
    (folder / "go.sum").write_text("")
    return folder


def test_modules_are_proved_before_anything_is_compiled(tmp_path: Path) -> None:
    calls: list[tuple[str, ...]] = []

    def run(*words: str | Path, cwd: Path, env: dict[str, str]) -> None:
        assert env["GOFLAGS"].startswith("-mod=readonly")
        assert env["GOTOOLCHAIN"] == "local"
        calls.append(tuple(map(str, words[1:])))

    go_build.install(made(tmp_path), tmp_path / "env", lambda _: None, run)
    assert calls[:2] == [("mod", "download"), ("mod", "verify")]
    (build,) = calls[2:]
    assert build[-1] == "./tool"
    assert any("version.gitVersion=v1.33.13" in word for word in build)


def test_a_module_that_is_not_what_the_lock_says_stops_it(tmp_path: Path) -> None:
    def run(*words: str | Path, **_: Any) -> None:
        if words[1:] == ("mod", "verify"):
            raise BuildError("SECURITY ERROR")
        assert words[1] != "build"

    with pytest.raises(BuildError, match="SECURITY"):
        go_build.install(made(tmp_path), tmp_path / "env", lambda _: None, run)


def test_every_source_counts(tmp_path: Path) -> None:
    image = made(tmp_path)
    names = [path.name for path in go_build.sources(image)]
    assert names == ["go.mod", "go.sum", "main.go"]
    assert go_build.sources(tmp_path / "other") == []


def test_ours_name_a_version_and_have_a_hash_for_every_module() -> None:
    image = IMAGES / "kubernetes"
    assert "gitMinor=33" in go_build._link(image)
    assert "k8s.io/kubernetes v1.33.13 h1:" in (image / "go.sum").read_text()
