"""A distribution from outside brings a backend, a workflow and an app, without private names."""

from __future__ import annotations

import ast
import os
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import httpx
import pytest

from hub.apps.declaration import Service
from hub.labfile.read import read_as
from tests.support.portal import built_envs

REPOSITORY = Path(__file__).parents[2]
OUTSIDER = REPOSITORY / "tests" / "outsider"
TUTORIAL = REPOSITORY / "docs" / "development" / "extend-labhub.md"
SHOWN = [
    "pyproject.toml",
    "outsider/background.py",
    "outsider/wordcount.py",
    "outsider/task_code/driver.py",
    "outsider/task_code/words.py",
    "greeting/service.yaml",
    "greeting/app.py",
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with our own packages, and the outsider installed as any distribution is."""
    folder = tmp_path_factory.mktemp("outsider")
    venv.create(folder / "env", symlinks=True)
    found = folder / "env" / "bin" / "python"
    site = next((folder / "env" / "lib").glob("python3*/site-packages"))
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n{REPOSITORY}\n")
    source = shutil.copytree(OUTSIDER, folder / "source")
    uv = built_envs() / "uv" / "bin" / "uv"
    install = [str(uv), "pip", "install", "--offline", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--python", found, source], check=True)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_it_brings_passes_the_contract(python: Path) -> None:
    contract = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "2"]
    done = subprocess.run(
        [python, *contract, "tests/support/outsider_contract.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 30 and "skipped" not in done.stdout


def test_it_uses_no_private_name_of_ours() -> None:
    files = [*OUTSIDER.glob("outsider/**/*.py"), OUTSIDER / "greeting" / "app.py"]
    assert len(files) >= 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert (node.module or "").split(".")[0] not in ("hub", "services", "tests")
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            assert not private, f"{path}: {private}"


@pytest.mark.parametrize("name", SHOWN)
def test_the_tutorial_shows_the_files_as_they_are(name: str) -> None:
    blocks = re.findall(r"^`([^`\n]+)`:\n\n```\w*\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S)
    shown = dict(blocks)
    assert set(shown) == set(SHOWN)
    assert shown[name] == (OUTSIDER / name).read_text()


def test_its_app_is_one_and_answers_the_gate_alone(tmp_path: Path) -> None:
    folder = OUTSIDER / "greeting"
    service = read_as(Service, folder / "service.yaml")
    assert service.command[-1] == "{folder}/app.py"
    socket, secret = tmp_path / "app.sock", secrets.token_hex(16)
    env = {
        "PATH": os.defpath,
        "LABHUB_APP_SOCKET": str(socket),
        "LABHUB_APP_PREFIX": "/services/greeting/",
        "LABHUB_APP_SECRET": secret,
    }
    app = subprocess.Popen([sys.executable, folder / "app.py"], env=env)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert app.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            url = "http://localhost/services/greeting/"
            person = {"X-Labhub-User": "ada<b>"}
            for shown in ({}, {"X-Labhub-App-Secret": "0" * 32}):
                assert client.get(url, headers={**person, **shown}).status_code == 403
            answer = client.get(url, headers={**person, "X-Labhub-App-Secret": secret})
            assert answer.status_code == 200
            assert answer.text == "<h1>Hello ada&lt;b&gt;</h1>"
    finally:
        app.terminate()
        app.wait(20)
