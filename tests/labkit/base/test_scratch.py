"""A home on storage whose locks hang: kernels, labkit's list of jobs and trust go on.

The stand-in for such storage is `tests/support/hanging_locks.c`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.base import scratch
from labkit.server.signatures import FolderStore, keep_as_files
from tests.conftest import needs_env
from tests.support.portal import REPOSITORY, SUPPORT, built_envs

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
KERNEL = (
    "from jupyter_client.manager import start_new_kernel\n"
    "manager, client = start_new_kernel(startup_timeout=120)\n"
    "client.execute_interactive('print(6 * 7)', timeout=120)\n"
    "client.stop_channels(); manager.shutdown_kernel(now=True)\n"
)
JOBS = (
    "import labkit\n"
    "job = labkit.Command('true').submit('local')\n"
    "job.wait(60)\n"
    "print(len(labkit.jobs()), job.state)\n"
)
SQLITE = "import sqlite3; sqlite3.connect('{}').execute('CREATE TABLE t (x)')"


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("stand-in") / "hanging_locks.so"
    source = SUPPORT / "hanging_locks.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class Home:
    """A home below which no lock is ever given."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.path = folder / "home"
        self.path.mkdir()
        self.mark = folder / "hangs"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "LD_PRELOAD": str(library),
            "HANG_BELOW": str(self.path),
            "HANG_MARK": str(self.mark),
        }

    def start(self, python: str, code: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python, "-c", code],
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def hangs(self, running: subprocess.Popen[str]) -> bool:
        """Whether a program comes to wait for a lock before it ends; it is ended."""
        end = time.monotonic() + 120
        while not self.mark.exists() and running.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        subprocess.run(["pkill", "-KILL", "-s", str(running.pid)], check=False)
        running.wait()
        return self.mark.exists()


@pytest.fixture
def home(tmp_path: Path, hanging: Path) -> Home:
    return Home(tmp_path, hanging)


@needs_compiler
def test_the_stand_in_hangs_and_a_lock_that_is_a_folder_does_not(home: Home) -> None:
    file = home.path / "db.sqlite"
    assert home.hangs(home.start(sys.executable, SQLITE.format(file)))
    address = f"file:{file}2?vfs=unix-dotfile', uri=True) or ('"
    done = home.start(sys.executable, SQLITE.format(address).replace(") or ('')", ")"))
    assert done.wait(60) == 0, done.communicate()


@needs_compiler
@needs_env("notebook")
def test_a_kernel_starts_and_runs(home: Home) -> None:
    python = str(built_envs() / "notebook" / "bin" / "python")
    as_job = {"LABHUB_ENDS_AT": str(int(time.time()) + 3600)}
    done = home.start(python, KERNEL, **as_job)
    said, _ = done.communicate(timeout=240)
    assert done.returncode == 0, said
    assert "42" in said
    assert not home.mark.exists()
    assert home.hangs(home.start(python, KERNEL)), "and without this it hangs"


@needs_compiler
def test_jobs_are_submitted_and_listed(home: Home) -> None:
    env = {"PYTHONPATH": str(REPOSITORY), "LABHUB_ENVS": str(built_envs())}
    done = home.start(sys.executable, JOBS, **env)
    said, _ = done.communicate(timeout=240)
    assert done.returncode == 0, said
    assert "1 SUCCEEDED" in said
    assert not home.mark.exists()


def test_a_job_of_the_cluster_has_a_shared_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABHUB_ENDS_AT", raising=False)
    assert scratch.ipython_history(tmp_path) == ""
    monkeypatch.setenv("LABHUB_ENDS_AT", "1")
    history = Path(scratch.ipython_history(tmp_path))
    assert history.parent == scratch.folder()
    assert history.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("ext4", False), ("nfs4", True), ("lustre", True), ("fuse.sshfs", True), ("tmpfs", False)],
)
def test_storage_that_is_shared_is_known_by_its_kind(
    kind: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABHUB_ENDS_AT", raising=False)
    lines = f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /home rw - {kind} server:/x rw\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: lines)
    assert scratch.is_shared(Path("/home/ada")) is shared
    assert not scratch.is_shared(Path("/homework"))


def test_signatures_are_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "signatures")
    digest = "ab" * 32
    assert not store.check_signature(digest, "sha256")
    store.store_signature(digest, "sha256")
    assert store.check_signature(digest, "sha256")
    assert FolderStore(tmp_path / "signatures").check_signature(digest, "sha256")
    store.remove_signature(digest, "sha256")
    assert not store.check_signature(digest, "sha256")
    store.store_signature("../../etc/passwd", "sha256")
    assert list(tmp_path.rglob("passwd*")) == []


def test_a_server_trusts_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_server.serverapp import ServerApp
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    app = ServerApp()
    app.init_configurables()
    keep_as_files(app)
    notebook = new_notebook(cells=[new_code_cell("1")])
    notary = app.contents_manager.notary
    assert not notary.check_signature(notebook)
    notary.sign(notebook)
    assert notary.check_signature(notebook)
    assert not list(tmp_path.glob("*.db")), "Jupyter's own database was not opened"
