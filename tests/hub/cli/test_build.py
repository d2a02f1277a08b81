"""Environments: built from nothing, by two at once, after an interruption, by other users."""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.environments.build import STAMP
from labkit.base.ports import free_port
from tests.conftest import needs_env, needs_root
from tests.support.cli_portal import LABHUB, eventually, run
from tests.support.portal import REPOSITORY, built_envs

VERIFY = """#!/usr/bin/env python3
import os, sys, time, click
with open({mark!r}, "a") as stream:
    stream.write(sys.prefix + "\\n")
while os.path.exists({hold!r}):
    time.sleep(0.1)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's closed folders: other users pass through."""
    made = Path(tempfile.mkdtemp(prefix="labhub-cli-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


class Tiny:
    """An images/ folder with one small environment, and who builds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark, self.hold = folder / "verified", folder / "hold"
        image = folder / "images" / "tiny"
        image.mkdir(parents=True)
        lock = (REPOSITORY / "images" / "hub" / "requirements.lock").read_text()
        click = re.search(r"^click==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)
        assert click
        self.lock = image / "requirements.lock"
        self.lock.write_text(click[0])
        shutil.copytree(REPOSITORY / "images" / "uv", folder / "images" / "uv")
        verify = image / "verify"
        verify.write_text(VERIFY.format(mark=str(self.mark), hold=str(self.hold)))
        verify.chmod(0o755)
        self.env = folder / "state" / "envs" / "tiny"

    def start(self) -> subprocess.Popen[str]:
        code = (
            "import sys; from pathlib import Path;"
            "from hub.environments import build as e, image_files as i;"
            f"i.IMAGES = Path({str(self.folder / 'images')!r}); sys.exit(e.main(['tiny']))"
        )
        env = {k: v for k, v in os.environ.items() if not k.startswith("LABHUB")}
        env |= {"LABHUB_STATE": str(self.folder / "state"), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def build(self) -> str:
        process = self.start()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def verified(self) -> int:
        return len(self.mark.read_text().splitlines()) if self.mark.exists() else 0


@pytest.mark.slow
def test_an_interrupted_build_is_resumed_and_two_do_not_meet(folder: Path) -> None:
    tiny = Tiny(folder)
    tiny.hold.touch()
    first = tiny.start()
    eventually(lambda: tiny.verified() or first.poll() is not None, timeout=120)
    assert tiny.verified() == 1
    assert not (tiny.env / STAMP).exists(), "no stamp before the end"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    one, two = tiny.start(), tiny.start()
    eventually(lambda: tiny.verified() == 2)
    time.sleep(1)
    tiny.hold.unlink()
    said = one.communicate(timeout=60)[1] + two.communicate(timeout=60)[1]
    assert one.returncode == two.returncode == 0, said
    assert "waiting for the environment tiny, which process" in said
    assert tiny.verified() == 2, "the second found it built"
    assert json.loads((tiny.env / STAMP).read_text())["lock"]
    assert "fetching uv" not in said

    assert tiny.build() == "", "nothing to do"
    tiny.lock.write_text(tiny.lock.read_text() + "\n# changed\n")
    assert "ready after" in tiny.build()

    # a Python that is gone
    (tiny.env / "bin" / "python").unlink()
    assert "ready after" in tiny.build()

    # a hash that is wrong is refused, with the log's tail and place
    tiny.lock.write_text(re.sub(r"sha256:.{8}", "sha256:00000000", tiny.lock.read_text()))
    shutil.rmtree(tiny.env)
    process = tiny.start()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "the environment 'tiny' could not be built" in said
    assert str(folder / "state" / "log" / "build-tiny.log") in said
    assert "hash" in said.lower()
    assert not (tiny.env / STAMP).exists()


@pytest.mark.slow
def test_the_hub_is_built_from_nothing(folder: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("LABHUB")}
    env["LABHUB_STATE"] = str(folder / "state")
    done = run("schema", env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"]
    assert "hub: installing" in done.stderr
    assert "ready after" in done.stderr
    again = run("schema", env=env)
    assert again.stderr == ""  # a build would say so
    python = folder / "state" / "envs" / "hub" / "bin" / "python"
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        subprocess.run(
            [python, "-c", "import jupyterhub"],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            env={},
            cwd="/",
            check=True,
        )


@pytest.fixture
def somebody() -> Iterator[pwd.struct_passwd]:
    """A Unix account with an empty home."""
    name = "lo" + secrets.token_hex(3)
    subprocess.run(["useradd", "--create-home", "--skel", "/nonexistent", name], check=True)
    yield pwd.getpwnam(name)
    subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@needs_root
@needs_env("proxy")
@needs_env("notebook")
@needs_env("cellxgene")
@pytest.mark.slow
def test_without_root_the_portal_serves_its_owner(
    folder: Path, somebody: pwd.struct_passwd
) -> None:
    import httpx

    repository = REPOSITORY
    closed = [p for p in (REPOSITORY, *REPOSITORY.parents) if not p.stat().st_mode & 0o005]
    if closed:
        pytest.skip(f"needs a repository that other users can read: {closed[0]} is closed")
    envs = folder / "envs"
    envs.mkdir()
    for name in ("proxy", "notebook", "alignment", "cellxgene", "cellprofiler"):
        if (built_envs() / name).exists():
            (envs / name).symlink_to(built_envs() / name)
    (envs / "hub").symlink_to(sys.prefix)
    port, hub, api, gate = (free_port() for _ in range(4))
    lab = folder / "lab.yaml"
    lab.write_text(
        f"url: http://localhost:{port}\nlocal:\n"
        f"  {{hub_port: {hub}, proxy_api_port: {api}, gate_port: {gate}}}\n"
    )
    lab.chmod(0o644)
    env = {"HOME": somebody.pw_dir, "PATH": os.environ["PATH"], "LABHUB_ENVS": str(envs)}

    def labhub(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [repository / LABHUB.name, *words],
            env=env,
            cwd="/",
            user=somebody.pw_uid,
            group=somebody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )

    try:
        up = labhub("up", "--config", str(lab))
        assert up.returncode == 0, up.stderr
        assert f"serves {somebody.pw_name} alone" in up.stderr
        assert re.search(rf"http://localhost:{port}/hub/link#\S+", up.stdout)
        assert httpx.get(f"http://localhost:{port}/hub/health").status_code == 200
        state = Path(somebody.pw_dir) / ".local" / "share" / "labhub"
        assert state.stat().st_mode & 0o077 == 0
        assert "Nothing to do" in labhub("up").stdout
        status = labhub("status", "--json")
        assert json.loads(status.stdout)["ok"], status.stdout
        assert "identity provider" not in labhub("user", "list").stderr
        refused = labhub("user", "add", "ada")
        assert refused.returncode == 1
        assert "sudo ./labhub up" in refused.stderr
        assert labhub("login").stdout.startswith(f"http://localhost:{port}/hub/link#")
    finally:
        down = labhub("down", "--yes")
    assert down.returncode == 0, down.stderr
    assert "The portal is down" in down.stdout
