"""The viewer as a process: found again, never doubled, never in the way, gone when stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from jupyter_client.manager import KernelManager

import labkit
from labkit.viewers.cellxgene import process
from labkit.viewers.cellxgene.card import Card
from labkit.viewers.cellxgene.errors import PortTakenError, StartFailedError
from labkit.viewers.paths import EnvironmentMissingError
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import Answers, make

if TYPE_CHECKING:
    import anndata as ad

pytestmark = needs_env("cellxgene")


def pid(card: Card) -> int:
    return card._record.pid


def other_kernel(code: str) -> str:
    """Run code in another Python, as another notebook would, and return what it prints."""
    program = [sys.executable, "-W", "ignore", "-c", f"import labkit\n{code}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_data_is_not_opened_twice(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path
) -> None:
    path = tmp_path / "same.h5ad"
    adata.write_h5ad(path)
    first = labkit.cellxgene(path, port)
    again = labkit.cellxgene(str(path), port + 7)
    assert pid(again) == pid(first)
    assert "was open already" in repr(again)
    elsewhere = other_kernel(f"print(labkit.cellxgene({str(path)!r}, {port})._record.pid)")
    assert int(elsewhere) == pid(first)


def test_equal_data_in_memory_is_known_again(home: Path, port: int, adata: ad.AnnData) -> None:
    first = labkit.cellxgene(adata, port)
    assert pid(labkit.cellxgene(adata.copy(), port)) == pid(first)
    copies = home / ".cache/labkit/cellxgene"
    (written,) = copies.glob("*.h5ad")
    before = written.stat().st_ino
    first.stop()
    said: list[str] = []
    labkit.cellxgene(adata, port, progress=said.append)
    assert "The copy made earlier is used again." in said
    assert written.stat().st_ino == before


def test_changed_data_takes_its_own_viewers_place(home: Path, port: int, adata: ad.AnnData) -> None:
    first = labkit.cellxgene(adata, port)
    adata.obs["kind"] = "z"
    second = labkit.cellxgene(adata, port)
    assert (first.status(), second.port) == ("stopped", port)
    assert set(Answers(second).column("kind")) == {"z"}
    other_cells = make()
    other_cells.obs_names = [f"x{i}" for i in range(other_cells.n_obs)]
    third = labkit.cellxgene(other_cells, port)
    assert second.status() == "running"
    assert third.port != port


def test_other_data_goes_to_the_next_free_port(home: Path, port: int, adata: ad.AnnData) -> None:
    first = labkit.cellxgene(adata, port, title="first")
    said: list[str] = []
    second = labkit.cellxgene(make(seed=1), port, title="second", progress=said.append)
    assert first.port == port < second.port
    assert f"Port {port} is busy; CellxGene starts on port {second.port}." in said
    assert [card.title for card in labkit.cellxgene.running()] == ["first", "second"]
    assert Answers(first).expression("gene0").tolist() == adata.X[:, 0].toarray().ravel().tolist()


def test_a_port_that_answers_with_our_own_question_is_no_viewer(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may connect a client to itself, where its own port is the one it asks for."""

    def to_itself(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        own = socket.socket()
        own.bind(address)
        own.connect(address)
        return own

    monkeypatch.setattr(socket, "create_connection", to_itself)
    with pytest.raises(ConnectionRefusedError):
        process.ask(port, "/health")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        free.bind(("127.0.0.1", port))
        free.listen()


def test_a_port_of_another_program_is_left_alone(home: Path, port: int, adata: ad.AnnData) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        card = labkit.cellxgene(adata, port)
        assert card.port > port
        assert any(f"Port {port} was busy" in note for note in card.notes)


def test_a_port_that_is_taken_between_choice_and_use(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program is quicker than CellxGene: the next port is used without a second call."""
    choose = process._free_port
    with socket.socket() as quicker:

        def chosen(first: int, reserved: set[int]) -> int:
            number = choose(first, reserved)
            if not reserved:
                quicker.bind(("127.0.0.1", number))
                quicker.listen()
            return number

        monkeypatch.setattr(process, "_free_port", chosen)
        said: list[str] = []
        card = labkit.cellxgene(adata, port, progress=said.append)
        assert quicker.getsockname()[1] == port < card.port
        assert f"Another program took port {port} meanwhile: the next one is tried." in said
        assert Answers(card).schema
        assert [one.port for one in process.running()] == [card.port]
        assert any(f"Port {port} was busy" in note for note in card.notes)


def test_ports_that_are_always_taken_are_told_in_the_end(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "envs/cellxgene/bin/python"
    program.parent.mkdir(parents=True)
    # Its arguments: -I -W filter, the script, the configuration, the log.
    program.write_text('#!/bin/sh\necho "Port is in use by another program." > "$6"\necho $$\n')
    program.chmod(0o755)
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "envs"))
    said: list[str] = []
    with pytest.raises(PortTakenError, match="Choose one further away"):
        labkit.cellxgene(adata, port, progress=said.append)
    tried = [line for line in said if line.startswith("Another program took port")]
    assert len(tried) == 4  # and the fifth is the error
    assert process.running() == []


def test_two_kernels_at_once_do_not_collide(home: Path, port: int) -> None:
    cards: list[Card] = []
    threads = [
        threading.Thread(
            target=lambda n=n: cards.append(
                labkit.cellxgene(make(seed=n), port, title=str(n), progress=lambda _: None)
            )
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({card.port for card in cards}) == 3
    assert all(Answers(card).schema for card in cards)


@pytest.mark.parametrize("wrong", [0, 80, 1023, 65536, -1, "5005", 5005.0, None, True])
def test_wrong_ports_are_refused(home: Path, adata: ad.AnnData, wrong: object) -> None:
    with pytest.raises(ValueError, match="port: a whole number from 1024 to 65535"):
        labkit.cellxgene(adata, wrong)  # type: ignore[arg-type]


def test_ports_that_browsers_block_are_neither_taken_nor_found(
    home: Path, adata: ad.AnnData
) -> None:
    with pytest.raises(ValueError, match="browsers refuse to open 5060"):
        labkit.cellxgene(adata, 5060)
    assert process._free_port(6665, set()) >= 6670


def test_all_wrong_arguments_are_named(home: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)data:.*DataFrame.*port:.*title:.*timeout:"):
        import pandas as pd

        labkit.cellxgene(pd.DataFrame(), 80, title=" ", timeout=0)  # type: ignore[arg-type]


def test_it_outlives_the_kernel(home: Path, port: int) -> None:
    manager = KernelManager(kernel_name="python3")
    # Started as a real kernel; PYTHONPATH stands in for the installed wheel.
    manager.start_kernel(env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        code = (
            "import labkit; from tests.labkit.viewers.cellxgene.helpers import make\n"
            f"card = labkit.cellxgene(make(), {port})"
        )
        reply = client.execute_interactive(code, timeout=60, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=False)
    (card,) = labkit.cellxgene.running()
    assert Answers(card).schema["dataframe"]["nObs"] == 120
    card.stop()


def test_stop_ends_it_and_frees_the_port(home: Path, port: int, adata: ad.AnnData) -> None:
    card = labkit.cellxgene(adata, port)
    assert card.memory() > 100e6
    Answers(card).layout()
    card.stop()
    assert not psutil.pid_exists(pid(card)) or psutil.Process(pid(card)).status() == "zombie"
    assert (card.status(), card.memory()) == ("stopped", 0)
    assert labkit.cellxgene.running() == []
    card.stop()  # a second time does no harm
    assert labkit.cellxgene(adata, port).port == port  # at once, on the same port


def test_a_killed_viewer_is_noticed(home: Path, port: int, adata: ad.AnnData) -> None:
    card = labkit.cellxgene(adata, port)
    os.kill(pid(card), signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid(card))] if psutil.pid_exists(pid(card)) else [], 5)
    assert labkit.cellxgene.running() == []
    assert pid(labkit.cellxgene(adata, port)) != pid(card)


def test_a_recycled_process_id_is_not_taken_for_a_viewer(
    home: Path, port: int, adata: ad.AnnData
) -> None:
    card = labkit.cellxgene(adata, port)
    (state,) = (home / ".local/state/labkit/cellxgene").glob("*/*.json")
    fields = json.loads(state.read_text())
    card.stop()
    state.write_text(json.dumps({**fields, "pid": os.getpid()}))
    assert labkit.cellxgene.running() == []


def test_nothing_of_the_kernel_reaches_the_viewer(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "token-of-the-hub")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("CXG_SECRET_KEY", "__import__('os').abort()")  # CellxGene evaluates it
    card = labkit.cellxgene(adata, port)
    running = psutil.Process(pid(card))
    environment = running.environ()
    assert "token-of-the-hub" not in environment.values()
    assert {"PYTHONPATH", "http_proxy", "CXG_SECRET_KEY"}.isdisjoint(environment)
    secret = json.loads(Path(running.cmdline()[-2]).read_text())["server"]["app"][
        "flask_secret_key"
    ]
    assert secret not in " ".join(running.cmdline()) + card.log() + repr(card)
    assert {c.laddr.ip for c in running.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    assert Path(f"/proc/{running.pid}/oom_score_adj").read_text().strip() == "800"


def test_files_are_for_their_owner_alone(home: Path, port: int, adata: ad.AnnData) -> None:
    for folder in (".cache/labkit", ".local/state/labkit"):
        (home / folder).mkdir(parents=True, mode=0o755)
    labkit.cellxgene(adata, port)
    roots = [
        home / ".cache/labkit",
        home / ".local/state/labkit",
        *(home / "cellxgene-annotations").iterdir(),
    ]
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    assert len(found) > 6
    numba = home / ".cache/labkit/cellxgene/numba"
    for path in found:
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700 or numba in path.parents, path
        elif path.suffix in (".h5ad", ".json", ".config", ".log"):
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_the_cookie_is_bound_to_the_viewer(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    card = labkit.cellxgene(adata, port)
    assert card.url == f"/user/ada/proxy/{card.port}/"
    connection = http.client.HTTPConnection("127.0.0.1", card.port)
    connection.request("GET", "/api/v0.2/config")
    cookie = connection.getresponse().headers["Set-Cookie"]
    connection.close()
    assert cookie.startswith(f"cellxgene-{card.port}=")
    assert f"Path=/user/ada/proxy/{card.port}/" in cookie
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_a_start_that_fails_names_the_cause(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "gene-sets.csv").write_text("not,a,gene\nset,file\n")
    with pytest.raises(StartFailedError, match=r"(?s)Cause: .*gene-sets\.csv.*End of its log"):
        labkit.cellxgene(adata, port, annotations=folder)
    assert labkit.cellxgene.running() == []


def test_one_that_does_not_answer_in_time_is_stopped(
    home: Path, port: int, adata: ad.AnnData
) -> None:
    with pytest.raises(StartFailedError, match="did not answer within"):
        labkit.cellxgene(adata, port, timeout=0.2)
    assert labkit.cellxgene.running() == []
    assert process.is_free(port)


def test_a_missing_environment_is_named(
    home: Path, adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere" / "notebook"))
    with pytest.raises(
        EnvironmentMissingError, match=r"(?s)'cellxgene' is not installed.*labhub up"
    ):
        labkit.cellxgene(adata)


def test_the_core_runs_in_a_thread_without_ipython(home: Path, port: int, tmp_path: Path) -> None:
    """The launcher of the user's server calls it so."""
    path = tmp_path / "data.h5ad"
    make().write_h5ad(path)
    code = f"""
import sys, threading
said = []
call = lambda: said.append(labkit.cellxgene({str(path)!r}, {port}, progress=said.append).url)
thread = threading.Thread(target=call); thread.start(); thread.join()
assert "IPython" not in sys.modules
print(said[-1], len(said))
"""
    address, steps = other_kernel(code).split()
    assert address == f"http://127.0.0.1:{port}/"
    assert int(steps) >= 4


def test_infinite_values_in_the_matrix_are_served(home: Path, port: int, adata: ad.AnnData) -> None:
    x = adata.X.toarray()
    x[0, 0], x[1, 0] = np.nan, np.inf
    adata.X = x
    np.testing.assert_array_equal(
        Answers(labkit.cellxgene(adata, port)).expression("gene0"), x[:, 0]
    )
