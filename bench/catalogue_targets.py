"""What `bench.catalogue` compares: our published datasets and cellxgene-gateway, on the same files.

``python -m bench.catalogue_targets`` is our app on a port, as that benchmark starts it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import psutil
import scipy.sparse as sp
from aiohttp import web

import labkit
from labkit.base.ports import free_port
from services.appkit.launch import Portal
from services.appkit.published.store import FolderStore
from services.cellxgene.__main__ import parts
from services.cellxgene.app import make_app
from services.cellxgene.records import OPENING
from tests.services.cellxgene.gate import ADA, BOB, SECRET, running
from tests.support.portal import REPOSITORY, built_envs

GATEWAY = "cellxgene-gateway==0.4.2"
PREFIX = "/services/cellxgene/"


def cells(count: int, genes: int, seed: int) -> ad.AnnData:
    """Return cells in ten clouds, each with genes of its own; one value in twenty is not zero."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 10, count)
    x = sp.random(count, genes, 0.05, "csr", dtype="float32", random_state=random)
    data = ad.AnnData(
        x,
        obs=pd.DataFrame(
            {
                "kind": pd.Categorical.from_codes(kind, [f"type {i}" for i in range(10)]),
                "batch": pd.Categorical(random.choice(["a", "b", "c"], count)),
                "n_genes": random.poisson(1500, count).astype("int32"),
            },
            index=[f"cell{i}" for i in range(count)],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)]),
    )
    middle = np.stack([np.cos(kind), np.sin(kind * 2.0)], axis=1) * 10
    data.obsm["X_umap"] = middle + random.normal(size=(count, 2))
    return data


@dataclass
class Place:
    """One of the two, started anew.

    Attributes
    ----------
    name : str
        As the tables say it.
    root : str
        Address before the dataset's name.
    suffix : str
        What follows the name.
    headers : dict
        Who asks.
    process : subprocess.Popen
        The service.
    """

    name: str
    root: str
    suffix: str
    headers: dict[str, str]
    process: subprocess.Popen[bytes]

    def url(self, dataset: int) -> str:
        """Return a dataset's address."""
        return f"{self.root}data{dataset}{self.suffix}/"

    def memory(self) -> int:
        """Return the proportional memory of the service and its viewers, in bytes."""
        total = 0
        for one in _tree(self.process.pid):
            with contextlib.suppress(psutil.Error, OSError):
                total += one.memory_full_info().pss
        return total

    def stop(self) -> None:
        """End it with all its viewers."""
        tree = _tree(self.process.pid)
        for one in reversed(tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(tree, timeout=10)
        for one in alive:
            one.kill()
        self.process.wait()


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


class Both:
    """The data, and how each of the two is started on it."""

    def __init__(self, folder: Path, gateway: Path, datasets: int) -> None:
        self.datasets = datasets
        self.folder = folder
        self.store = folder / "ours/datasets"
        self._plain = folder / "plain"
        self._gateway = gateway

    def publish(self, count: int, genes: int) -> None:
        """Publish the datasets with ours; the other gets links to the same files."""
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
        with running(self.folder / "ours") as service:
            os.environ |= {"LABHUB_SERVICES_URL": service.url, "JUPYTERHUB_API_TOKEN": ADA.name}
            for number in range(self.datasets):
                data = cells(count, genes, number)
                labkit.publish(data, f"data{number}", groups=["imaging"], progress=_silent)
        self._plain.mkdir()
        for number in range(self.datasets):
            served = self.store / f"data{number}/versions/1/data.h5ad"
            (self._plain / f"data{number}.h5ad").symlink_to(served)

    def ours(self, kept: bool = True) -> Place:
        """Start our app on a port, as its program does on a socket."""
        data = self.folder / ("run-kept" if kept else "run")
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        data.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (data / "datasets").symlink_to(self.store)
        port = free_port()
        variables = {
            "LABHUB_APP_DATA": str(data),
            "LABHUB_APP_PREFIX": PREFIX,
            "LABHUB_APP_SECRET": SECRET,
            "LABHUB_APP_SOCKET": "",  # a port of the bench's is in its place
            "BENCH_PORT": str(port),
            "BENCH_KEPT": "yes" if kept else "",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.catalogue_targets"],
            env={**os.environ, **variables},
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
        name = "ours" if kept else "ours, nothing kept"
        root = f"http://127.0.0.1:{port}{PREFIX}"
        return _up(Place(name, root, "", BOB.headers, process), port)

    def other(self) -> Place:
        """Start cellxgene-gateway as its documentation says."""
        port = free_port()
        variables = {
            "PYTHONPATH": str(self._gateway),
            "CELLXGENE_LOCATION": str(built_envs() / "cellxgene/bin/cellxgene"),
            "CELLXGENE_DATA": str(self._plain),
            "GATEWAY_PORT": str(port),
            "EXTERNAL_HOST": f"127.0.0.1:{port}",
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
        }
        process = subprocess.Popen(
            [
                str(built_envs() / "cellxgene/bin/python"),
                "-c",
                "from cellxgene_gateway.gateway import main; main()",
            ],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        root = f"http://127.0.0.1:{port}/view/"
        return _up(Place("cellxgene-gateway", root, ".h5ad", {}, process), port)


def _silent(_: str) -> None:
    """Say nothing."""


def _up(place: Place, port: int) -> Place:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return place
        time.sleep(0.02)
    raise RuntimeError(f"{place.name} does not start")


def serve() -> None:
    """Run our app on a port, in a process of its own."""
    if not os.environ["BENCH_KEPT"]:
        read = FolderStore.read
        FolderStore.read = lambda self, name, number, file: (  # type: ignore[method-assign]
            None if file == OPENING else read(self, name, number, file)
        )
    app = make_app(parts(Portal.from_environment(os.environ)))
    web.run_app(
        app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), print=None, access_log=None
    )


@contextlib.contextmanager
def gateway(folder: Path | None) -> Iterator[Path]:
    """Bring cellxgene-gateway into a folder; CellxGene's own environment has the rest."""
    place = folder or Path(tempfile.mkdtemp(prefix="labhub-gateway-"))
    if not (place / "cellxgene_gateway").exists():
        words = [str(built_envs() / "uv/bin/uv"), "pip", "install", "-q", "--target", str(place)]
        python = built_envs() / "cellxgene/bin/python"
        words += ["--python", str(python), "--no-deps", GATEWAY, "psutil"]
        subprocess.run(words, check=True)
    try:
        yield place
    finally:
        if folder is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    serve()
