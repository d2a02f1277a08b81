"""A kernel of a real server, and packages to install."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.labkit.server.conftest import TOKEN, Server, kernel_output


def wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel of one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class Notebook:
    """A kernel of a server, asked by its own client."""

    def __init__(self, server: Server, name: str = "python3") -> None:
        self.server = server
        with server.client() as client:
            answer = client.post("api/kernels", json={"name": name})
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]

    def run(self, code: str) -> str:
        """Run code; return all that it wrote, errors included."""
        return kernel_output(self.server.base, TOKEN, self.id, code)

    def end(self) -> None:
        with self.server.client() as client:
            client.delete(f"api/kernels/{self.id}")


@contextlib.contextmanager
def notebook(server: Server, name: str = "python3") -> Iterator[Notebook]:
    running = Notebook(server, name)
    try:
        yield running
    finally:
        running.end()
