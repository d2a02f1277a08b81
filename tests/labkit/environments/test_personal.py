"""A person's own packages in a real server: kernel, `!`, terminal, the page, and their faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.environments import start_kernel
from labkit.environments.personal import Personal
from tests.labkit.environments.notebook import notebook, wheel
from tests.labkit.server.conftest import Server

pytestmark = pytest.mark.slow  # each test has a server and kernels


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: all that pip is shown."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "labprobe", "1.5", "ANSWER = 42\n")
    wheel(folder, "yaml", "9.0", "raise ImportError('built for another Python')\n")
    return folder


@pytest.fixture
def server(index: Path) -> Iterator[Server]:
    """A server whose person has nothing installed, and whose pip knows the index alone."""
    with Server(env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}) as running:
        yield running


def personal(server: Server) -> Personal:
    place = server.home / ".local" / "share" / "labkit" / "python"
    return Personal(Path(sys.prefix), place)


def pip(server: Server, *words: str) -> str:
    """Run the terminal's pip."""
    program = personal(server).folder / "bin" / "pip"
    env = server.env | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([program, *words], env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_what_pip_installs_is_there_in_the_kernel_the_shell_and_the_terminal(
    server: Server, tmp_path: Path
) -> None:
    with notebook(server) as first:
        said = first.run("%pip install labprobe")
        assert "Successfully installed labprobe-1.5" in said
        assert first.run("import labprobe, numpy; print(labprobe.ANSWER)") == "42\n"
        # the lab's packages stay visible, and are not copied
        assert str(personal(server).folder) not in first.run("print(numpy.__file__)")
        assert first.run("!python -c 'import labprobe; print(labprobe.ANSWER)'").strip() == "42"
        lab = str(Path(sys.prefix) / "bin" / "jupyter")
        assert first.run("!command -v jupyter").strip() == lab
    with notebook(server) as second:  # a kernel that was started again
        assert second.run("import labprobe; print(labprobe.ANSWER)") == "42\n"
    settings = server.home / ".local" / "share" / "labkit" / "terminal.bash"
    code = "python -c 'import labprobe; print(labprobe.ANSWER)'; command -v pip; command -v jupyter"
    if os.environ.get("SHELL", "/bin/bash").endswith("bash"):
        # as terminals run it: after a login shell's files, which set PATH anew
        shell = ["bash", "--rcfile", str(settings), "-i", "-c", code]
        done = subprocess.run(shell, env=server.env, capture_output=True, text=True, check=False)
        answer, own_pip, jupyter = done.stdout.split()
        assert answer == "42"
        assert own_pip == str(personal(server).folder / "bin" / "pip")
        assert jupyter == lab
    # the server's own process never sees it
    assert server.process is not None
    maps = Path(f"/proc/{server.process.pid}/environ").read_bytes()
    assert b"personal-" not in maps
    with server.client() as client:
        answer_ = client.get("labkit/api/packages").json()
        assert answer_ == {"packages": ["labprobe==1.5"], "hides": []}


def test_a_broken_package_is_named_with_what_to_do_and_can_be_taken_away(server: Server) -> None:
    assert "Successfully installed yaml-9.0" in pip(server, "install", "--no-deps", "yaml")
    layer = personal(server)
    numpy = layer.packages / "numpy"
    numpy.mkdir()
    (numpy / "__init__.py").write_text("raise ImportError('numpy was built for another Python')")
    info = layer.packages / "numpy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    server.restart()  # the server starts
    with notebook(server) as running:
        said = running.run("import numpy")
        assert "numpy was built for another Python" in said
        assert "They hide the lab's: numpy 0.1 (the lab has " in said
        assert "labkit env reset" in said
        # an error that is not of an import's says nothing of packages
        assert "labkit env reset" not in running.run("1 / 0")
        assert "labkit env reset" not in running.run("import no_such_module")
    with server.client() as client:
        assert client.get("labkit/api/packages").json()["hides"][0].startswith("numpy 0.1 (the lab")
        xsrf = {"X-XSRFToken": ""}
        removed = client.delete("labkit/api/packages", headers=xsrf).json()["removed"]
    assert removed == ["numpy==0.1", "yaml==9.0"]
    with notebook(server) as running:
        assert running.run("import numpy; print(numpy.ones(2).sum())") == "2.0\n"


@pytest.mark.parametrize("fault", ["raise RuntimeError('not today')", "import os; os.abort()"])
def test_a_kernel_that_the_layer_keeps_from_starting_starts_without_it(
    server: Server, fault: str
) -> None:
    layer = personal(server)
    (layer.packages / "ipykernel.py").write_text(fault)
    with notebook(server) as running:
        said = running.run("import sys; print(sys.prefix)")
    assert f"{sys.prefix}\n" in said
    assert "Your own packages are left out: " in said
    assert "labkit env reset" in said


def test_an_upgrade_names_what_the_layer_hides(server: Server) -> None:
    pip(server, "install", "--no-deps", "yaml")
    layer = personal(server)
    info = next(layer.packages.glob("yaml-*.dist-info"))
    text = (info / "METADATA").read_text()
    (info / "METADATA").write_text(text.replace("Name: yaml", "Name: PyYAML"))
    state = json.loads((layer.folder / "labhub.json").read_text())
    state["locks"][sys.prefix] = "an earlier lock"
    (layer.folder / "labhub.json").write_text(json.dumps(state))
    server.restart()
    with notebook(server) as running:
        said = running.run("print(1)")
        assert "The lab's Python was renewed. Of your own packages these hide the lab's: " in said
        assert "pyyaml 9.0 (the lab has " in said
        assert "renewed" not in running.run("print(2)")
    server.restart()
    with notebook(server) as running:
        assert running.run("print(1)") == "1\n"


def test_a_kernel_of_ones_own_does_not_hide_the_labs(server: Server) -> None:
    own = server.home / ".local" / "share" / "jupyter" / "kernels" / "python3"
    own.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Mine", "language": "python"}
    (own / "kernel.json").write_text(json.dumps(spec))
    with server.client() as client:
        specs = client.get("api/kernelspecs").json()["kernelspecs"]
    assert specs["python3"]["spec"]["argv"][1] == start_kernel.__file__
    assert specs["own-python3"]["spec"]["display_name"] == "Mine (your own)"


def test_a_home_that_cannot_be_written_does_not_keep_the_server_from_starting(
    index: Path,
) -> None:
    with Server(env={"XDG_DATA_HOME": "/proc/no-such-place"}) as running:
        with notebook(running) as one:
            assert one.run("import sys; print(sys.prefix)") == f"{sys.prefix}\n"
        assert "Your own packages cannot be used" in running.log.read_text()
